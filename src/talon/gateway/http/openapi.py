"""The OpenAPI document: FastAPI's, with the schemas of our structs and the routes that FastAPI does not serve."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from talon.domain.session import STRATEGIES
from talon.gateway.api.sending import MessageBody
from talon.gateway.api.shapes import MessageReceipt
from talon.gateway.api.table import TABLE
from talon.gateway.http import health
from talon.gateway.http.docs import GUARD_CODES, KEY_PARAMETER, MODELS, REF, STRUCTS, doc, problems, ref, sse_event
from talon.gateway.http.problems import Problem
from talon.gateway.http.resource_docs import describe_bodies
from talon.gateway.http.sessions import SESSION

Json = dict[str, Any]
_PATH = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("ns", "agent", "session_id")]
_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key or client's token (`talon_ID_SECRET`), or a JWT where gateway.auth.mode has it. Nothing is "
        "needed where the mode is none.",
    },
    "browser": {
        "type": "apiKey",
        "in": "cookie",
        "name": "talon",
        "description": "The session of a browser (`POST /v1/auth/session`, or the login); over TLS its name is `__Host-talon`.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "Talon-Csrf",
        "description": "Any value, beside the cookie, with what changes something; the request's Origin must be an allowed one.",
    },
}
_SSE = {
    "text/event-stream": {
        "schema": sse_event(
            "Events `id: SEQ`, `event: TYPE`, `data: {seq, turn_id, type, at, payload}`, one for each entry; "
            "and while an answer is being written `text.delta` and `reasoning.delta` with `id: SEQ.OFFSET` and payload "
            "`{offset, text}`, offsets in code points. An id is a cursor: sent back as `Last-Event-ID` it goes on exactly there. "
            "Keep the text as `text[:offset] + delta`. A comment comes at least every 15 s."
        )
    }
}


def document(api: FastAPI, page_max: int, *, asks: bool) -> Json:
    """The whole document of a gateway whose pages have at most `page_max` items, and which `asks` who is there. Paths of the alias
    `/v1/namespaces/{ns}/…` are not repeated."""
    if api.openapi_schema is None:
        whole = get_openapi(
            title=api.title,
            version=api.version,
            summary=api.summary,
            description="`/v1/namespaces/{ns}/…` is an alias of `/v1/ns/{ns}/…`. Every `GET` also answers `HEAD`. "
            "Errors are RFC 9457 problems.",
            routes=api.routes,
        )
        bare = {SESSION + "/message": {"post": _message()}, SESSION + "/stream": {"get": _stream()}}
        whole["paths"] = {**health.documents(), **whole["paths"], **bare}
        describe_bodies(whole["paths"])
        whole["components"] = {**whole.get("components", {}), "securitySchemes": _SCHEMES}
        _secure(whole["paths"], asks=asks)
        _bound(whole["paths"], page_max)
        schemas: Json = whole.setdefault("components", {}).setdefault("schemas", {})
        _, structs = msgspec.json.schema_components([Problem, *sorted(STRUCTS, key=lambda one: one.__name__)], ref_template=REF)
        schemas |= structs
        for model in MODELS:
            schema = model.model_json_schema(ref_template=REF.replace("{name}", "{model}"))
            schemas |= cast(Json, schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        schemas["MessageBody"]["properties"]["strategy"]["enum"] = list(STRATEGIES)
        whole["components"]["schemas"] = dict(sorted(schemas.items()))
        api.openapi_schema = whole
    return api.openapi_schema


def _secure(paths: Json, *, asks: bool) -> None:
    """Say of each operation what it needs to be shown."""
    for operations in paths.values():
        for operation in operations.values():
            open_to_all = not asks or TABLE[operation["operationId"]].place == "open"
            operation["security"] = [] if open_to_all else [{"bearer": []}, {"browser": [], "csrf": []}]


def _bound(paths: Json, page_max: int) -> None:
    """Say of each list how long its pages may be here."""
    for operations in paths.values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "limit" and parameter["in"] == "query":
                    parameter["schema"] |= {"maximum": page_max}


def _message() -> Json:
    answers = doc(
        MessageReceipt,
        202,
        refused=("session_not_found", "session_busy", "idempotency_conflict", "queue_full", "shutting_down"),
        links="turn",
    )
    answers[200] = {"description": "With `Accept: text/event-stream`: the events of the message's turn to its end", "content": _SSE}
    return {
        "operationId": "sendMessage",
        "tags": ["sessions"],
        "summary": "Send a message; answered once it is durable",
        "parameters": [
            *_PATH,
            {
                "name": "create",
                "in": "query",
                "required": False,
                "description": "Create the session if there is none.",
                "schema": {"type": "boolean", "default": False},
            },
            KEY_PARAMETER,
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(MessageBody)}}},
        "responses": _sorted(answers),
    }


def _stream() -> Json:
    answers: Json = {
        "200": {"description": "The journal, live", "content": _SSE},
        "204": {"description": "The watched turn had ended before the given cursor"},
    }
    refused = problems(
        (
            "session_not_found",
            "turn_not_found",
            "session_replaced",
            "cursor_ahead",
            "cursor_invalid",
            *GUARD_CODES,
            "forbidden_origin",
            "too_many_streams",
            "shutting_down",
        ),
        body=False,
    )
    return {
        "operationId": "streamSession",
        "tags": ["sessions"],
        "summary": "Stream the journal from a cursor on, then live",
        "parameters": [
            *_PATH,
            {
                "name": "after",
                "in": "query",
                "required": False,
                "description": "Start after this cursor; `0` from the beginning; absent: now.",
                "schema": {"type": "string"},
            },
            {
                "name": "turn",
                "in": "query",
                "required": False,
                "description": "Only this turn's events; the response ends with its end.",
                "schema": {"type": "string", "format": "uuid"},
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "As `after`, and wins over it.",
                "schema": {"type": "string"},
            },
        ],
        "responses": {**answers, **_sorted(refused)},
    }


def _sorted(answers: dict[int | str, Json]) -> Json:
    return {str(status): answers[status] for status in sorted(answers, key=int)}
