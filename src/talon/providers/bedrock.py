"""Amazon Bedrock's ConverseStream: requests. Source: Amazon Bedrock's API reference, "ConverseStream", and its guide to caching."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from yarl import URL

from talon.providers.aws import signed
from talon.providers.bedrock_reader import ConverseReader
from talon.providers.claude import Takes, takes
from talon.providers.content import Kept, alternating, base64_of, call_id, encode, given, laid_out, valid_arguments
from talon.providers.dialect import AddressByModel
from talon.providers.eventstream import EventStream
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatMessage, ChatRequest, Image, Part, ProviderError, Text, ToolCall, ToolDef

_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
#: Models that cache what stands before a mark; others refuse the mark.
_CACHES = re.compile(r"claude-(?:3-7|3-5-haiku|[a-z]+-\d)|\.nova-")
_POINT = {"cachePoint": {"type": "default"}}
#: Output tokens where a budget of thinking needs a bound and nobody gave one.
_MAX_TOKENS = 8192
_NOTHING: dict[str, Any] = {"text": "(nothing)"}


class Bedrock(AddressByModel):
    """`base_url` names the region (`https://bedrock-runtime.eu-central-1.amazonaws.com`), or `region` does.

    A key with a colon is AWS credentials, with which calls are signed; one without is a Bedrock API key. Thinking, `top_k` and an
    effort reach Claude, which alone has words for them here. `tool_choice: none` offers no tools. Images by bytes only.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"user", "seed", "parallel_tool_calls"})
    reader = ConverseReader

    def __init__(self, base_url: str, *, region: str = "") -> None:
        super().__init__(base_url.rstrip("/"), lambda model: f"/model/{quote(model, safe='')}/converse-stream")
        found = _REGION.search(base_url)
        self._region = region or (found[1] if found else "")

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """A signature, or the key as a bearer."""
        headers = {"Accept": "application/vnd.amazon.eventstream", "Content-Type": "application/json"}
        if ":" in key:
            return signed(key, "bedrock", self._region, str(url), headers, body)
        return headers | {"Authorization": f"Bearer {key}"} if key else headers

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`. Raises `ProviderError("bad_request")` for an image by its address or of a type that it has no word
        for."""
        limit, taken = request.max_output_tokens, _takes(request)
        system: list[dict[str, Any]] = [{"text": m.content} for m in request.messages if m.role == "system" and m.content]
        messages = alternating(request.messages, _part, _result, _answer, _NOTHING)
        if request.prompt_cache and _CACHES.search(request.model):
            _mark(system, messages)
        inference = given(
            maxTokens=limit or (_MAX_TOKENS if "budget_tokens" in (taken.thinking or ()) else None),
            temperature=taken.temperature,
            topP=taken.top_p,
            stopSequences=request.stop,
        )
        output = given(effort=taken.effort)
        if request.answer_schema is not None:
            schema = {"name": request.answer_schema.name, "schema": encode(request.answer_schema.schema).decode()}
            output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        body: dict[str, Any] = {"messages": messages}
        parts = {
            "system": system,
            "inferenceConfig": inference,
            "toolConfig": _tools(request, forced=taken.forced),
            "additionalModelRequestFields": given(thinking=taken.thinking, top_k=taken.top_k),
            "outputConfig": output,
        }
        return encode(body | {name: part for name, part in parts.items() if part})

    def frames(self, limits: CallLimits) -> EventStream:
        """AWS's binary frames."""
        return EventStream(limits.line_max)


def _takes(request: ChatRequest) -> Takes:
    if "claude" in request.model:
        return takes(request, request.max_output_tokens or _MAX_TOKENS)
    return Takes(None, "", request.temperature, request.top_p, None, forced=True)


def _tools(request: ChatRequest, *, forced: bool) -> dict[str, Any]:
    """The tools that are offered, and those of earlier calls: the vendor wants every tool that a conversation names."""
    offered = () if request.tool_choice == "none" else request.tools
    named = dict.fromkeys(call.name for message in request.messages for call in message.tool_calls)
    gone = [ToolDef(name, "No longer offered.", {"type": "object"}) for name in named if name not in {t.name for t in offered}]
    tools = [
        {"toolSpec": {"name": tool.name, **given(description=tool.description), "inputSchema": {"json": tool.parameters}}}
        for tool in (*offered, *gone)
    ]
    if not tools:
        return {}
    config: dict[str, Any] = {"tools": tools}
    match request.tool_choice:
        case "" | "none":
            pass
        case choice if choice == "auto" or not forced:
            config["toolChoice"] = {"auto": {}}
        case "required":
            config["toolChoice"] = {"any": {}}
        case name:
            config["toolChoice"] = {"tool": {"name": name}}
    return config


def _result(message: ChatMessage, parts: list[Any]) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": call_id(message.tool_call_id), "content": parts or [_NOTHING]}}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text} if part.text.strip() else _NOTHING
    return {"image": _image(part)}


def _image(image: Image) -> dict[str, Any]:
    if image.url:
        raise ProviderError("bad_request", "Bedrock takes no image by its address: give the image itself")
    kind = image.mime.removeprefix("image/")
    if kind not in ("png", "jpeg", "gif", "webp"):
        raise ProviderError("bad_request", f"Bedrock takes images of type png, jpeg, gif and webp, not {image.mime!r}"[:500])
    return {"format": kind, "source": {"bytes": base64_of(image)}}


def _answer(message: ChatMessage) -> Iterator[Any]:
    for item in laid_out(message):
        match item:
            case str():
                if item.strip():  # a blank text is refused
                    yield {"text": item}
            case ToolCall():
                arguments = msgspec.Raw(valid_arguments(item))
                yield {"toolUse": {"toolUseId": call_id(item.id), "name": item.name, "input": arguments}}
            case Kept():
                yield item.json


def _mark(system: list[dict[str, Any]], messages: list[dict[str, Any]]) -> None:
    """Ask for a cache of all up to the system prompt, and of all up to the newest message."""
    if system:
        system.append(_POINT)
    if messages:
        messages[-1]["content"].append(_POINT)
