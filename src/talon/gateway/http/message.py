"""`POST …/message`: the hot route. Bare ASGI and msgspec; everything that can be wrong is found before the journal is asked."""

from __future__ import annotations

import re

import msgspec
from starlette.types import Receive, Scope, Send

from talon.domain.errors import FieldError, Invalid, Malformed
from talon.domain.ids import Ids
from talon.gateway.api.asked import Asked, trace_of, wrong
from talon.gateway.api.sending import MessageBody, Sending
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import JSON_TYPES, media_type
from talon.gateway.http.streaming import Streaming
from talon.gateway.http.visit import known, visit_of
from talon.gateway.http.wire import query_of

_AT = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `([^`]+)`")
_decoder = msgspec.json.Decoder(MessageBody)


class Messages:
    """Accepts messages."""

    def __init__(self, deps: GatewayDeps, streams: Streaming) -> None:
        self._ids, self._sending, self._streams = deps.ids, Sending(deps), streams

    async def serve(self, scope: Scope, receive: Receive, send: Send, path: dict[str, str]) -> None:
        """Answers 202 with a receipt once the message is durable (K1); with the turn's stream to who accepts that."""
        headers = visit_of(scope).headers
        create = _create_asked(query_of(scope, "create"))
        data = await _read(receive)
        media_type(headers.get(b"content-type", b"").decode("latin-1"), JSON_TYPES)
        where = (path["ns"], path["agent"], path["session_id"])
        receipt = await self._sending.send(where, decode_message(data), asked_by(scope, self._ids), create=create)
        if b"text/event-stream" in headers.get(b"accept", b""):
            await self._streams.follow(scope, receive, send, receipt)
            return
        answer = msgspec.json.encode(
            {"session_id": where[2], "turn_id": receipt.turn_id, "seq": receipt.seq, "strategy": receipt.strategy}
        )
        out = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        if receipt.replayed:
            out.append((b"idempotent-replayed", b"true"))
        await send({"type": "http.response.start", "status": 202, "headers": out})
        await send({"type": "http.response.body", "body": answer})


async def _read(receive: Receive) -> bytes:
    """The whole body; the front bounds it."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed("malformed", "the client left in the middle of the body")
        parts.append(message.get("body", b""))
    return b"".join(parts)


def decode_message(data: bytes) -> MessageBody:
    """Raises `Malformed` for bytes that are no JSON, `Invalid` for a JSON that is no message."""
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as exc:
        field, said = _mistake(str(exc))
        raise Invalid("invalid", f"{field}: {said}", (FieldError(field, said),)) from None
    except msgspec.DecodeError as exc:
        raise Malformed("malformed", f"the body is not JSON: {exc}") from None
    except UnicodeDecodeError:
        raise Malformed("malformed", "the body is not UTF-8") from None
    except RecursionError:
        raise Malformed("malformed", "the body is nested too deeply") from None


def _mistake(text: str) -> tuple[str, str]:
    """Which field is wrong, and what is wrong with it, from msgspec's words."""
    at, name = _AT.search(text), _FIELD.search(text)
    place = at[1] if at else ""
    if "unknown field" in text and name:
        known = "" if place else f"; known here: {', '.join(MessageBody.__struct_fields__)}"
        return ".".join(part for part in (place, name[1]) if part), f"unknown field{known}"
    if "missing required field" in text and name:
        return ".".join(part for part in (place, name[1]) if part), "is missing"
    return place or (name[1] if name else "body"), text[: at.start()] if at else text


def asked_by(scope: Scope, ids: Ids) -> Asked:
    """What a change carries of a request."""
    visit = visit_of(scope)
    raw = visit.headers.get(b"idempotency-key")
    trace = trace_of(visit.header(b"traceparent"), ids)
    return Asked(known(visit), "http", trace, None if raw is None else raw.decode("latin-1").strip())


def _create_asked(query: dict[str, str]) -> bool:
    value = query.get("create", "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise wrong("create", "must be true or false", value)
    return value in ("true", "1")
