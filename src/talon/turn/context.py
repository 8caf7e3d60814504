"""The context of a model call: a bounded tail of the session (`talon.turn.history`), then the turn's own part (K11).

Pure, but for the small cache of tails.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from talon.domain import entries as e
from talon.domain.content import Content, Part, TextPart
from talon.providers.protocol import ChatMessage, Image, Text, ToolCall
from talon.turn.machine.state import AssistantItem, Call, State, UserItem

UNCERTAIN = (
    "It is not known whether this call took effect: the process stopped before its receipt. "
    "Do not assume either; it was not repeated, and a person has been asked."
)


class ContextLimits(msgspec.Struct, frozen=True):
    """Bounds of what one model call sees. `entries_max` and `chars_max` bound the tail of earlier turns; a tool result
    that is not of the latest step is cut to `tool_result_chars_max`. Of all images the newest are sent, at most `images_max` and
    `images_bytes_max` together."""

    entries_max: int = 80
    chars_max: int = 16_000
    tool_result_chars_max: int = 2_000
    images_max: int = 8
    images_bytes_max: int = 12 * 1024 * 1024


_LEFT_OUT = "\n[… {} characters left out …]\n"


def shorten(text: str, chars_max: int) -> str:
    """`text`, its middle cut out and marked if it is longer than `chars_max`; never longer than that."""
    if len(text) <= chars_max:
        return text
    half = (chars_max - len(_LEFT_OUT.format(len(text)))) // 2
    if half <= 0:
        return text[: max(0, chars_max)]
    return f"{text[:half]}{_LEFT_OUT.format(len(text) - 2 * half)}{text[-half:]}"


def transcript(state: State, limits: ContextLimits) -> tuple[ChatMessage, ...]:
    """The turn's own messages. Every call in them has its result; results of earlier steps are cut."""
    out: list[ChatMessage] = []
    for item in state.transcript:
        match item:
            case UserItem(content=content):
                out.append(user_message(content))
            case AssistantItem(content=content, calls=numbers, opaque=opaque):
                calls = [state.call(number) for number in numbers]
                asked = tuple(map(_tool_call, calls))
                out.append(ChatMessage(role="assistant", content=content, tool_calls=asked, opaque=opaque))
                out.extend(_result(call, state.iteration, limits) for call in calls)
    return tuple(out)


def user_message(content: Content) -> ChatMessage:
    """A message as a model gets it; its images are still to be read (`talon.turn.pictures`)."""
    if isinstance(content, str):
        return ChatMessage(role="user", content=content)
    return ChatMessage(role="user", parts=tuple(map(_part, content)))


def _part(part: Part) -> Text | Image:
    return Text(part.text) if isinstance(part, TextPart) else Image(part.media_type, blob=part.blob, size=part.size)


def _tool_call(call: Call) -> ToolCall:
    return ToolCall(call.call_id, call.name, call.arguments, call.opaque)


def _result(call: Call, iteration: int, limits: ContextLimits) -> ChatMessage:
    text = call.result if call.status == "closed" else UNCERTAIN
    if call.iteration < iteration:
        text = shorten(text, limits.tool_result_chars_max)
    return ChatMessage(role="tool", content=text, tool_call_id=call.call_id)


class ContextCache:
    """The context entries of the sessions that ran here last, so that turn k + 1 reads only what is new.

    Always right, never needed: entries do not change, and whoever holds the fence knows where the journal ends. Bounded by
    `sessions_max`, and tails of more than `tail_bytes_max` are not kept; idle sessions cost nothing beyond that.
    """

    def __init__(self, sessions_max: int = 256, tail_bytes_max: int = 262_144) -> None:
        self._tails: OrderedDict[int, tuple[int, tuple[e.Entry, ...]]] = OrderedDict()
        self._max, self._bytes_max = sessions_max, tail_bytes_max

    def get(self, sid: int) -> tuple[int, tuple[e.Entry, ...]] | None:
        """(last seq that is known, context entries up to it) or None."""
        found = self._tails.pop(sid, None)
        if found is not None:
            self._tails[sid] = found
        return found

    def put(self, sid: int, last_seq: int, entries: Sequence[e.Entry], entries_max: int) -> None:
        """Remember the last `entries_max` of `entries`, which are all context entries up to `last_seq`."""
        self._tails.pop(sid, None)
        tail = tuple(entries[-entries_max:])
        if sum(len(entry.payload) for entry in tail) > self._bytes_max:
            return
        self._tails[sid] = (last_seq, tail)
        while len(self._tails) > self._max:
            self._tails.popitem(last=False)
