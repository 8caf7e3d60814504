"""Amazon Bedrock's ConverseStream: requests. Source: Amazon Bedrock's API reference, "ConverseStream", and its guide to caching."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from yarl import URL

from talon.providers.answer import Answer
from talon.providers.aws import signed
from talon.providers.bedrock_reader import ConverseReader
from talon.providers.claude import takes_forced_tools, takes_sampling, thinking_of
from talon.providers.content import Kept, call_id, encode, given, laid_out, parts_of, runs, valid_arguments
from talon.providers.eventstream import EventStream
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatMessage, ChatRequest, Image, Part, ProviderError, Text, ToolCall, ToolDef

_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
#: Models that cache what stands before a mark; others refuse the mark.
_CACHES = re.compile(r"claude-(?:3-7|3-5-haiku|[a-z]+-\d)|\.nova-")
_POINT = {"cachePoint": {"type": "default"}}
#: Output tokens where a budget of thinking needs a bound and nobody gave one.
_MAX_TOKENS = 8192
_NOTHING = {"text": "(nothing)"}


class Bedrock:
    """`base_url` names the region (`https://bedrock-runtime.eu-central-1.amazonaws.com`), or `region` does.

    A key with a colon is AWS credentials, with which calls are signed; one without is a Bedrock API key. Thinking, `top_k` and an
    effort reach Claude, which alone has words for them here. `tool_choice: none` offers no tools. Images by bytes only.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"user", "seed", "parallel_tool_calls"})

    def __init__(self, base_url: str, *, region: str = "") -> None:
        self._base = base_url.rstrip("/")
        found = _REGION.search(self._base)
        self._region = region or (found[1] if found else "")

    def __repr__(self) -> str:
        return f"Bedrock({self._base!r})"

    def url(self, request: ChatRequest) -> URL:
        """The model (a name, a profile, an ARN) is part of the address."""
        return URL(f"{self._base}/model/{quote(request.model, safe='')}/converse-stream", encoded=True)

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """A signature, or the key as a bearer."""
        headers = {"Accept": "application/vnd.amazon.eventstream", "Content-Type": "application/json"}
        if ":" in key:
            return signed(key, "bedrock", self._region, str(url), headers, body)
        return headers | {"Authorization": f"Bearer {key}"} if key else headers

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`. Raises `ProviderError("bad_request")` for an image by its address or of a type that it has no word
        for."""
        claude = "claude" in request.model
        limit = request.max_output_tokens
        thinking, effort = thinking_of(request, limit or _MAX_TOKENS) if claude else (None, "")
        thinks = thinking is not None and thinking["type"] != "disabled"
        system: list[dict[str, Any]] = [{"text": m.content} for m in request.messages if m.role == "system" and m.content]
        messages = [_message(run) for run in runs([m for m in request.messages if m.role != "system"], "user", "tool")]
        if messages and messages[0]["role"] == "assistant":  # the vendor wants the user to begin
            messages.insert(0, {"role": "user", "content": [_NOTHING]})
        if request.prompt_cache and _CACHES.search(request.model):
            _mark(system, messages)
        samples = not claude or takes_sampling(request.model)
        inference = given(
            maxTokens=limit or (_MAX_TOKENS if thinks and "budget_tokens" in (thinking or {}) else None),
            temperature=request.temperature if samples and not thinks else None,
            topP=request.top_p if samples and (not thinks or (request.top_p or 0) >= 0.95) else None,
            stopSequences=request.stop,
        )
        output = given(effort=effort)
        if request.answer_schema is not None:
            schema = {"name": request.answer_schema.name, "schema": encode(request.answer_schema.schema).decode()}
            output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        own = given(thinking=thinking, top_k=request.top_k if claude and samples and not thinks else None)
        body: dict[str, Any] = {"messages": messages}
        parts = {
            "system": system,
            "inferenceConfig": inference,
            "toolConfig": _tools(request, forced=not thinks and takes_forced_tools(request.model)),
            "additionalModelRequestFields": own,
            "outputConfig": output,
        }
        return encode(body | {name: part for name, part in parts.items() if part})

    def frames(self, limits: CallLimits) -> EventStream:
        """AWS's binary frames."""
        return EventStream(limits.line_max)

    def reader(self, answer: Answer) -> ConverseReader:
        """See `Dialect.reader`."""
        return ConverseReader(answer)


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


def _message(run: Sequence[ChatMessage]) -> dict[str, Any]:
    """A run of the user's side (results of tools first), or one answer."""
    if run[0].role == "assistant":
        return {"role": "assistant", "content": list(_answer(run[0])) or [_NOTHING]}
    ordered = sorted(run, key=lambda message: message.role != "tool") if run[0].role == "tool" else run
    content: list[dict[str, Any]] = []
    for message in ordered:
        parts = [_part(part) for part in parts_of(message)]
        if message.role == "tool":
            content.append({"toolResult": {"toolUseId": call_id(message.tool_call_id), "content": parts or [_NOTHING]}})
        else:
            content += parts
    return {"role": "user", "content": content or [_NOTHING]}


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
    return {"format": kind, "source": {"bytes": base64.b64encode(image.data).decode()}}


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
