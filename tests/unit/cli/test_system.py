"""The real clock and ids."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
import uuid_utils

from talon.cli import system
from talon.cli.system import SystemClock, SystemIds


def test_ids_are_uuid7_and_sort_in_the_order_they_were_made_also_between_threads() -> None:
    ids = SystemIds()
    made: list[list[str]] = [[] for _ in range(4)]

    def work(into: list[str]) -> None:
        into.extend(ids.uuid7() for _ in range(2000))

    threads = [threading.Thread(target=work, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(into == sorted(into) for into in made)
    everything = [uuid.UUID(one) for into in made for one in into]
    assert len(set(everything)) == 8000
    assert {(one.version, one.variant) for one in everything} == {(7, uuid.RFC_4122)}
    now_ms = SystemClock().now_ms()
    assert all(abs((one.int >> 80) - now_ms) < 60_000 for one in everything)


def test_ids_keep_growing_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = SystemIds()
    future = uuid_utils.UUID(int=(1 << 127) | (7 << 76) | (2 << 62))
    monkeypatch.setattr(system.uuid_utils, "uuid7", lambda: future)
    first, second, third = ids.uuid7(), ids.uuid7(), ids.uuid7()
    assert first == str(future)
    assert first < second < third


@pytest.mark.parametrize("bits", [(0, 0), (0, (1 << 62) - 1), ((1 << 12) - 1, (1 << 62) - 1)])
def test_the_id_after_an_id_is_greater_and_still_a_uuid7(bits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rand_a, rand_b = bits
    last = (5 << 80) | (7 << 76) | (rand_a << 64) | (2 << 62) | rand_b
    monkeypatch.setattr(system.uuid_utils, "uuid7", lambda: uuid_utils.UUID(int=last))
    ids = SystemIds()
    assert uuid.UUID(ids.uuid7()).int == last
    after = uuid.UUID(ids.uuid7())
    assert after.int > last
    assert (after.version, after.variant) == (7, uuid.RFC_4122)


def test_the_clock_tells_unix_milliseconds_and_a_time_that_never_goes_back() -> None:
    clock = SystemClock()
    assert abs(clock.now_ms() - time.time() * 1000) < 1000
    assert clock.monotonic_s() <= clock.monotonic_s()
