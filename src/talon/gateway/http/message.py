"""`POST …/message`: the hot route. Bare ASGI and msgspec; everything that can be wrong is found before the journal is asked."""

from __future__ import annotations

import hashlib
import re
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from talon.domain.errors import FieldError, Invalid, Malformed, NotFound, TooLarge
from talon.domain.ids import Ids, is_name, is_namespace
from talon.domain.inbox import Creation, Key, Message, Receipt
from talon.domain.session import STRATEGIES, Strategy
from talon.gateway.api.lookup import missing_session
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import JSON_TYPES, media_type
from talon.gateway.http.creating import SessionFields, bare_session_revision, bounded_json, create_session
from talon.gateway.stream import Streams

TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: How many agents are remembered as such that need no session fields.
BARE_MAX = 1024
_AT = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `([^`]+)`")


class MessageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is posted."""

    content: str
    strategy: str = "enqueue"
    metadata: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(MessageBody)
_sorted = msgspec.json.Encoder(order="deterministic")


class Messages:
    """Accepts messages."""

    def __init__(self, deps: GatewayDeps, streams: Streams) -> None:
        self._deps = deps
        self._streams = streams
        self._bare: dict[tuple[str, str], int] = {}  # agent -> the revision for which a session without fields was right

    async def serve(self, scope: Scope, receive: Receive, send: Send, path: dict[str, str]) -> None:
        """Answers 202 with a receipt once the message is durable (K1); with the turn's stream to who accepts that."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        create = _create_asked(scope["query_string"])
        data = await _read(receive)
        media_type(headers.get(b"content-type", b"").decode("latin-1"), JSON_TYPES)
        body = decode_message(data)
        self._check(body)
        where = (path["ns"], path["agent"], path["session_id"])
        message = Message(
            where=where,
            content=body.content,
            turn_id=self._deps.ids.uuid7(),
            strategy=cast(Strategy, body.strategy),
            metadata=body.metadata,
            key=idempotency_key(headers.get(b"idempotency-key"), (*where, body)),
            queue_max=self._deps.settings.queue_max,
            traceparent=traceparent(headers, self._deps.ids),
        )
        receipt = await self._accept(message, create)
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

    def _check(self, body: MessageBody) -> None:
        content = body.content
        if not content or content.isspace():
            raise _wrong("content", "is empty: a message needs text")
        size = len(content) if content.isascii() else len(content.encode())
        most = self._deps.settings.message_max
        if size > most:
            raise TooLarge(
                "too_large",
                f"content has {size} bytes, a message may have {most}",
                (FieldError("content", f"at most {most} bytes, not {size}"),),
            )
        if "\0" in content:
            raise _wrong("content", f"has a NUL character at position {content.index(chr(0))}; text has none")
        if body.strategy not in STRATEGIES:
            raise _wrong("strategy", f"must be one of {', '.join(STRATEGIES)}", body.strategy)
        if body.metadata:
            bounded_json("metadata", body.metadata, self._deps.settings.metadata_max)

    async def _accept(self, message: Message, create: bool) -> Receipt:
        namespace, agent, session = message.where
        if not (is_namespace(namespace) and is_name(agent) and is_name(session)):
            if create and session and not is_name(session):
                await create_session(self._deps, namespace, agent, SessionFields(id=session))  # says what is wrong with the name
            raise await missing_session(self._deps.store, message.where)
        creation = self._creation(namespace, agent) if create else None
        receipt = await self._try(msgspec.structs.replace(message, creation=creation))
        if receipt is not None:
            return receipt
        if not create:
            raise await missing_session(self._deps.store, message.where)
        if len(self._bare) >= BARE_MAX:
            self._bare.clear()
        self._bare[namespace, agent] = await bare_session_revision(self._deps.store, namespace, agent)
        receipt = await self._try(msgspec.structs.replace(message, creation=self._creation(namespace, agent)))
        if receipt is not None:
            return receipt
        # A session of this name was deleted, or the agent has a new revision since.
        await create_session(self._deps, namespace, agent, SessionFields(id=session))
        return await self._deliver(message)

    def _creation(self, namespace: str, agent: str) -> Creation | None:
        """How a missing session begins in the transaction that accepts its first message, if that is known to be right."""
        revision = self._bare.get((namespace, agent))
        return None if revision is None else Creation(self._deps.ids.uuid7(), revision)

    async def _try(self, message: Message) -> Receipt | None:
        """Deliver; None if there is no such session."""
        try:
            return await self._deliver(message)
        except NotFound as exc:
            if exc.code != "session_not_found":
                raise
            return None

    async def _deliver(self, message: Message) -> Receipt:
        """Write the message; where this process has a free worker slot, the turn starts in the same commit."""
        deps = self._deps
        offer = await deps.offer(message.where) if deps.offer is not None else None
        if offer is None:
            return await deps.writer.deliver(message)
        taken = False
        try:
            receipt = await deps.writer.deliver(msgspec.structs.replace(message, offer=offer.worker, start=offer.start))
            taken = receipt.claimed is not None and not receipt.replayed
        finally:
            if not taken and deps.declined is not None:
                deps.declined(offer)
        if taken and deps.started is not None:
            deps.started(receipt)
        return receipt


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
        text = str(exc)
        at = _AT.search(text)
        name = _FIELD.search(text)
        field = at[1] if at and at[1] else name[1] if name else "body"
        said = text[: at.start()] if at else text
        raise Invalid("invalid", f"{field}: {said}", (FieldError(field, said),)) from None
    except msgspec.DecodeError as exc:
        raise Malformed("malformed", f"the body is not JSON: {exc}") from None
    except UnicodeDecodeError:
        raise Malformed("malformed", "the body is not UTF-8") from None
    except RecursionError:
        raise Malformed("malformed", "the body is nested too deeply") from None


def idempotency_key(raw: bytes | None, body: Any) -> Key | None:
    """The key of a request with its body's digest. Raises `Invalid` for a key that is none."""
    if raw is None:
        return None
    key = raw.decode("latin-1").strip()
    if KEY.fullmatch(key) is None:
        raise _wrong("Idempotency-Key", "must be 1 to 255 printable ASCII characters without spaces", key[:80])
    return Key("http", key, hashlib.sha256(_sorted.encode(body)).hexdigest())


def traceparent(headers: dict[bytes, bytes], ids: Ids) -> str:
    """The caller's trace, if it sends one that can be read; else a new one, so that every entry belongs to a trace."""
    given = headers.get(b"traceparent", b"")
    if TRACEPARENT.fullmatch(given):
        return given.decode("latin-1")
    fresh = ids.uuid7().replace("-", "")
    return f"00-{fresh}-{fresh[16:]}-01"


def _create_asked(query: bytes) -> bool:
    if not query:
        return False
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    unknown = sorted(given.keys() - {"create"})
    if unknown:
        errors = tuple(FieldError(name, "unknown query parameter") for name in unknown)
        raise Invalid("invalid", f"unknown query parameter {unknown[0]!r}; known here: create", errors)
    value = given.get("create", "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise _wrong("create", "must be true or false", value)
    return value in ("true", "1")


def _wrong(field: str, message: str, value: str | None = None) -> Invalid:
    return Invalid(
        "invalid", f"{field} {message}" + (f", not {value!r}" if value is not None else ""), (FieldError(field, message, value),)
    )
