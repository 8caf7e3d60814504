"""A circuit of a provider's model: closed, open, half open. Pure steps over a small state that all workers share.

    closed ──FAILURES_MAX in a row──> open ──its time is over──> half open: one call may try
       ^                               ^                            │
       └──────── a call went well ─────└────── it failed, longer ───┘

A rate limit with a wait of its own opens it for that wait, and then closes it: the vendor has said when to come back.
"""

from __future__ import annotations

import msgspec

#: Failures in a row, none of them older than `WINDOW_MS` before the next, that open a circuit.
FAILURES_MAX = 5
WINDOW_MS = 60_000
#: How long it stays open at first; twice as long after each failed try, up to the most.
OPEN_FIRST_MS = 5_000
OPEN_MAX_MS = 120_000
#: How long one call may try while the others keep away.
PROBE_MS = 15_000
#: What a vendor's own wait counts at most: no typing error of a server keeps everybody away for a day.
WAIT_MAX_MS = 300_000
#: Errors that say something about the provider's health, and nothing about the request.
UNHEALTHY: frozenset[str] = frozenset({"timeout", "connection", "server", "overloaded", "rate_limit", "empty", "malformed"})


class Circuit(msgspec.Struct, frozen=True, omit_defaults=True):
    """`failures` in a row, the last one at `failed_at_ms`; open until `until_ms` for the `opened`-th time in a row, or, where that
    is 0, because the vendor asked for a wait. One call tries it until `probe_ms`. Times are the store's."""

    failures: int = 0
    failed_at_ms: int = 0
    opened: int = 0
    until_ms: int = 0
    probe_ms: int = 0

    @property
    def clean(self) -> bool:
        """Whether there is nothing to remember."""
        return self == Circuit()


_DECODER = msgspec.json.Decoder(Circuit)


def decode(state: bytes) -> Circuit:
    """From the store; nothing is a closed circuit."""
    return _DECODER.decode(state) if state else Circuit()


def encode(circuit: Circuit) -> bytes:
    """For the store; a clean circuit is nothing."""
    return b"" if circuit.clean else msgspec.json.encode(circuit)


def failed(circuit: Circuit, now_ms: int, retry_after_ms: int | None = None) -> Circuit:
    """After a call that failed with one of `UNHEALTHY`. What fails while the circuit is open had begun before: it is no worse."""
    failures = circuit.failures + 1 if now_ms - circuit.failed_at_ms <= WINDOW_MS else 1
    counted = msgspec.structs.replace(circuit, failures=failures, failed_at_ms=now_ms)
    open_ms = _left_ms(circuit.until_ms, now_ms, WAIT_MAX_MS)
    if retry_after_ms:
        return msgspec.structs.replace(counted, until_ms=now_ms + max(open_ms, min(retry_after_ms, WAIT_MAX_MS)))
    if open_ms or (not circuit.opened and failures < FAILURES_MAX):
        return counted
    open_ms = min(OPEN_FIRST_MS * 2 ** min(circuit.opened, 16), OPEN_MAX_MS)
    return msgspec.structs.replace(counted, opened=circuit.opened + 1, until_ms=now_ms + open_ms, probe_ms=0)


def resting_ms(circuit: Circuit, now_ms: int) -> int:
    """How long it is better left alone; 0: it may be asked, or tried (`needs_probe`)."""
    probing_ms = _left_ms(circuit.probe_ms, now_ms, PROBE_MS) if circuit.opened else 0
    return max(_left_ms(circuit.until_ms, now_ms, WAIT_MAX_MS), probing_ms)


def _left_ms(until_ms: int, now_ms: int, most_ms: int) -> int:
    """What is left of a wait. One that is longer than it ever was is from before the store's clock was set back, and over."""
    left_ms = until_ms - now_ms
    return left_ms if 0 < left_ms <= most_ms else 0


def needs_probe(circuit: Circuit, now_ms: int) -> bool:
    """Whether it is half open: whoever asks asks `probe` first."""
    return bool(circuit.opened) and not resting_ms(circuit, now_ms)


def probe(circuit: Circuit, now_ms: int) -> tuple[Circuit, bool]:
    """-> (the circuit, whether the asker may try it)."""
    if not needs_probe(circuit, now_ms):
        return circuit, not resting_ms(circuit, now_ms)
    return msgspec.structs.replace(circuit, probe_ms=now_ms + PROBE_MS), True
