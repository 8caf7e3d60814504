"""A provider's circuit, step by step."""

from __future__ import annotations

from random import Random

from talon.domain.circuit import (
    FAILURES_MAX,
    OPEN_FIRST_MS,
    OPEN_MAX_MS,
    PROBE_MS,
    WAIT_MAX_MS,
    WINDOW_MS,
    Circuit,
    decode,
    encode,
    failed,
    needs_probe,
    probe,
    resting_ms,
)

NOW = 1_760_000_000_000


def opened(now_ms: int = NOW) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES_MAX):
        circuit = failed(circuit, now_ms)
    return circuit


def test_it_opens_after_some_failures_in_a_row_and_not_before() -> None:
    circuit = Circuit()
    for _ in range(FAILURES_MAX - 1):
        circuit = failed(circuit, NOW)
    assert not resting_ms(circuit, NOW)
    assert resting_ms(failed(circuit, NOW), NOW) == OPEN_FIRST_MS


def test_failures_that_lie_far_apart_do_not_open_it() -> None:
    circuit = Circuit()
    for number in range(10 * FAILURES_MAX):
        circuit = failed(circuit, NOW + number * (WINDOW_MS + 1))
    assert circuit.opened == 0


def test_what_fails_while_it_is_open_does_not_keep_it_open_longer() -> None:
    circuit = opened()
    for _ in range(200):
        circuit = failed(circuit, NOW + OPEN_FIRST_MS - 1)
    assert resting_ms(circuit, NOW) == OPEN_FIRST_MS
    assert circuit.opened == 1


def test_one_call_tries_it_when_its_time_is_over_and_opens_it_for_longer_if_it_fails() -> None:
    circuit, then = opened(), NOW + OPEN_FIRST_MS
    assert not needs_probe(circuit, then - 1)
    assert probe(circuit, then - 1) == (circuit, False)
    assert needs_probe(circuit, then)
    trying, may = probe(circuit, then)
    assert may
    assert probe(trying, then) == (trying, False), "one at a time"
    assert resting_ms(trying, then) == PROBE_MS
    assert probe(trying, then + PROBE_MS)[1], "whoever tried it is gone"
    assert resting_ms(failed(trying, then), then) == 2 * OPEN_FIRST_MS


def test_it_is_never_open_for_longer_than_the_most() -> None:
    circuit, now = opened(), NOW
    for _ in range(60):
        now += resting_ms(circuit, now)
        circuit, may = probe(circuit, now)
        assert may
        circuit = failed(circuit, now)
        assert 0 < resting_ms(circuit, now) <= OPEN_MAX_MS
    assert resting_ms(circuit, now) == OPEN_MAX_MS


def test_a_vendors_own_wait_opens_it_for_that_time_and_needs_no_try() -> None:
    circuit = failed(Circuit(), NOW, retry_after_ms=7_000)
    assert resting_ms(circuit, NOW) == 7_000
    assert not needs_probe(circuit, NOW + 7_000)
    assert probe(circuit, NOW + 7_000) == (circuit, True)
    assert resting_ms(failed(Circuit(), NOW, retry_after_ms=10**9), NOW) == WAIT_MAX_MS


def test_it_goes_into_the_store_and_back_and_a_clean_one_is_nothing() -> None:
    for circuit in (Circuit(), opened(), failed(opened(), NOW, retry_after_ms=1)):
        assert decode(encode(circuit)) == circuit
    assert encode(Circuit()) == b""


def test_whatever_happens_somebody_may_ask_again_before_long() -> None:
    for seed in range(200):
        random, circuit, now = Random(seed), Circuit(), NOW
        for _ in range(200):
            now += random.choice((0, 10, 1_000, 20_000) * 9 + (-3_600_000,))  # now and then the clock is set back
            match random.randint(0, 2):
                case 0:
                    circuit = failed(circuit, now, random.choice((None, 500, 60_000)))
                case 1:
                    circuit, _ = probe(circuit, now)
                case _:
                    assert resting_ms(circuit, now) <= max(WAIT_MAX_MS, OPEN_MAX_MS), f"seed {seed}"
        assert probe(circuit, now + max(WAIT_MAX_MS, OPEN_MAX_MS))[1], f"seed {seed}"


def test_a_clock_that_is_set_back_leaves_it_open_for_no_hour_and_it_opens_again_by_the_new_time() -> None:
    back = NOW - 3_600_000
    assert resting_ms(opened(), back) == 0
    trying, may = probe(opened(), back)
    assert (may, resting_ms(trying, back)) == (True, PROBE_MS)
    assert resting_ms(failed(trying, back), back) == 2 * OPEN_FIRST_MS
    assert resting_ms(failed(opened(), back, retry_after_ms=700), back) == 700
