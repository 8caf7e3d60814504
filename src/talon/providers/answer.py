"""An answer as it arrives: what a vendor's reader has found, collected in Talon's words, and at the end one `Finished` or an error.

Pure: no I/O and no clock, so every oddity of a compatible server is a test on plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NoReturn

import msgspec

from talon.domain.entries import Money, Opaque, Usage
from talon.providers.decoding import Decoding, Head, Unreadable
from talon.providers.estimate import estimate_usage, tokens_of
from talon.providers.faults import from_event, safe_text
from talon.providers.limits import CallLimits
from talon.providers.protocol import (
    ChatEvent,
    ChatRequest,
    ErrorClass,
    Finished,
    ProviderError,
    ReasoningDelta,
    StopReason,
    TextDelta,
    ToolCall,
)

_HEADS = 4


class _Slot:
    """A tool call that is being written."""

    __slots__ = ("arguments", "id", "index", "name", "opaque")

    def __init__(self, index: int | None, call_id: str) -> None:
        self.index = index
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []
        self.opaque = ""


class Answer:
    """Collects one answer of provider `provider` to `request`. Not to be used again after `finish` or an error.

    A reader calls `text`, `reasoning`, `call`, `keep`, … in the order in which things came; it sets `id`, `model`, `stop`, `cost`.
    """

    def __init__(self, provider: str, request: ChatRequest, limits: CallLimits, secret: str = "") -> None:
        self._provider = provider
        self._request = request
        self._limits = limits
        self._secret = secret
        self._slots: list[_Slot] = []
        self._tokens: Callable[[], Usage] | None = None
        self._chars = 0  # everything that the model wrote, as far as it was counted
        self._text = 0  # characters of it that were for the reader, and since something else came
        self._run = 0
        self._refusal: list[str] = []
        self._thought: list[str] = []  # reasoning that no event holds yet, and text that came behind it: not counted, counted
        self._pieces: list[str] = []
        self._ready: list[str] = []
        self._kept: list[str | int | _Slot] = []  # the vendor's own, characters of text, calls: in their order
        self._kept_chars = 0
        self._keeps = False
        self.id = ""
        self.model = ""
        self.stop: StopReason | None = None  # why the model stopped; None until it has
        self.cost: Money | None = None  # what the vendor says that it costs; few do
        #: More text for the reader, perhaps empty. It is counted when the next event is made: a call for each piece would cost more
        #: than all the rest that is done for it.
        self.text: Callable[[str], None] = self._pieces.append

    def head(self, events: Iterable[bytes], decoding: Decoding[Head]) -> None:
        """The answer's id and model are those of the first event that has them. Of events that came together only some are looked
        at, and what cannot be read is read over."""
        for event in islice(events, _HEADS) if not (self.id and self.model) else ():
            try:
                head = decoding.one(event)
            except Unreadable:
                continue
            self.id, self.model = self.id or head.id or "", self.model or head.model or ""
            if self.id and self.model:
                break

    def reasoning(self, piece: str, out: list[ChatEvent]) -> None:
        """More of the visible reasoning. Raises `ProviderError("malformed")` above `answer_max`, as the others do."""
        if piece:
            if self._pieces or self._ready:
                self.flush(out)
            self._count(piece)
            self._thought.append(piece)

    def flush(self, out: list[ChatEvent]) -> None:
        """What has arrived together becomes one event: a consumer's work is by arrivals, not by the vendor's pieces."""
        if self._thought:
            out.append(ReasoningDelta("".join(self._thought)))
            self._thought.clear()
        if self._pieces:
            self._count_text()
        if self._ready:
            out.append(TextDelta("".join(self._ready)))
            self._ready.clear()

    def _count_text(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if text:
            self._count(text)
            self._run += len(text)
            self._ready.append(text)

    def refusal(self, piece: str) -> None:
        """More of the words in which the model refuses; the answer then ends as `ProviderError("refusal")`."""
        self._count(piece)
        self._refusal.append(piece)

    def keep(self, item: str) -> None:
        """JSON text of the vendor's own that must go back with this answer, at this place of it."""
        self._kept_chars += len(item)
        self._bound(self._kept_chars)
        self._end_run()
        self._kept.append(item)
        self._keeps = True

    def call(self, index: int | None, call_id: str, name: str, arguments: str | dict[str, Any] | None, opaque: str = "") -> None:
        """A tool call, or a piece of one: the name comes whole and once, the arguments in pieces (or as an object).

        The piece belongs to the latest call with its index (without an index, the latest of all), unless it begins another. It
        does when it has a name and another id; without index and id, when it has a name. (Servers exist that give every call the
        index 0, and servers that give none.)
        """
        slot = self._slot(index, call_id, name)
        slot.name = slot.name or name
        slot.id = slot.id or call_id
        if opaque:
            slot.opaque = opaque
            self._keeps = True
        if arguments:
            text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            slot.arguments.append(text)
            self._count(text)

    def _slot(self, index: int | None, call_id: str, name: str) -> _Slot:
        last = next((slot for slot in reversed(self._slots) if index is None or slot.index == index), None)
        if last is not None:
            another = call_id != last.id if call_id else index is None
            if not (name and last.name and another):
                return last
        if len(self._slots) == self._limits.tool_calls_max:
            raise self.error("malformed", f"the answer has more tool calls than tool_calls_max ({self._limits.tool_calls_max})")
        slot = _Slot(index, call_id)
        self._slots.append(slot)
        self._end_run()
        self._kept.append(slot)
        return slot

    def arguments_of(self, index: int) -> str:
        """What has come of the arguments of the call `index`; empty if there is none."""
        slot = next((slot for slot in reversed(self._slots) if slot.index == index), None)
        return "".join(slot.arguments) if slot is not None else ""

    def _count(self, piece: str) -> None:
        self._chars += len(piece)
        self._bound(self._chars)

    def _end_run(self) -> None:
        """Note the place of the text since the last call or kept item."""
        self._count_text()
        if self._run:
            self._kept.append(self._run)
            self._text, self._run = self._text + self._run, 0

    def _bound(self, chars: int) -> None:
        if chars > self._limits.answer_max:
            raise self.error("malformed", f"the answer is longer than answer_max ({self._limits.answer_max} characters)")

    def counted(self, count: Callable[[], Usage]) -> None:
        """What gives the tokens as the vendor counted them so far; `estimated`: of the output not all is counted yet. It is asked
        when the answer ends: some vendors count with every event."""
        self._tokens = count

    def failed(self, error: object) -> NoReturn:
        """The answer carries an error object in place of more: raises what it is."""
        raise self._with_usage(from_event(self._provider, error, self._secret))

    def finish(self) -> Finished:
        """The end of the stream was reached in good order (the server's own end mark, or its reason for stopping).

        Raises `ProviderError`: `content_filter` and `refusal` when the model stopped for that, `empty` when it said nothing and
        called nothing (reasoning alone is nothing, unless it was cut by the output limit), `malformed` for a call without a name.
        """
        if self.stop == "content_filter":
            raise self.error("content_filter", "the vendor's content filter stopped the answer")
        if self.stop == "refusal" or self._refusal:
            raise self.error("refusal", f"the model refuses to answer: {''.join(self._refusal) or 'it gave no reason'}")
        self._end_run()
        cut = self.stop == "length"
        calls = self._calls(cut=cut)
        if not calls and not self._text and not (cut and self._chars):
            raise self.error("empty", f"the answer is empty (it ended as {self.stop or 'nothing at all'})")
        # Some servers say "stop" although they call tools, and some that they call tools although they do not.
        stop = "length" if cut else "tool_calls" if calls else "stop"
        return Finished(stop, self.usage(), calls, self.model, self._opaque(calls), self.cost)

    def _calls(self, *, cut: bool) -> tuple[ToolCall, ...]:
        calls: list[ToolCall] = []
        used: set[str] = set()
        for position, slot in enumerate(list(self._slots)):
            text = "".join(slot.arguments)
            if cut and not _is_object(text):
                self._slots.remove(slot)
                continue  # the output limit fell inside it: it is not complete
            if not slot.name:
                raise self.error("malformed", f"tool call {position} of the answer has no name")
            call_id = slot.id or f"{self.id or 'call'}-{position}"
            if call_id in used:
                call_id = f"{call_id}-{position}"
            used.add(call_id)
            calls.append(ToolCall(call_id, slot.name, text or "{}", slot.opaque))
        return tuple(calls)

    def _opaque(self, calls: tuple[ToolCall, ...]) -> Opaque | None:
        if not calls or not self._keeps:
            return None
        items: list[str] = []
        for kept in self._kept:
            if isinstance(kept, str):
                items.append(kept)
            elif isinstance(kept, int):
                items.append(f"text {kept}")
            elif kept in self._slots:
                items.append(f"call {self._slots.index(kept)}")
        return Opaque(self._provider, self._request.model, tuple(items))

    def usage(self) -> Usage:
        """As the server counted; what it has not counted is estimated from the request and from what has arrived."""
        known = self._tokens() if self._tokens is not None else None
        chars = self._chars + sum(map(len, self._pieces))
        uncounted = known is not None and chars and not known.input_tokens and not known.output_tokens  # some say 0 for it
        if known is None or uncounted:
            return estimate_usage(self._request, chars)
        if known.estimated:
            return msgspec.structs.replace(known, output_tokens=max(known.output_tokens, tokens_of(chars)))
        return known

    def error(self, error: ErrorClass, detail: str) -> ProviderError:
        """An error of this answer, with the usage that it had cost so far."""
        return self._with_usage(ProviderError(error, safe_text(f"providers.{self._provider}: {detail}", self._secret)))

    def _with_usage(self, error: ProviderError) -> ProviderError:
        error.usage, error.cost = self.usage(), self.cost
        return error


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False
