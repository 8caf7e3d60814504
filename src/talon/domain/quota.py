"""A provider's quota, requests and tokens per minute, and the queue before it. Pure steps over a small state that workers share.

A bucket fills evenly and holds what a minute gives. Who wants to call has a *ticket*; while the bucket has not enough for it and
for all that stand before it, it waits and asks again. The order is fair by namespace (start-time fair queueing): each namespace's
tickets are spaced by what they take, so that one namespace's thousand calls do not stand before another one's first.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MINUTE_MS = 60_000
#: A ticket that is not seen again this long after its time has lost its place: its worker is gone, or its turn is.
GRACE_MS = 10_000
#: Until it is forgotten, such a ticket may come back to its place; nobody waits for it meanwhile.
FORGET_MS = 60_000
#: More do not queue by name: they come again after a minute.
TICKETS_MAX = 2_000


class Quota(msgspec.Struct, frozen=True):
    """What a provider allows in a minute; 0: no limit."""

    requests: int = 0
    tokens: int = 0

    @property
    def limited(self) -> bool:
        """Whether there is anything to keep to."""
        return bool(self.requests or self.tokens)


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """A call that waits. `tag` is its place; it was last told to come at `due_ms`."""

    id: str
    namespace: str
    tokens: int
    tag: float
    due_ms: int


class Shared(msgspec.Struct, frozen=True, array_like=True):
    """What is left in the buckets at `at_ms`, the tag of the last ticket that went through, where each namespace's next tag may
    begin, and who waits, in order. `at_ms` 0: nothing was ever taken."""

    requests: float = 0.0
    tokens: float = 0.0
    at_ms: int = 0
    passed: float = 0.0
    begins: dict[str, float] = {}
    waiting: tuple[Ticket, ...] = ()


_DECODER = msgspec.json.Decoder(Shared)


def decode(state: bytes) -> Shared:
    """From the store; nothing is a full bucket."""
    return _DECODER.decode(state) if state else Shared()


def encode(shared: Shared) -> bytes:
    """For the store."""
    return msgspec.json.encode(shared)


def take(shared: Shared, quota: Quota, id: str, namespace: str, tokens: int, now_ms: int) -> tuple[Shared, int]:
    """Ask for one request of `tokens` -> (the state after it, milliseconds to wait before asking again; 0: it may go).

    A call of more tokens than a minute gives goes when the bucket is full, and leaves it in debt.
    """
    shared = _filled(shared, quota, now_ms)
    waiting = [one for one in shared.waiting if now_ms <= one.due_ms + FORGET_MS]
    ticket = next((one for one in waiting if one.id == id), None)
    begins = {name: tag for name, tag in shared.begins.items() if tag > shared.passed}
    if ticket is None:
        if len(waiting) >= TICKETS_MAX:
            return msgspec.structs.replace(shared, begins=begins, waiting=tuple(waiting)), MINUTE_MS
        tag = max(shared.passed, begins.get(namespace, 0.0))
        begins[namespace] = tag + _share(quota, tokens)
        ticket = Ticket(id, namespace, tokens, tag, now_ms)
    others = [one for one in waiting if one.id != id]
    before = [one for one in others if (one.tag, one.id) < (ticket.tag, ticket.id) and now_ms <= one.due_ms + GRACE_MS]
    wait = _wait_ms(shared, quota, [*before, ticket])
    if wait:
        others.append(msgspec.structs.replace(ticket, due_ms=now_ms + wait))
        others.sort(key=lambda one: (one.tag, one.id))
        return msgspec.structs.replace(shared, begins=begins, waiting=tuple(others)), wait
    after = msgspec.structs.replace(
        shared,
        requests=shared.requests - 1,
        tokens=shared.tokens - tokens,
        passed=max(shared.passed, ticket.tag),
        begins=begins,
        waiting=tuple(others),
    )
    return after, 0


def settle(shared: Shared, more: int) -> Shared:
    """A call took `more` tokens than it had asked for (fewer: a negative number)."""
    return msgspec.structs.replace(shared, tokens=shared.tokens - more)


def _filled(shared: Shared, quota: Quota, now_ms: int) -> Shared:
    passed_ms = now_ms - shared.at_ms if shared.at_ms else MINUTE_MS
    if passed_ms < 0:  # the store's clock was set back: what was to come then comes as much earlier
        waiting = tuple(msgspec.structs.replace(one, due_ms=one.due_ms + passed_ms) for one in shared.waiting)
        return msgspec.structs.replace(shared, at_ms=now_ms, waiting=waiting)
    return msgspec.structs.replace(
        shared,
        requests=min(quota.requests, shared.requests + quota.requests * passed_ms / MINUTE_MS),
        tokens=min(quota.tokens, shared.tokens + quota.tokens * passed_ms / MINUTE_MS),
        at_ms=now_ms,
    )


def _share(quota: Quota, tokens: int) -> float:
    """Which part of a minute a call takes."""
    return max(1 / quota.requests if quota.requests else 0.0, tokens / quota.tokens if quota.tokens else 0.0)


def _wait_ms(shared: Shared, quota: Quota, tickets: Sequence[Ticket]) -> int:
    """Until the buckets have enough for all of `tickets`, the last of them ours; each counts as a full bucket at most."""
    wait = 0.0
    if quota.requests:
        wait = max(wait, (len(tickets) - shared.requests) / quota.requests)
    if quota.tokens:
        wait = max(wait, (sum(min(one.tokens, quota.tokens) for one in tickets) - shared.tokens) / quota.tokens)
    return 0 if wait <= 0 else int(wait * MINUTE_MS) + 1
