"""Pieces of a request that more than one vendor's dialect writes. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from talon.providers.protocol import ChatMessage, Image, Part, Text, ToolCall

CALL_ID_MAX = 40  # OpenAI's bound, the lowest of all
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_loads = msgspec.json.decode
encode = msgspec.json.Encoder().encode


def call_id(text: str) -> str:
    """A tool call's id as every vendor takes it: after a failover it may be another vendor's, with its own characters and length.

    The same text always gives the same id; ids of letters, digits, `_` and `-` up to 40 are left as they are.
    """
    clean = _NOT_IN_AN_ID.sub("_", text) or "call"
    if clean == text and len(text) <= CALL_ID_MAX:
        return text
    return f"{clean[: CALL_ID_MAX - 9]}_{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def valid_arguments(call: ToolCall) -> bytes:
    """The call's arguments as a JSON object's text, whatever the model wrote.

    Servers that render earlier calls into a template refuse the whole conversation for ever over one broken text, so that text
    goes back inside an object.
    """
    try:
        if isinstance(_loads(call.arguments), dict):
            return call.arguments.encode()
    except (msgspec.DecodeError, UnicodeError):
        pass
    return encode({"invalid_json": call.arguments})


def parts_of(message: ChatMessage) -> tuple[Part, ...]:
    """The message's parts; of one that is only text, that text (none if it is empty)."""
    return message.parts or ((Text(message.content),) if message.content else ())


def data_url(image: Image) -> str:
    """The image as one URL."""
    return image.url or f"data:{image.mime};base64,{base64_of(image)}"


class Kept(msgspec.Struct, frozen=True):
    """A piece of the vendor's own, to be sent back as it came."""

    json: msgspec.Raw


def laid_out(message: ChatMessage) -> Iterator[str | ToolCall | Kept]:
    """An assistant's message in the order in which the model gave it: text (never empty), tool calls, and what goes back unread.

    Without `opaque`: the text, then the calls. Text and calls that its places do not name come at the end.
    """
    text, calls = message.content, list(message.tool_calls)
    left: list[ToolCall | None] = [*calls]
    for item in message.opaque.items if message.opaque is not None else ():
        kind, _, number = item.partition(" ")
        if kind == "text" and number.isdecimal():
            piece, text = text[: int(number)], text[int(number) :]
            if piece:
                yield piece
        elif kind == "call" and number.isdecimal():
            if int(number) < len(calls):
                left[int(number)] = None
                yield calls[int(number)]
        else:
            yield Kept(msgspec.Raw(item.encode()))
    if text:
        yield text
    yield from (call for call in left if call is not None)


def base64_of(image: Image) -> str:
    """The image's bytes as text."""
    return base64.b64encode(image.data).decode()


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value: not None, not empty text, not an empty tuple."""
    return {name: value for name, value in fields.items() if value is not None and value != "" and value != ()}


def runs(messages: Sequence[ChatMessage], *roles: str) -> Iterator[tuple[ChatMessage, ...]]:
    """The messages in order, those with one of `roles` that stand together as one run, every other by itself."""
    run: list[ChatMessage] = []
    for message in messages:
        if message.role in roles:
            run.append(message)
            continue
        if run:
            yield tuple(run)
            run = []
        yield (message,)
    if run:
        yield tuple(run)


def alternating(
    messages: Sequence[ChatMessage],
    part: Callable[[Part], Any],
    result: Callable[[ChatMessage, list[Any]], Any],
    answer: Callable[[ChatMessage], Iterable[Any]],
    nothing: dict[str, Any],
) -> list[dict[str, Any]]:
    """All but the system's messages, as vendors want them who hear user and assistant in turn, the user first: what stands between
    two answers is one message, results of tools (`result` of a message and its parts) before all else. `nothing` fills an empty
    one.
    """
    found: list[dict[str, Any]] = []
    for run in runs([message for message in messages if message.role != "system"], "user", "tool"):
        if run[0].role == "assistant":
            if not found:
                found.append({"role": "user", "content": [nothing.copy()]})
            found.append({"role": "assistant", "content": [*answer(run[0])] or [nothing.copy()]})
            continue
        content: list[Any] = []
        for message in sorted(run, key=lambda message: message.role != "tool") if run[0].role == "tool" else run:
            parts = [part(one) for one in parts_of(message)]
            content += [result(message, parts)] if message.role == "tool" else parts
        found.append({"role": "user", "content": content or [nothing.copy()]})
    return found
