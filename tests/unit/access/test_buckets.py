"""How many requests somebody may make: the bucket refills, never overflows, and forgets nobody who could misuse it."""

from __future__ import annotations

import random

from talon.access.buckets import REMEMBERED_MAX, Buckets


def test_a_burst_then_the_rate_and_the_wait_that_is_said_is_enough() -> None:
    buckets = Buckets(2.0, 5)
    assert [buckets.take("a", 0.0) for _ in range(5)] == [0.0] * 5
    wait_s = buckets.take("a", 0.0)
    assert wait_s == 0.5
    assert buckets.take("a", 0.49) > 0
    assert buckets.take("a", wait_s) == 0.0
    assert buckets.take("a", wait_s) == 0.5
    assert buckets.take("b", wait_s) == 0.0
    assert [buckets.take("a", 1000.0) > 0 for _ in range(7)] == [False] * 5 + [True] * 2


def test_over_any_time_nobody_gets_more_than_burst_and_rate() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    buckets, now_s, taken, began_s = Buckets(10.0, 20), 100.0, 0, 100.0
    for _ in range(20_000):
        now_s += chance.choice((0.0, 0.001, 0.05, 1.0)) * chance.random()
        taken += buckets.take("a", now_s) == 0.0
        assert taken <= 20 + (now_s - began_s) * 10.0 + 1e-6


def test_no_limit_is_no_limit() -> None:
    buckets = Buckets(0.0, 1)
    assert all(buckets.take("a", 0.0) == 0.0 for _ in range(1000))


def test_a_crowd_of_callers_does_not_free_one_who_is_over_his_limit() -> None:
    buckets = Buckets(0.001, 1)
    for number in range(REMEMBERED_MAX - 1):
        buckets.take(f"n{number}", 0.0)
    assert buckets.take("a", 1.0) == 0.0
    buckets.take("one more", 1.0)  # the oldest goes
    assert buckets.take("a", 1.0) > 0
