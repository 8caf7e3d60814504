"""A fake of Google's Gemini API."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from support.vendors.base import Says, Sent, Vendor, pieces, sse
from support.vendors.openai_chat import SCHEMA, TOOL
from talon.domain.entries import Usage
from talon.providers.gemini import Gemini
from talon.providers.protocol import AnswerSchema

_STOPS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_ERRORS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    "server": (500, "INTERNAL", "An internal error has occurred."),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "authentication": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "context_overflow": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "content_filter": (400, "INVALID_ARGUMENT", "The request was blocked by the content filter"),
}


class GenerateFake:
    """Signs, if asked to, the first call of an answer, or the text where there is none. The last part, a call or nothing, comes
    with the reason for stopping."""

    content_type = "text/event-stream"
    stops = frozenset({"stop", "tool_calls", "length", "content_filter"})

    def stream(self, says: Says) -> list[bytes]:
        parts: list[dict[str, Any]] = [{"text": piece, "thought": True} for piece in pieces(says.reasoning, says.piece)]
        parts += [{"text": piece} for piece in pieces(says.text, says.piece)]
        parts += self._calls(says)
        if not says.calls:
            parts.append({"text": ""} | ({"thoughtSignature": "U2lnbmVkVGV4dA=="} if says.signed else {}))
        events = [sse(self._chunk([part], self._input(says.usage))) for part in parts[:-1]]
        last = parts[-1:]
        return [*events, sse(self._chunk(last, self._usage(says.usage), _STOPS[says.stop]))]

    def whole(self, says: Says) -> bytes | None:
        thoughts = [{"text": says.reasoning, "thought": True}] if says.reasoning else []
        parts = [*thoughts, {"text": says.text}, *self._calls(says)]
        return msgspec.json.encode(self._chunk(parts, self._usage(says.usage), _STOPS[says.stop]))

    def error(self, kind: str) -> tuple[int, bytes]:
        return _ERRORS[kind][0], msgspec.json.encode({"error": self._error(kind)})

    def error_event(self, kind: str) -> bytes | None:
        return sse({"error": self._error(kind)})

    def _error(self, kind: str) -> dict[str, Any]:
        status, word, message = _ERRORS[kind]
        return {"code": status, "message": message, "status": word}

    def _chunk(self, parts: list[dict[str, Any]], usage: dict[str, Any], finish: str = "") -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], **usage, "modelVersion": "gemini-3-flash", "responseId": "resp1"}

    def _calls(self, says: Says) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [
            {"functionCall": {"id": call.id, "name": call.name, "args": msgspec.Raw(call.arguments.encode())}}
            for call in says.calls
        ]
        if parts and says.signed:
            parts[0]["thoughtSignature"] = "U2lnbmVkQ2FsbA=="
        return parts

    def _input(self, usage: Usage | None) -> dict[str, Any]:
        if usage is None:
            return {}
        counts = {"promptTokenCount": usage.input_tokens, "totalTokenCount": usage.input_tokens}
        return {"usageMetadata": counts | {"cachedContentTokenCount": usage.cached_tokens}}

    def _usage(self, usage: Usage | None) -> dict[str, Any]:
        """Here, thoughts are not part of the output tokens."""
        if usage is None:
            return {}
        counts = self._input(usage)["usageMetadata"] | {
            "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "totalTokenCount": usage.input_tokens + usage.output_tokens,
        }
        return {"usageMetadata": counts}


def _kept(body: dict[str, Any]) -> list[Any]:
    parts = [part for content in body["contents"] if content["role"] == "model" for part in content["parts"]]
    signatures = [{"thoughtSignature": part["thoughtSignature"]} for part in parts if "thoughtSignature" in part]
    return [one for one in signatures if not one["thoughtSignature"].startswith("skip_")]


_SPELLED = {
    "parameters_json_schema": "parametersJsonSchema",
    "mime_type": "mimeType",
    "file_uri": "fileUri",
    "include_thoughts": "includeThoughts",
    "thinking_level": "thinkingLevel",
}


def _likewise(body: dict[str, Any]) -> dict[str, Any]:
    """The program writes some names in the vendor's other spelling, and a configuration also where it is empty."""

    def spelled(value: Any) -> Any:
        if isinstance(value, dict):
            fields = cast(dict[str, Any], value)
            return {_SPELLED.get(name, name): spelled(item) for name, item in fields.items()}
        return [spelled(item) for item in cast(list[Any], value)] if isinstance(value, list) else value

    return {name: spelled(value) for name, value in body.items() if (name, value) != ("generationConfig", {})}


_DECLARED = {"name": TOOL.name, "description": TOOL.description, "parametersJsonSchema": SCHEMA}
_CHOSEN = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["get_weather"]}}


def _config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


GEMINI = Vendor(
    kind="gemini",
    dialect=Gemini,
    path="/v1beta",
    model="gemini-3-flash",
    fake=GenerateFake(),
    key_header="x-goog-api-key: {}",
    sent={
        "tools": Sent((TOOL,), {"tools": [{"functionDeclarations": [_DECLARED]}]}),
        "temperature": Sent(0.0, _config(temperature=0.0)),
        "max_output_tokens": Sent(77, _config(maxOutputTokens=77)),
        "top_p": Sent(0.5, _config(topP=0.5)),
        "top_k": Sent(9, _config(topK=9)),
        "stop": Sent(("END", "\n\n"), _config(stopSequences=["END", "\n\n"])),
        "seed": Sent(0, _config(seed=0)),
        "thinking": Sent("high", _config(thinkingConfig={"thinkingLevel": "HIGH", "includeThoughts": True})),
        "tool_choice": Sent("get_weather", {"toolConfig": _CHOSEN}, more={"tools": (TOOL,)}),
        "answer_schema": Sent(
            AnswerSchema("place", SCHEMA), _config(responseMimeType="application/json", responseJsonSchema=SCHEMA)
        ),
    },
    image=lambda mime, data: {"inlineData": {"mimeType": mime, "data": data}},
    image_url=lambda url: {"fileData": {"fileUri": url}},
    kept=_kept,
    aimock_wrong={"calls": "they end as FUNCTION_CALL, which is no reason of this vendor"},
    lacks={"raw arguments": "arguments are an object"},
    uncounted=("cache_write_tokens",),
    likewise=_likewise,
)
