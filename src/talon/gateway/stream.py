"""A session's journal as a stream, whatever the transport: from a cursor on, then live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from talon.domain.entries import TURN_ENDS, Entry
from talon.domain.errors import AheadOfJournal, Gone
from talon.domain.inbox import Receipt
from talon.domain.session import OPEN_TURN_STATES, SessionRow
from talon.gateway.api.lookup import require_session, require_turn
from talon.gateway.deps import GatewayDeps
from talon.gateway.events import SSE, Cursor, Form, Place, advance, keeps, opens
from talon.gateway.hub import Reader
from talon.store.model import Fragment
from talon.store.protocols import Where

PAGE = 200
#: How far back the open model call is looked for at a time, in entries.
LOOK_BACK = 128
_CALL_TYPES = ("model.started", "model.failed", "stream.reset", "message.completed", *sorted(TURN_ENDS))


class Outlet(Protocol):
    """Where a stream's events go."""

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Returns when the client has taken enough of what was sent before, or is gone. After the `last` there is no more."""
        ...

    def cut(self) -> None:
        """Make a `send` that hangs end: its client takes nothing any more."""
        ...


class Beginning(msgspec.Struct, frozen=True):
    """Where a stream begins. `said`: the events up to `place`, the journal's end a moment ago; None: the journal is read from there
    on. `over`: what was asked for has ended before; `end` is the entry to tell, None for a client that has seen it."""

    sid: int
    place: Place
    said: bytes | None = None
    over: bool = False
    end: Entry | None = None


class Streams:
    """Streams from a store and a hub."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._store = deps.store
        self._hub = deps.hub
        self._clock = deps.clock

    async def begin(self, where: Where, after: Cursor | None, turn_id: str | None) -> Beginning:
        """The stream of a session after a cursor (None: from now on), of one turn only if one is named.

        Raises `NotFound`, `Gone("session_replaced")`, `AheadOfJournal("cursor_ahead")`.
        """
        session = await require_session(self._store, where)
        place = await self._start(session, after)
        if turn_id is not None:
            turn = await require_turn(self._store, session, turn_id)
            place = msgspec.structs.replace(place, watch=turn_id)
            if turn.state not in OPEN_TURN_STATES:
                end = await self._end_of(session.sid, turn_id, turn.seq)
                if end is not None and end.seq <= place.seq:
                    # It ended before the stream begins: who gave no position is told its end, who gave one has seen it.
                    return Beginning(session.sid, place, over=True, end=None if after is not None else end)
        return Beginning(session.sid, place)

    async def begin_with(self, receipt: Receipt, form: Form = SSE) -> Beginning:
        """The stream of the turn that a message became or joined."""
        steered = receipt.strategy == "steer"
        place = Place(seq=receipt.seq, watch=receipt.turn_id, message=receipt.seq if steered else 0)
        if steered:
            place = await self._in_call(receipt.sid, place, first=1)
        if steered or receipt.replayed:
            return Beginning(receipt.sid, place)
        # A new turn: its journal so far is the receipt. Should more have been written since, then what follows, the turn's end at
        # the latest, does not go on at this place, and the journal is read; what other processes wrote is found by the poll.
        said, place = advance(place, receipt.entries, (), self._clock.now_ms(), form)
        return Beginning(receipt.sid, place, said)

    def open(self, beginning: Beginning, outlet: Outlet, form: Form = SSE) -> Reader:
        """A reader that stands there; to be given to `drop` in the end. Raises `Unavailable` when closing, `Throttled` when too
        many streams are open."""
        reader = self._hub.open(beginning.sid, beginning.place, outlet.cut, form)
        reader.again, reader.ours = beginning.said is None, 0 if beginning.said is None else beginning.place.model
        return reader

    def drop(self, reader: Reader) -> None:
        """Forget a reader. Idempotent."""
        self._hub.drop(reader)

    async def pump(self, reader: Reader, write: Outlet) -> None:
        """Send events until the watched turn, the session, the client or the gateway ends; then `reader.stop` says why, if not of
        itself. Raises what the store raises: the client resumes."""
        while reader.stop is None:
            data = reader.take()
            if data:
                # More may have been pushed while it was sent: that comes before anything is read.
                await _send(reader, write, data, last=reader.place.ended)
                continue
            if reader.place.ended:
                return
            if reader.again:
                await self._catch_up(reader, write)
                continue
            if reader.beat:
                reader.beat = False
                if reader.form.heartbeat:
                    await _send(reader, write, reader.form.heartbeat)
            if reader.check or reader.place.deleted:
                reader.check = False
                if await self._is_over(reader):
                    if rest := reader.take():  # pushed while the row was read
                        await _send(reader, write, rest)
                    return
            await reader.wait()

    async def _catch_up(self, reader: Reader, write: Outlet) -> None:
        """Read the journal from the reader's place to its end. What is pushed meanwhile only makes it read again."""
        reader.reading = True
        try:
            while reader.stop is None:
                reader.again = False
                entries = await self._store.read_entries(reader.sid, reader.place.seq, PAGE)
                await self._move(reader, write, entries, ())
                if len(entries) < PAGE or reader.place.ended:
                    break
            if reader.place.model and reader.stop is None and not reader.place.ended:
                pieces = await self._store.read_fragments(reader.sid, reader.place.model)
                await self._move(reader, write, (), pieces)
        finally:
            reader.reading = False

    async def _move(self, reader: Reader, write: Outlet, entries: Sequence[Entry], pieces: Sequence[Fragment]) -> None:
        data, reader.place = advance(reader.place, entries, pieces, self._clock.now_ms(), reader.form)
        if any(entry.type == "model.started" for entry in entries):
            reader.ours = 0  # an answer that was begun here may be gone on with elsewhere
        if data:
            await _send(reader, write, data)

    async def _is_over(self, reader: Reader) -> bool:
        """Whether the session is deleted, nothing of it runs any more, and everything was sent."""
        row = await self._store.get_session_by_sid(reader.sid)
        if row is None:
            return True
        if row.deleted_at_ms is None or row.turn_id is not None:
            return False
        if row.last_seq > reader.place.seq:
            reader.mark()
            reader.check = True
            return False
        return True

    async def _start(self, session: SessionRow, after: Cursor | None) -> Place:
        """Where a stream begins. Raises `Gone` | `AheadOfJournal`."""
        if after is None:
            place = Place(seq=session.last_seq)
        elif after.seq == 0:
            return Place(seq=session.first_seq - 1)
        elif after.seq < session.first_seq:
            raise Gone(
                "session_replaced",
                f"entry {after.seq} belongs to an earlier session {session.id!r}; this one begins at {session.first_seq}",
            )
        elif after.seq > session.last_seq:
            raise AheadOfJournal(
                "cursor_ahead", f"session {session.id!r} has no entry {after.seq} yet; its last one is {session.last_seq}"
            )
        else:
            place = Place(seq=after.seq)
        if session.turn_id is None and not (after and after.exact):
            return place  # nothing runs, so nothing is being streamed
        place = await self._in_call(session.sid, place, session.first_seq)
        if after is None or not after.exact or not place.model:
            return place
        pieces = await self._store.read_fragments(session.sid, place.model)
        end = max((piece.offset + len(piece.text) for piece in pieces if piece.kind == "text"), default=after.text)
        if after.text > end:
            raise AheadOfJournal("cursor_ahead", f"the answer at {place.model} has {end} characters yet, not {after.text}")
        return msgspec.structs.replace(place, text=after.text, reasoning=after.reasoning)

    async def _in_call(self, sid: int, place: Place, first: int) -> Place:
        """`place` within the model call that is open there, if one is; a bounded read, further back only past inbox entries."""
        upto, span = place.seq, LOOK_BACK
        closed: set[str] = set()
        while upto >= first:
            below = max(first - 1, upto - span)
            found = await self._store.read_entries(sid, below, upto - below, _CALL_TYPES)
            for entry in reversed(found):
                if entry.seq > upto:
                    continue
                if entry.type != "model.started":
                    if not keeps(entry):
                        closed.add(entry.turn_id)
                elif entry.turn_id in closed:
                    return place
                else:
                    return msgspec.structs.replace(place, model=opens(entry), turn=entry.turn_id)
            upto, span = below, span * 4
        return place

    async def _end_of(self, sid: int, turn_id: str, seq: int) -> Entry | None:
        """The entry that ended a turn whose entries begin at `seq`."""
        while True:
            page = await self._store.read_entries(sid, seq, PAGE, sorted(TURN_ENDS))
            for entry in page:
                if entry.turn_id == turn_id:
                    return entry
            if len(page) < PAGE:
                return None
            seq = page[-1].seq


async def _send(reader: Reader, outlet: Outlet, data: bytes, *, last: bool = False) -> None:
    reader.sending = True
    try:
        await outlet.send(data, last=last)
    finally:
        reader.sending = False
