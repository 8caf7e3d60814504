"""What OpenAPI says about a route: its answers, its problems, its body. Used where the route is declared."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from talon.gateway.http.problems import MEDIA_TYPE

REF = "#/components/schemas/{name}"
#: Every code that a gateway route answers with, by status. A route names its own; `COMMON` belong to all.
STATUS: dict[str, int] = {
    "malformed": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "forbidden_host": 403,
    "forbidden_origin": 403,
    "agent_not_found": 404,
    "approval_not_found": 404,
    "image_not_found": 404,
    "key_not_found": 404,
    "kind_not_found": 404,
    "knowledge_not_found": 404,
    "mcp_binding_not_found": 404,
    "mcp_server_not_found": 404,
    "model_not_found": 404,
    "namespace_not_found": 404,
    "revision_not_found": 404,
    "route_not_found": 404,
    "schedule_not_found": 404,
    "secret_not_found": 404,
    "session_not_found": 404,
    "template_not_found": 404,
    "turn_not_found": 404,
    "method_not_allowed": 405,
    "already_exists": 409,
    "approval_closed": 409,
    "conflict": 409,
    "firing_superseded": 409,
    "idempotency_conflict": 409,
    "in_use": 409,
    "secret_key_missing": 409,
    "secret_unreadable": 409,
    "session_busy": 409,
    "terminating": 409,
    "turn_ended": 409,
    "session_replaced": 410,
    "version_gone": 410,
    "precondition_failed": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "cursor_ahead": 416,
    "cursor_invalid": 422,
    "invalid": 422,
    "version_ahead": 422,
    "queue_full": 429,
    "too_many_requests": 429,
    "too_many_streams": 429,
    "internal": 500,
    "database_unavailable": 503,
    "identity_unavailable": 503,
    "shutting_down": 503,
    "storage_full": 503,
}
COMMON = ("malformed", "forbidden_host", "invalid", "internal", "database_unavailable")
#: Of routes that ask who is there.
GUARD_CODES = ("unauthenticated", "forbidden", "too_many_requests")
BODY_CODES = ("forbidden_origin", "too_large", "unsupported_media_type", "storage_full")
_WORDS = {200: "OK", 201: "Created", 202: "Accepted", 204: "Deleted", 302: "Go on there", 304: "Not modified"}
#: Answers that have no body, whatever the others of their route have.
_BARE = frozenset({204, 302, 304})
_SESSION_PLACES = {"ns": "$request.path.ns", "agent": "$request.path.agent"}
#: Where an answer leads: operation ids of the routes that its fields are parameters of.
_LINKS: dict[str, dict[str, Any]] = {
    "session": {
        name: {"operationId": name, "parameters": {**_SESSION_PLACES, "session_id": "$response.body#/id"}}
        for name in ("sendMessage", "streamSession", "getSession", "listEntries", "deleteSession")
    },
    "Namespace": {
        name: {"operationId": name, "parameters": {"ns": "$response.body#/metadata/name"}}
        for name in (
            "getNamespace",
            "patchNamespace",
            "listTemplates",
            "listAgents",
            "listApprovals",
            "createAgent",
            "createSecret",
            "getGraph",
            "exportNamespace",
            "deleteNamespace",
        )
    },
    **{
        one: {
            name: {
                "operationId": name,
                "parameters": {"ns": "$response.body#/metadata/namespace", "name": "$response.body#/metadata/name"},
            }
            for name in (*(f"{verb}{one}" for verb in ("get", "put", "patch", "delete")), f"list{one}Users")
        }
        for one in ("Template", "Schedule", "Knowledge", "McpServer", "McpBinding", "Secret")
    },
    "Agent": {
        name: {
            "operationId": name,
            "parameters": {"ns": "$response.body#/metadata/namespace", "agent": "$response.body#/metadata/name"},
        }
        for name in (
            "getAgent",
            "putAgent",
            "patchAgent",
            "deleteAgent",
            "listAgentUsers",
            "listRevisions",
            "rollbackAgent",
            "createSession",
            "listSessions",
        )
    },
    "turn": {
        name: {
            "operationId": name,
            "parameters": {
                **_SESSION_PLACES,
                "session_id": "$response.body#/session_id",
                "turn_id": "$response.body#/turn_id",
            },
        }
        for name in ("getTurn", "cancelTurn")
    },
}

#: Struct types that responses refer to, and body models; `openapi.py` writes them into the components.
STRUCTS: set[type[Any]] = set()
MODELS: set[type[BaseModel]] = set()


def ref(kind: type[Any]) -> dict[str, Any]:
    """A reference to the schema of `kind`, which gets into the document."""
    if issubclass(kind, BaseModel):
        MODELS.add(kind)
    else:
        STRUCTS.add(kind)
    return {"$ref": REF.format(name=kind.__name__)}


def problem(codes: list[str]) -> dict[str, Any]:
    """A problem response that carries one of `codes`."""
    return {
        "description": "Problem: " + ", ".join(f"`{code}`" for code in codes),
        "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(name="Problem")}}},
    }


def problems(refused: tuple[str, ...], *, body: bool) -> dict[int | str, dict[str, Any]]:
    """Problem responses by status, of the route's own codes and of those that any route may answer with."""
    by_status: dict[int | str, list[str]] = {}
    for code in (*refused, *COMMON, *(BODY_CODES if body else ())):
        codes = by_status.setdefault(STATUS[code], [])
        if code not in codes:
            codes.append(code)
    return {status: problem(codes) for status, codes in sorted(by_status.items())}


