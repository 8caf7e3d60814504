"""The context of a model call: a bounded tail of the session, then the turn's own part (K11). Pure, but for the small cache.

Tool calls and their results are never parted: the tail is cut between turns only, a call without a result gets one that says
what is known. Turns that were rolled back are left out, and so are messages whose turn has not run yet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from talon.domain import entries as e
from talon.providers.protocol import ChatMessage, ToolCall
from talon.turn.machine.state import AssistantItem, Call, State, UserItem

UNCERTAIN = (
    "It is not known whether this call took effect: the process stopped before its receipt. "
    "Do not assume either; it was not repeated, and a person has been asked."
)
NO_RESULT = "This call was not completed: its turn ended first."


class ContextLimits(msgspec.Struct, frozen=True):
    """Bounds of what one model call sees. `entries_max` and `chars_max` bound the tail of earlier turns; a tool result
    that is not of the latest step is cut to `tool_result_chars_max`."""

    entries_max: int = 80
    chars_max: int = 16_000
    tool_result_chars_max: int = 2_000


def history(entries: Sequence[e.Entry], limits: ContextLimits) -> tuple[ChatMessage, ...]:
    """Messages of earlier turns from their context entries (ascending), the latest whole turns that fit into the limits."""
    groups = _groups(entries)
    if len(entries) >= limits.entries_max and len(groups) > 1 and groups[0][0].type != "message.received":
        groups = groups[1:]  # the window cut into it
    chosen: list[tuple[ChatMessage, ...]] = []
    room = limits.chars_max
    for group in reversed(groups):
        messages = _messages(group, limits)
        room -= sum(_size(message) for message in messages)
        if room < 0 and chosen:
            break
        chosen.append(messages)
    return tuple(message for messages in reversed(chosen) for message in messages)


def _size(message: ChatMessage) -> int:
    return len(message.content) + sum(len(call.arguments) + len(call.name) for call in message.tool_calls)


def _groups(entries: Iterable[e.Entry]) -> list[list[e.Entry]]:
    """Entries by turn, in the order in which the turns ran; without queued and rolled-back ones."""
    by_turn: OrderedDict[str, list[e.Entry]] = OrderedDict()
    waiting: dict[str, list[e.Entry]] = {}
    for entry in entries:
        if not entry.turn_id:  # imported history: each message by itself
            by_turn[f"imported {entry.seq}"] = [entry]
        elif entry.turn_id in by_turn:
            by_turn[entry.turn_id].append(entry)
        elif entry.type == "message.received":
            waiting.setdefault(entry.turn_id, []).append(entry)
        else:
            by_turn[entry.turn_id] = [*waiting.pop(entry.turn_id, []), entry]
    return [group for group in by_turn.values() if not _rolled_back(group)]


def _rolled_back(group: Sequence[e.Entry]) -> bool:
    return any(isinstance(p := entry.decode(), e.TurnCancelled) and p.rollback for entry in group if entry.type == "turn.cancelled")


def _messages(group: Sequence[e.Entry], limits: ContextLimits) -> tuple[ChatMessage, ...]:
    """One earlier turn as messages."""
    out: list[ChatMessage] = []
    held: list[ChatMessage] = []  # messages that came between a call and its result: shown after the results
    step: list[e.ToolRequested] = []
    text = ""
    results = _results(group)

    def close() -> None:
        nonlocal step
        if step:
            out.extend(_exchange(text, step, results, limits.tool_result_chars_max))
            step = []
        out.extend(held)
        held.clear()

    for entry in group:
        match entry.decode():
            case e.MessageReceived(content=content, role=role):
                message = ChatMessage(role="assistant" if role == "assistant" else "user", content=content)
                (held if step else out).append(message)
            case e.ModelFinished(content=content, calls=calls) if calls:
                close()
                text = content
            case e.ToolRequested() as requested:
                step.append(requested)
            case e.MessageCompleted(content=content):
                close()
                out.append(ChatMessage(role="assistant", content=content))
            case _:
                pass
    close()
    return tuple(out)


def _results(group: Sequence[e.Entry]) -> dict[int, str]:
    """What is known of each call, the latest word of it."""
    results: dict[int, str] = {}
    for entry in group:
        match entry.decode():
            case (
                e.ToolFinished(call=call, output=text)
                | e.ToolFailed(call=call, message=text)
                | e.ToolDenied(call=call, message=text)
            ):
                results[call] = text
            case e.ToolUncertain(call=call):
                results[call] = UNCERTAIN
            case e.ApprovalResolved(call=call, outcome=outcome, result=result) if (
                results.get(call) == UNCERTAIN and outcome != "retry"
            ):
                results[call] = f"A person found out: {outcome}. {result}".strip()
            case _:
                pass
    return results


def _exchange(text: str, step: Sequence[e.ToolRequested], results: dict[int, str], cut: int) -> list[ChatMessage]:
    calls = tuple(ToolCall(requested.call_id, requested.name, requested.arguments) for requested in step)
    answers = [ChatMessage(role="tool", content=shorten(results.get(r.call, NO_RESULT), cut), tool_call_id=r.call_id) for r in step]
    return [ChatMessage(role="assistant", content=text, tool_calls=calls), *answers]


def shorten(text: str, chars_max: int) -> str:
    """`text`, its middle cut out and marked if it is longer than `chars_max`."""
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def transcript(state: State, limits: ContextLimits) -> tuple[ChatMessage, ...]:
    """The turn's own messages. Every call in them has its result; results of earlier steps are cut."""
    out: list[ChatMessage] = []
    for item in state.transcript:
        match item:
            case UserItem(content=content):
                out.append(ChatMessage(role="user", content=content))
            case AssistantItem(content=content, calls=numbers):
                calls = [state.call(number) for number in numbers]
                out.append(ChatMessage(role="assistant", content=content, tool_calls=tuple(map(_tool_call, calls))))
                out.extend(_result(call, state.iteration, limits) for call in calls)
    return tuple(out)


def _tool_call(call: Call) -> ToolCall:
    return ToolCall(call.call_id, call.name, call.arguments)


def _result(call: Call, iteration: int, limits: ContextLimits) -> ChatMessage:
    text = call.result if call.status == "closed" else UNCERTAIN
    if call.iteration < iteration:
        text = shorten(text, limits.tool_result_chars_max)
    return ChatMessage(role="tool", content=text, tool_call_id=call.call_id)


class ContextCache:
    """The context entries of the sessions that ran here last, so that turn k + 1 reads only what is new.

    Always right, never needed: entries do not change, and whoever holds the fence knows where the journal ends. Bounded by
    `sessions_max`; idle sessions cost nothing beyond that.
    """

    def __init__(self, sessions_max: int = 256) -> None:
        self._tails: OrderedDict[int, tuple[int, tuple[e.Entry, ...]]] = OrderedDict()
        self._max = sessions_max

    def get(self, sid: int) -> tuple[int, tuple[e.Entry, ...]] | None:
        """(last seq that is known, context entries up to it) or None."""
        found = self._tails.pop(sid, None)
        if found is not None:
            self._tails[sid] = found
        return found

    def put(self, sid: int, last_seq: int, entries: Sequence[e.Entry], entries_max: int) -> None:
        """Remember the last `entries_max` of `entries`, which are all context entries up to `last_seq`."""
        self._tails.pop(sid, None)
        self._tails[sid] = (last_seq, tuple(entries[-entries_max:]))
        while len(self._tails) > self._max:
            self._tails.popitem(last=False)
