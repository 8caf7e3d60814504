"""A provider's quota: never more than it allows, in an order that is fair by namespace, and nobody waits for who is gone."""

from __future__ import annotations

from random import Random

import pytest

from talon.domain.quota import FORGET_MS, GRACE_MS, MINUTE_MS, TICKETS_MAX, Quota, Shared, decode, encode, settle, take

NOW = 1_760_000_000_000


def test_a_full_bucket_lets_a_minutes_worth_through_and_then_paces() -> None:
    shared, quota = Shared(), Quota(requests=10)
    for number in range(10):
        shared, wait = take(shared, quota, f"t{number}", "a", 0, NOW)
        assert wait == 0
    shared, wait = take(shared, quota, "t10", "a", 0, NOW)
    assert 5_990 <= wait <= 6_001
    shared, again = take(shared, quota, "t10", "a", 0, NOW + wait)
    assert again == 0


def test_tokens_are_counted_too_and_what_was_not_used_comes_back() -> None:
    quota = Quota(tokens=6_000)
    shared, wait = take(Shared(), quota, "big", "a", 6_000, NOW)
    assert wait == 0
    _, wait = take(shared, quota, "next", "a", 600, NOW)
    assert 5_990 <= wait <= 6_001
    shared, wait = take(settle(shared, 100 - 6_000), quota, "next", "a", 600, NOW)
    assert wait == 0
    owing, _ = take(Shared(), quota, "more than a minute", "a", 60_000, NOW)
    assert take(owing, quota, "x", "a", 1, NOW)[1] > 8 * MINUTE_MS, "it is in debt"


def test_one_namespaces_thousand_do_not_stand_before_anothers_first() -> None:
    shared, quota = Shared(), Quota(requests=60)
    for number in range(1_000):
        shared, _ = take(shared, quota, f"a{number:04}", "a", 0, NOW)
    _, wait = take(shared, quota, "b", "b", 0, NOW)
    assert wait < 3_000


def test_who_is_gone_is_not_waited_for_and_who_comes_back_soon_has_its_place() -> None:
    shared, quota, wait = Shared(), Quota(requests=60), 0
    for number in range(63):
        shared, wait = take(shared, quota, f"a{number:02}", "a", 0, NOW)
    later = NOW + wait + GRACE_MS + 1_000
    behind, wait = take(shared, quota, "z", "a", 0, later)
    assert wait == 0, "the three before it have not been seen for long enough"
    assert {one.id for one in behind.waiting} == {"a60", "a61", "a62"}
    assert take(shared, quota, "z", "a", 0, later + FORGET_MS)[0].waiting == ()


def test_the_queue_is_bounded() -> None:
    shared, quota, wait = Shared(at_ms=NOW), Quota(requests=1), 0
    for number in range(TICKETS_MAX + 5):
        shared, wait = take(shared, quota, f"t{number}", f"n{number}", 0, NOW)
    assert (len(shared.waiting), wait) == (TICKETS_MAX, MINUTE_MS)


@pytest.mark.parametrize("seed", range(20))
def test_under_random_callers_it_is_never_exceeded_and_everybody_gets_through(seed: int) -> None:
    random = Random(seed)
    quota = Quota(random.choice((0, 120)), random.choice((60_000, 120_000)))
    shared, now = Shared(), NOW
    waiting = {f"t{n}": (random.choice("abc"), random.randint(1, 3_000), NOW + random.randint(0, 5_000)) for n in range(300)}
    passed: list[tuple[int, int]] = []
    while waiting:
        id_, (namespace, tokens, due) = min(waiting.items(), key=lambda one: one[1][2])
        now = max(now, due)
        shared, wait = take(decode(encode(shared)), quota, id_, namespace, tokens, now)
        if wait:
            waiting[id_] = (namespace, tokens, now + wait)
        else:
            del waiting[id_]
            passed.append((now, tokens))
        assert now < NOW + 60 * MINUTE_MS, f"seed {seed}: somebody starves"
    for start, _ in passed:
        inside = [tokens for at, tokens in passed if start <= at < start + MINUTE_MS]
        # A bucket that is full at the beginning and fills during the minute: two minutes' worth at most.
        assert not quota.requests or len(inside) <= 2 * quota.requests + 1, f"seed {seed}"
        assert sum(inside) <= 2 * quota.tokens + 3_000, f"seed {seed}"
    least = sum(tokens for _, tokens in passed) / quota.tokens - 1
    assert now - NOW <= (max(least, len(passed) / quota.requests - 1 if quota.requests else 0) + 0.5) * MINUTE_MS, "no time is lost"


def test_a_clock_that_is_set_back_neither_gives_anything_nor_holds_anybody_up() -> None:
    shared, quota, wait = Shared(), Quota(requests=60), 0
    for number in range(62):
        shared, wait = take(shared, quota, f"t{number}", "a", 0, NOW)
    back = NOW - 3_600_000
    shared, again = take(shared, quota, "t60", "a", 0, back)
    assert 990 <= again <= 1_001, "no more than before"
    shared, again = take(shared, quota, "t60", "a", 0, back + again)
    assert again == 0
    shared, again = take(shared, quota, "z", "a", 0, back + wait + GRACE_MS + 1_000)
    assert again == 0, "t61 has not been seen for long enough, by the new time"
