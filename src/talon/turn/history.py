"""The session's tail in a context: earlier turns as messages, bounded, pair-safe (K11). Pure.

Tool calls and their results are never parted: the tail is cut between turns or between steps of a turn, and a call without a
result gets one that says what is known. Turns that were rolled back are left out, and so are messages whose turn has not run yet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from talon.domain import entries as e
from talon.domain.content import text_of
from talon.providers.protocol import ChatMessage, Image, Text, ToolCall
from talon.turn.context import UNCERTAIN, ContextLimits, shorten, user_message

NO_RESULT = "This call was not completed: its turn ended first."

#: One message, or a model's step: its calls and their results. Never parted.
Unit = tuple[ChatMessage, ...]


def history(entries: Sequence[e.Entry], limits: ContextLimits) -> tuple[ChatMessage, ...]:
    """Messages of earlier turns from their context entries (ascending): the latest whole turns that fit into `chars_max`.

    Of the newest turn, if it alone is too long or begins before the window, what fits of its end (and its question).
    """
    chosen: list[Unit] = []
    room = limits.chars_max
    for turn in reversed(_turns(entries)):
        units = _units(turn, limits)
        size = sum(map(_size, units))
        whole = turn[0].type == "message.received" or not turn[0].turn_id or not units
        if whole and size <= room:
            chosen[:0] = units
            room -= size
            continue
        if not chosen:
            chosen = units if size <= room else _cut(units, room)
        break
    return tuple(message for unit in chosen for message in unit)


def _size(unit: Unit) -> int:
    return sum(_chars(message) + sum(len(call.arguments) + len(call.name) for call in message.tool_calls) for message in unit)


def _chars(message: ChatMessage) -> int:
    """Characters of its text; images have bounds of their own."""
    return len(message.content) + sum(len(part.text) for part in message.parts if isinstance(part, Text))


def _cut(units: Sequence[Unit], room: int) -> list[Unit]:
    """The question, shortened, and as much of the end as fits; its last word is shortened rather than left out."""
    head: list[Unit] = []
    if len(units) > 1 and units[0][0].role == "user":
        head = [_shortened(units[0], room // 4)]
        units, room = units[1:], room - _size(head[0])
    tail: list[Unit] = []
    for unit in reversed(units):
        if not tail and len(unit) == 1:
            unit = _shortened(unit, room)
        if _size(unit) > room:
            break
        tail.insert(0, unit)
        room -= _size(unit)
    return head + tail


def _shortened(unit: Unit, chars_max: int) -> Unit:
    message = unit[0]
    if message.parts and _chars(message) > chars_max:
        text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
        images = tuple(part for part in message.parts if isinstance(part, Image))
        return (msgspec.structs.replace(message, parts=(*images, Text(shorten(text, chars_max)))),)
    return (msgspec.structs.replace(message, content=shorten(message.content, chars_max)),)


def _turns(entries: Sequence[e.Entry]) -> list[list[e.Entry]]:
    """Entries by turn, in the order in which the turns ran; without queued and rolled-back ones. A steering message stands where
    it joined, or before the turn that it became."""
    became = {
        p.message_seq: p for entry in entries if entry.type == "input.steered" and isinstance(p := entry.decode(), e.InputSteered)
    }
    turns: OrderedDict[str, list[e.Entry]] = OrderedDict()
    waiting: dict[str, list[e.Entry]] = {}
    joining: dict[int, e.Entry] = {}
    for entry in entries:
        if not entry.turn_id:  # imported history: each message by itself
            turns[f"imported {entry.seq}"] = [entry]
            continue
        if entry.type == "message.received":
            fate = became.get(entry.seq)
            if fate is not None and fate.state == "joined":
                joining[entry.seq] = entry
            else:
                turn_id = fate.turn if fate is not None and fate.state == "requeued" else entry.turn_id
                (turns.get(turn_id) or waiting.setdefault(turn_id, [])).append(entry)
            continue
        if entry.type == "input.steered":
            p = entry.decode()
            joined = joining.pop(p.message_seq, None) if isinstance(p, e.InputSteered) and p.state == "joined" else None
            if joined is None:
                continue
            entry = joined
        if entry.turn_id not in turns:
            turns[entry.turn_id] = waiting.pop(entry.turn_id, [])
        turns[entry.turn_id].append(entry)
    return [turn for turn in turns.values() if not _rolled_back(turn)]


def _rolled_back(turn: Sequence[e.Entry]) -> bool:
    return any(isinstance(p := entry.decode(), e.TurnCancelled) and p.rollback for entry in turn if entry.type == "turn.cancelled")


def _units(turn: Sequence[e.Entry], limits: ContextLimits) -> list[Unit]:
    """One earlier turn as messages."""
    out: list[Unit] = []
    step: list[e.ToolRequested] = []
    held: list[Unit] = []  # what was said between a call and its result is shown after the result
    text = ""
    results = _results(turn)

    def close() -> None:
        if step:
            out.append(_exchange(text, step, results, limits.tool_result_chars_max))
            step.clear()
        out.extend(held)
        held.clear()

    for entry in turn:
        match entry.decode():
            case e.MessageReceived(content=content, role=role) if content:
                message = ChatMessage(role="assistant", content=text_of(content)) if role == "assistant" else user_message(content)
                (held if step else out).append((message,))
            case e.ModelFinished(content=content, calls=calls) if calls:
                close()
                text = content
            case e.ToolRequested() as requested:
                step.append(requested)
            case e.MessageCompleted(content=content):
                close()
                if content:
                    out.append((ChatMessage(role="assistant", content=content),))
            case _:
                pass
    close()
    return out


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


def _exchange(text: str, step: Sequence[e.ToolRequested], results: dict[int, str], cut: int) -> Unit:
    calls = tuple(ToolCall(requested.call_id, requested.name, requested.arguments) for requested in step)
    answers = [ChatMessage(role="tool", content=shorten(results.get(r.call, NO_RESULT), cut), tool_call_id=r.call_id) for r in step]
    return (ChatMessage(role="assistant", content=text, tool_calls=calls), *answers)
