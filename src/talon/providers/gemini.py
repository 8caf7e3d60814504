"""Google's Gemini API: requests. Source: Google's reference of `models.streamGenerateContent`, its guides to thinking, thought
signatures and function calling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from yarl import URL

from talon.providers.content import Kept, base64_of, call_id, encode, given, laid_out, parts_of, runs, valid_arguments
from talon.providers.dialect import AddressByModel
from talon.providers.gemini_reader import GenerateReader
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatMessage, ChatRequest, Image, Part, Text, ToolCall
from talon.providers.sse import SseParser

#: Tokens of thinking by level, for models before Gemini 3; those from it on take a level.
_BUDGETS = {"off": 0, "low": 2048, "medium": 8192, "high": 24_576}
#: What a model that cannot do without thinking thinks at least.
_BUDGET_MIN = 128
_GENERATION = re.compile(r"gemini-(\d+)")
_VERSION = re.compile(r"/v\d[\w]*$")
#: The vendor's own word for a call whose thoughts it never had: another model made it.
_UNSIGNED = "skip_thought_signature_validator"
#: In place of a message without content, which the vendor does not take.
_NOTHING: dict[str, Any] = {"text": "(nothing)"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


class Gemini(AddressByModel):
    """`base_url` is the API's address with or without its version (`https://generativelanguage.googleapis.com/v1beta`).

    Thoughts are asked for together with a level of thinking. Models from Gemini 3 on cannot be kept from thinking: `off` asks for
    the least. The vendor caches prompts by itself, wants no name of a user, and calls tools in parallel as it finds right.
    """

    leaves_out: ClassVar[frozenset[str]] = frozenset({"user", "parallel_tool_calls", "prompt_cache"})
    reader = GenerateReader

    def __init__(self, base_url: str) -> None:
        base = base_url.rstrip("/")
        super().__init__(base if _VERSION.search(base) else base + "/v1beta", _address)

    def headers(self, key: str, url: URL, body: bytes) -> Mapping[str, str]:
        """The key in the vendor's own header."""
        return {"x-goog-api-key": key} if key else {}

    def body(self, request: ChatRequest) -> bytes:
        """See `Dialect.body`."""
        names = {call.id: call.name for message in request.messages for call in message.tool_calls}
        turns = runs([m for m in request.messages if m.role != "system"], "tool")
        contents = [content for run in turns for content in _contents(run, names, signs=_generation(request.model) >= 3)]
        if contents and contents[0]["role"] == "model":  # the vendor wants the user to begin
            contents.insert(0, {"role": "user", "parts": [_NOTHING]})
        body: dict[str, Any] = {"contents": contents}
        system = [{"text": m.content} for m in request.messages if m.role == "system" and m.content]
        if system:
            body["systemInstruction"] = {"parts": system}
        if request.tools:
            body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
            if request.tool_choice:
                body["toolConfig"] = {"functionCallingConfig": _calling(request.tool_choice)}
        config = given(
            temperature=request.temperature,
            topP=request.top_p,
            topK=request.top_k,
            maxOutputTokens=request.max_output_tokens,
            stopSequences=request.stop,
            seed=request.seed,
            thinkingConfig=_thinking(request),
        )
        if request.answer_schema is not None:
            config |= {"responseMimeType": "application/json", "responseJsonSchema": request.answer_schema.schema}
        if config:
            body["generationConfig"] = config
        return encode(body)

    def frames(self, limits: CallLimits) -> SseParser:
        """Server-sent events. A piece may be a whole call with its arguments."""
        return SseParser(limits.whole_max)


def _address(model: str) -> str:
    return f"/models/{quote(model.removeprefix('models/'), safe='')}:streamGenerateContent?alt=sse"


def _generation(model: str) -> int:
    """An unknown name (`gemini-flash-latest`) is of the newest generation."""
    found = _GENERATION.search(model)
    return int(found[1]) if found else 3


def _thinking(request: ChatRequest) -> dict[str, Any] | None:
    level, model = request.thinking, request.model
    if not level:
        return None
    if _generation(model) >= 3:
        if level != "off":
            return {"thinkingLevel": level.upper(), "includeThoughts": True}
        return {"thinkingLevel": "LOW" if "pro" in model else "MINIMAL"}
    budget = _BUDGETS[level] or (_BUDGET_MIN if "pro" in model else 0)
    return {"thinkingBudget": budget, "includeThoughts": True} if level != "off" else {"thinkingBudget": budget}


def _calling(choice: str) -> dict[str, Any]:
    mode = _MODES.get(choice)
    return {"mode": mode} if mode else {"mode": "ANY", "allowedFunctionNames": [choice]}


def _declaration(tool: Any) -> dict[str, Any]:
    return {"name": tool.name, **given(description=tool.description), "parametersJsonSchema": tool.parameters}


def _contents(run: Sequence[ChatMessage], names: Mapping[str, str], *, signs: bool) -> Iterator[dict[str, Any]]:
    """Results that stand together are one content, their images the next; every other message is one by itself."""
    match run[0].role:
        case "tool":
            yield {"role": "user", "parts": [_response(message, names) for message in run]}
            images = [_part(part) for message in run for part in message.parts if isinstance(part, Image)]
            if images:
                yield {"role": "user", "parts": images}
        case "assistant":
            yield {"role": "model", "parts": list(_answer(run[0], signs=signs)) or [_NOTHING]}
        case _:
            yield {"role": "user", "parts": [_part(part) for part in parts_of(run[0])] or [_NOTHING]}


def _response(message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
    text = "\n".join(part.text for part in parts_of(message) if isinstance(part, Text))
    name = names.get(message.tool_call_id, message.tool_call_id)
    return {"functionResponse": {"id": call_id(message.tool_call_id), "name": name, "response": {"output": text}}}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if part.url:
        return {"fileData": {**given(mimeType=part.mime), "fileUri": part.url}}
    return {"inlineData": {"mimeType": part.mime, "data": base64_of(part)}}


def _answer(message: ChatMessage, *, signs: bool) -> Iterator[Any]:
    foreign = signs and message.opaque is None
    for item in laid_out(message):
        match item:
            case str():
                yield {"text": item}
            case ToolCall():
                arguments = msgspec.Raw(valid_arguments(item))
                part: dict[str, Any] = {"functionCall": {"id": call_id(item.id), "name": item.name, "args": arguments}}
                signature = item.opaque or ("" if not foreign else encode(_UNSIGNED).decode())
                foreign = False  # only the first call of an answer is signed
                yield part | ({"thoughtSignature": msgspec.Raw(signature.encode())} if signature else {})
            case Kept():
                yield item.json
