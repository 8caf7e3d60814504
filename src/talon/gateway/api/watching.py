"""A watch of resources, whatever the transport: `added`, `modified`, `deleted`, each with its version, and bookmarks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import msgspec

from talon.access.roles import Principal, sees
from talon.domain.errors import FieldError, Invalid
from talon.domain.resources import Requirement
from talon.gateway.api.views import watched
from talon.gateway.deps import GatewayDeps
from talon.gateway.watch import Pace, Told, Watch
from talon.store.resources import ResourceRow
from talon.store.selecting import meets

#: A client that takes nothing for so long is cut off; it comes back and goes on from the last version it got.
STALLED_S = 30.0
#: Events are told when they come to so many bytes: about what a connection takes at once.
CHUNK_BYTES = 64 * 1024
_VERSION_DIGITS_MAX = 18
EventType = Literal["added", "modified", "deleted", "bookmark"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is watched, and by whom: the resources of one kind in a namespace, those with certain labels only if there is a
    selector; of namespaces those that he sees."""

    namespace: str
    kind: str
    selector: Sequence[Requirement]
    who: Principal

    def has(self, row: ResourceRow) -> bool:
        """Whether `row` is one of these, whatever its labels are."""
        return row.kind == self.kind and (row.kind != "Namespace" or sees(self.who, row.name))


class Event(NamedTuple):
    """What a watch tells. `row` and `json`: the resource as it was written (of a deleted one, the last), without conditions; a
    bookmark has none: everything up to `version` is told."""

    type: EventType
    version: int
    row: ResourceRow | None = None
    json: bytes = b""


def version_of(text: str, field: str) -> int | None:
    """The version after which a watch begins; None for "": now. Raises `Invalid` naming `field`."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _VERSION_DIGITS_MAX):
        message = f"must be a version as lists and events give it, not {text[:40]!r}"
        raise Invalid("invalid", f"{field} {message}", (FieldError(field, message),))
    return int(text)


class Watching:
    """One watch. `revoked`: whoever watches is nobody any more."""

    def __init__(self, deps: GatewayDeps, watch: Watch, wanted: Wanted) -> None:
        self._store, self._watches = deps.store, deps.plane.watches
        self._watch, self._wanted = watch, wanted
        self._place, self._pace = 0, Pace()
        self._let_go: Callable[[], None] = lambda: None
        self._known: list[Told] = []
        self.revoked = False

    @classmethod
    async def begin(cls, deps: GatewayDeps, wanted: Wanted, after: int | None, revoked: Callable[[], None]) -> Self:
        """A watch of `wanted` after version `after` (None: now), to be dropped in the end. `revoked()` is called when it ends
        because whoever watches is nobody any more: a client that hangs must be cut off.

        Raises `Gone("version_gone")`, `Invalid("version_ahead")`, and what `Watches.open` and `Holding.hold` raise.
        """
        watch = await deps.plane.watches.open(wanted.namespace)
        watching = cls(deps, watch, wanted)

        def ended() -> None:
            watching.revoked = True
            watching.end()
            revoked()

        try:
            watching._let_go = deps.holding.hold(wanted.who, ended)
            if after is None:
                watching._place = (await deps.store.versions([wanted.namespace])).get(wanted.namespace, 0)
            else:
                watching._place = after
                await watching._read()
        except BaseException:
            watching.drop()
            raise
        return watching

    def end(self) -> None:
        """Tell nothing more."""
        self._watch.end()

    def drop(self) -> None:
        """Forget it. Idempotent."""
        self._let_go()
        self._watches.drop(self._watch)

    async def told(self) -> AsyncGenerator[list[Event]]:
        """What comes, in pieces of a bounded size, until the client, the namespace or the gateway goes. Raises what the store
        raises: the client resumes."""
        watch, first = self._watch, True
        while not watch.over:
            if self._known or await self._read():
                for piece in self._pieces():
                    if self.revoked:
                        return
                    yield piece
                continue
            if first or watch.beat:
                first = watch.beat = False
                yield [Event("bookmark", self._place)]
            await watch.wait(self._place)

    async def _read(self) -> bool:
        """Find out what follows; -> whether the place moved or there is something to tell."""
        before = self._place
        told = self._watch.feed.after(before)
        if told is None:
            wanted = self._wanted
            events, upto = await self._store.read_events(wanted.namespace, before, self._pace.limit, wanted.kind)
            self._pace.took(events)
            told = [Told(one) for one in events]
        else:
            upto = self._watch.feed.upto
        self._known = [one for one in told if self._wanted.has(one.event.row)]
        self._place = max(before, upto)
        return self._place > before

    def _pieces(self) -> Sequence[list[Event]]:
        """What is known, a bounded piece at a time."""
        pieces: list[list[Event]] = []
        size = CHUNK_BYTES
        for one in self._known:
            kind = self._told_as(one)
            if kind is None:
                continue
            if size >= CHUNK_BYTES:
                pieces.append([])
                size = 0
            data = one.json(watched)
            pieces[-1].append(Event(kind, one.event.row.version, one.event.row, data))
            size += len(data)
        self._known = []
        return pieces

    def _told_as(self, one: Told) -> EventType | None:
        """What a change is for this watch; None if it does not concern it."""
        selector = self._wanted.selector
        if not selector:
            return one.event.event
        was = one.event.event != "added" and meets(one.event.labels_before, selector)
        is_now = one.event.event != "deleted" and meets(labels_of(one.event.row), selector)
        if is_now:
            return "modified" if was else "added"
        return "deleted" if was else None


class _Labelled(msgspec.Struct):
    labels: Mapping[str, str] | None = None


class _Body(msgspec.Struct):
    metadata: _Labelled


_labels = msgspec.json.Decoder(_Body)


def labels_of(row: ResourceRow) -> Mapping[str, str]:
    """The labels in a row's body."""
    return _labels.decode(row.body).metadata.labels or {}
