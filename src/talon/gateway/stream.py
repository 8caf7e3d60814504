"""A session's journal as a stream: bare ASGI, from a cursor on, then live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from talon.domain.entries import TURN_ENDS, Entry
from talon.domain.errors import AheadOfJournal, FieldError, Gone, Invalid, TalonError
from talon.domain.inbox import Receipt
from talon.domain.session import OPEN_TURN_STATES, SessionRow
from talon.gateway.api.lookup import require_session, require_turn
from talon.gateway.deps import GatewayDeps
from talon.gateway.events import Cursor, Place, advance, encode_entry, parse_cursor
from talon.gateway.hub import HEARTBEAT, Reader
from talon.store.model import Fragment

log = logging.getLogger("talon.gateway")
PAGE = 200
#: How far back the open model call is looked for at a time, in entries.
LOOK_BACK = 128
_CALL_TYPES = ("model.started", "model.failed", "stream.reset", "message.completed", *sorted(TURN_ENDS))
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
#: The first bytes: a connected client sees something at once, and knows to come back after a second.
HELLO = b": talon\nretry: 1000\n\n"


class Streams:
    """Serves streams from a store and a hub."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._store = deps.store
        self._hub = deps.hub
        self._clock = deps.clock

    async def serve(self, scope: Scope, receive: Receive, send: Send, path: dict[str, str]) -> None:
        """`GET …/stream`."""
        after, turn_id = _question(scope)
        session = await require_session(self._store, (path["ns"], path["agent"], path["session_id"]))
        place = await self._start(session, after)
        if turn_id is not None:
            turn = await require_turn(self._store, session, turn_id)
            place = msgspec.structs.replace(place, watch=turn_id)
            if turn.state not in OPEN_TURN_STATES:
                end = await self._end_of(session.sid, turn_id, turn.seq)
                if end is not None and end.seq <= place.seq:
                    # It ended before the stream begins: who gave no position is told its end, who gave one has seen it.
                    await _short(send, None if after is not None else encode_entry(end))
                    return
        await self._run(scope, receive, send, session.sid, place)

    async def follow(self, scope: Scope, receive: Receive, send: Send, receipt: Receipt) -> None:
        """The stream of the turn that a message became or joined, as the answer to the message itself."""
        steered = receipt.strategy == "steer"
        place = Place(seq=receipt.seq, watch=receipt.turn_id, message=receipt.seq if steered else 0)
        if steered:
            place = await self._in_call(receipt.sid, place, first=1)
        if steered or receipt.replayed:
            await self._run(scope, receive, send, receipt.sid, place)
            return
        # A new turn: its journal so far is the receipt. Should more have been written since, then what follows, the turn's end at
        # the latest, does not go on at this place, and the journal is read; what other processes wrote is found by the poll.
        said, place = advance(place, receipt.entries, (), self._clock.now_ms())
        await self._run(scope, receive, send, receipt.sid, place, said)

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
                    closed.add(entry.turn_id)
                elif entry.turn_id in closed:
                    return place
                else:
                    return msgspec.structs.replace(place, model=entry.seq, turn=entry.turn_id)
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

    async def _run(self, scope: Scope, receive: Receive, send: Send, sid: int, place: Place, said: bytes | None = None) -> None:
        """Send events until the watched turn, the session, the client or the gateway ends.

        `said`: the events up to `place`, the journal's end a moment ago; None: the journal is read from `place` on.
        """
        write = _Writer(send, scope["talon.send"])
        reader = self._hub.open(sid, place, write.cut)
        reader.again, reader.ours = said is None, 0 if said is None else place.model
        watcher = asyncio.create_task(_watch(receive, reader))
        try:
            await write.begin(reader, said or b"")
            await self._pump(reader, write)
        except TalonError as exc:
            log.warning("stream of session %d ended, its client will resume: %s", sid, exc)
        finally:
            self._hub.drop(reader)
            watcher.cancel()
        await write.end(reader)

    async def _pump(self, reader: Reader, write: _Writer) -> None:
        while reader.stop is None:
            data = reader.take()
            if data:
                # More may have been pushed while it was sent: that comes before anything is read.
                await write.send(reader, data, last=reader.place.ended)
                continue
            if reader.place.ended:
                return
            if reader.again:
                await self._catch_up(reader, write)
                continue
            if reader.beat:
                reader.beat = False
                await write.send(reader, HEARTBEAT)
            if reader.check or reader.place.deleted:
                reader.check = False
                if await self._is_over(reader):
                    if rest := reader.take():  # pushed while the row was read
                        await write.send(reader, rest)
                    return
            await reader.wait()

    async def _catch_up(self, reader: Reader, write: _Writer) -> None:
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

    async def _move(self, reader: Reader, write: _Writer, entries: Sequence[Entry], pieces: Sequence[Fragment]) -> None:
        data, reader.place = advance(reader.place, entries, pieces, self._clock.now_ms())
        if data:
            await write.send(reader, data)

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


class _Writer:
    """Writes one response; knows how to cut its connection when the client takes nothing any more."""

    def __init__(self, send: Send, bare: Send) -> None:
        self._send = send  # through the front, which adds its headers
        self._bare = bare  # uvicorn's own
        self._over = False

    async def begin(self, reader: Reader, said: bytes) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await self.send(reader, HELLO + said)

    async def send(self, reader: Reader, data: bytes, *, last: bool = False) -> None:
        """Returns when the client has taken enough of what was sent before, or is gone. After the `last` there is no more."""
        reader.sending = True
        self._over = last
        try:
            await self._bare({"type": "http.response.body", "body": data, "more_body": not last})
        finally:
            reader.sending = False

    async def end(self, reader: Reader) -> None:
        if not self._over and reader.stop not in ("gone", "slow"):
            await self._bare({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self) -> None:
        """Abort the connection. ASGI has no word for it, and closing politely would wait for the client for ever."""
        transport = getattr(getattr(self._bare, "__self__", None), "transport", None)
        abort = getattr(transport, "abort", None)
        if callable(abort):
            abort()


async def _short(send: Send, data: bytes | None) -> None:
    """A stream that is over already. 204 tells an EventSource not to come back."""
    if data is None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": data})


async def _watch(receive: Receive, reader: Reader) -> None:
    """Wake the stream when its client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.end("gone")


def _question(scope: Scope) -> tuple[Cursor | None, str | None]:
    """-> (cursor or None for "now", turn id or None). The header wins over the query: it is how a browser resumes."""
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    unknown = sorted(query.keys() - {"after", "turn"})
    if unknown:
        errors = tuple(FieldError(name, "unknown query parameter") for name in unknown)
        raise Invalid("invalid", f"unknown query parameter {unknown[0]!r}; known here: after, turn", errors)
    cursor = parse_cursor(query["after"], "after") if "after" in query else None
    header = next((value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"last-event-id"), "")
    if header:
        cursor = parse_cursor(header, "Last-Event-ID")
    return cursor, query.get("turn")