def doc(
    kind: type | None,
    *statuses: int,
    listed: bool = False,
    refused: tuple[str, ...] = (),
    links: str = "",
    body: bool | None = None,
    headers: dict[str, Any] | None = None,
    content: dict[str, Any] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: `kind` (None for no body) under each of `statuses`, a page of it if `listed`, and its problems.

    `refused` are the codes of the route itself; `body` adds those of any route that changes something (the default but for
    reading answers, status 200). `headers` are those of the answers, `content` what they may be instead of JSON.
    """
    answers: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        answer: dict[str, Any] = {"description": _WORDS[status]}
        if status not in _BARE:
            if kind is not None or content is not None:
                answer["content"] = dict(content or {})
            if kind is not None:
                schema = ref(kind)
                answer["content"]["application/json"] = {"schema": page_of(schema, kind) if listed else schema}
            if links:
                answer["links"] = _LINKS[links]
        if headers and status != 204:
            answer["headers"] = headers
        answers[status] = answer
    changes = statuses != (200,) if body is None else body
    return {**answers, **problems((*refused, *GUARD_CODES), body=changes)}


def page_of(schema: dict[str, Any], kind: type) -> dict[str, Any]:
    """The schema of a list's page. One of resources says from where a watch goes on."""
    properties = {"items": {"type": "array", "items": schema}, "next_cursor": {"type": ["string", "null"]}}
    if kind.__name__ == "Manifest":
        properties["resource_version"] = {"type": "string", "pattern": "^[0-9]+$"}
    return {"type": "object", "required": list(properties), "properties": properties}


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


JSON_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_TAGS = {"type": "string", "pattern": r'^([*]|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$'}
IF_MATCH = _header("If-Match", "Only if the resource is still as this `ETag` says; `*`: if it exists.", _TAGS)
IF_NONE_MATCH = _header("If-None-Match", "Only if it is another than this `ETag` says; `*`: if it does not exist.", _TAGS)
LAST_EVENT_ID = _header(
    "Last-Event-ID", "With `watch`: as `resource_version`, and wins over it.", {"type": "string", "pattern": "^[0-9]{0,18}$"}
)
ETAG = {"ETag": {"description": "The resource's version, for If-Match.", "schema": {"type": "string"}}}
_PLACES = {
    "ns": "A namespace.",
    "name": "The name of a resource.",
    "agent": "The name of an agent.",
    "revision": "A revision's number.",
    "kind": "A kind, as in manifests.",
}


def sse_event(description: str) -> dict[str, Any]:
    """The schema of one server-sent event."""
    text = {"type": "string"}
    data = {"type": "string", "contentMediaType": "application/json"}
    return {
        "type": "object",
        "description": description,
        "required": ["data"],
        "properties": {"id": text, "event": text, "data": data},
    }


def path_doc(*names: str) -> list[dict[str, Any]]:
    """The path parameters of a route that reads them by itself."""
    return [
        {"name": name, "in": "path", "required": True, "description": _PLACES[name], "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]


KEY_PARAMETER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body is done once, for 24 h at least; with another body it is refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def body_doc(kind: type, *, required: bool = True, key: bool = False) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a body of `kind` by itself."""
    extra: dict[str, Any] = {"requestBody": {"required": required, "content": {"application/json": {"schema": ref(kind)}}}}
    if key:
        extra["parameters"] = [KEY_PARAMETER]
    return extra
