"""The cache of tails: bounded in every way, and never needed."""

from __future__ import annotations

from talon.domain import entries as e
from talon.turn.context import ContextCache


def entry(seq: int, size: int = 10) -> e.Entry:
    return e.Entry(seq, "message.received", b"x" * size, "t1", 0)


def test_what_was_put_comes_back_with_the_seq_up_to_which_it_is_whole() -> None:
    cache = ContextCache()
    assert cache.get(1) is None
    cache.put(1, 9, [entry(3), entry(8)], 80)
    assert cache.get(1) == (9, (entry(3), entry(8)))
    cache.put(1, 12, [entry(8), entry(12)], 80)
    assert cache.get(1) == (12, (entry(8), entry(12)))


def test_only_the_last_entries_are_kept() -> None:
    cache = ContextCache()
    cache.put(1, 9, [entry(seq) for seq in range(10)], 3)
    assert cache.get(1) == (9, (entry(7), entry(8), entry(9)))


def test_the_sessions_that_were_used_last_stay() -> None:
    cache = ContextCache(sessions_max=2)
    cache.put(1, 1, [entry(1)], 80)
    cache.put(2, 1, [entry(1)], 80)
    assert cache.get(1) is not None
    cache.put(3, 1, [entry(1)], 80)
    assert cache.get(2) is None
    assert cache.get(1) is not None
    assert cache.get(3) is not None


def test_a_tail_that_is_too_large_is_not_kept_and_neither_is_the_older_one() -> None:
    cache = ContextCache(tail_bytes_max=100)
    cache.put(1, 1, [entry(1, 100)], 80)
    assert cache.get(1) is not None
    cache.put(1, 2, [entry(1, 100), entry(2, 1)], 80)
    assert cache.get(1) is None
