"""The routes of a collection as they stand in the document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from talon.gateway.api.collections import AGENTS, COLLECTIONS, NAMESPACES, SECRETS, Collection
from talon.gateway.http.body_docs import manifest_doc, patch_doc
from talon.gateway.http.docs import ETAG, IF_MATCH, IF_NONE_MATCH, LAST_EVENT_ID, doc, path_doc, ref, sse_event
from talon.gateway.http.manifests import Manifest
from talon.gateway.http.watching import WatchEvent

Handler = Callable[..., Awaitable[Response]]
_WRITES = ("conflict", "terminating", "precondition_failed")


class User(msgspec.Struct, frozen=True):
    """A resource that refers to the one that was asked for."""

    namespace: str
    kind: str
    name: str
    generation: int


def add(api: APIRouter, of: Collection, handlers: Mapping[str, Handler]) -> None:
    """Add the routes of collection `of` to `api`."""
    _add_collection(api, of, handlers)
    _add_reading(api, of, handlers)
    _add_writing(api, of, handlers)


def _add_collection(api: APIRouter, of: Collection, handlers: Mapping[str, Handler]) -> None:
    within = () if of is NAMESPACES else ("namespace_not_found",)
    where = path_doc() if of is NAMESPACES else path_doc("ns")
    api.add_api_route(
        of.path,
        handlers["list"],
        methods=["GET"],
        operation_id=f"list{of.many}",
        tags=[of.tag],
        summary=f"The {of.all}, by name; or their changes, live",
        responses=doc(
            Manifest,
            200,
            listed=True,
            content=watch_doc(),
            refused=(*within, "cursor_invalid", "version_ahead", "version_gone", "too_many_streams", "shutting_down"),
        ),
        openapi_extra={"parameters": [*where, LAST_EVENT_ID]},
    )
    api.add_api_route(
        of.path,
        handlers["create"],
        methods=["POST"],
        operation_id=f"create{of.one}",
        tags=[of.tag],
        status_code=201,
        summary=f"Create {_a(of.said)}",
        responses=doc(
            Manifest,
            201,
            200,
            refused=(*within, "already_exists", "conflict", "terminating", *_sealing(of)),
            links=of.one,
            headers=ETAG,
        ),
        openapi_extra={"parameters": where},
    )


def _add_reading(api: APIRouter, of: Collection, handlers: Mapping[str, Handler]) -> None:
    missing, path, where = _one(of)
    api.add_api_route(
        path,
        handlers["get"],
        methods=["GET"],
        operation_id=f"get{of.one}",
        tags=[of.tag],
        summary=f"One {of.said}, with its conditions",
        responses=doc(Manifest, 200, 304, refused=(*missing, "precondition_failed"), links=of.one, headers=ETAG, body=False),
        openapi_extra={"parameters": [*where, IF_NONE_MATCH, IF_MATCH]},
    )
    if of is NAMESPACES:
        return
    api.add_api_route(
        path + "/users",
        handlers["users"],
        methods=["GET"],
        operation_id=f"list{of.one}Users",
        tags=[of.tag],
        summary=f"The resources that refer to {_a(of.said)}" + ("; its sessions have a list of their own" if of is AGENTS else ""),
        responses=doc(User, 200, listed=True, refused=(*missing, "cursor_invalid")),
        openapi_extra={"parameters": where},
    )


def _add_writing(api: APIRouter, of: Collection, handlers: Mapping[str, Handler]) -> None:
    missing, path, where = _one(of)
    guards = [*where, IF_MATCH, IF_NONE_MATCH]
    api.add_api_route(
        path,
        handlers["put"],
        methods=["PUT"],
        operation_id=f"put{of.one}",
        tags=[of.tag],
        summary=f"Create or replace {_a(of.said)}",
        responses=doc(Manifest, 200, 201, refused=(*missing[:1], *_WRITES, *_sealing(of)), links=of.one, headers=ETAG, body=True),
        openapi_extra={"parameters": guards},
    )
    api.add_api_route(
        path,
        handlers["patch"],
        methods=["PATCH"],
        operation_id=f"patch{of.one}",
        tags=[of.tag],
        summary=f"Change fields of {_a(of.said)}",
        responses=doc(Manifest, 200, refused=(*missing, *_WRITES, *_sealing(of)), links=of.one, headers=ETAG, body=True),
        openapi_extra={"parameters": guards, **patch_doc(of.kind)},
    )
    api.add_api_route(
        path,
        handlers["delete"],
        methods=["DELETE"],
        operation_id=f"delete{of.one}",
        tags=[of.tag],
        status_code=204,
        summary=f"Delete {_a(of.said)} that nothing uses, or with `cascade` what uses it too",
        responses=doc(Manifest, 204, 202, refused=(*missing, "in_use", "conflict", "precondition_failed"), headers=ETAG),
        openapi_extra={"parameters": guards},
    )


def describe_bodies(paths: dict[str, dict[str, Any]]) -> None:
    """Write into the document's `paths` which manifests the routes of all collections take: only when somebody asks for it."""
    for of in COLLECTIONS:
        paths[of.path]["post"] |= manifest_doc(of.kind, named=False)
        _, path, _ = _one(of)
        paths[path]["put"] |= manifest_doc(of.kind, named=True)


def watch_doc() -> dict[str, Any]:
    """What a list answers with `watch=true`."""
    ref(WatchEvent)
    text = (
        "With `watch=true`: events `id: VERSION`, `event: added | modified | deleted | bookmark`, `data:` a WatchEvent, each "
        "change once and in order. With a `label_selector`, what begins to match is told as added and what stops as deleted. "
        "A bookmark says up to which version everything is told, at first and every 15 s. An id is where to go on: sent back as "
        "`Last-Event-ID`. The response ends when the namespace is gone or the gateway shuts down."
    )
    return {"text/event-stream": {"schema": sse_event(text)}}


def _one(of: Collection) -> tuple[tuple[str, ...], str, list[dict[str, Any]]]:
    """-> (codes of what may be missing, the path of one, its path parameters)."""
    if of is NAMESPACES:
        return (of.missing,), of.path + "/{ns}", path_doc("ns")
    return ("namespace_not_found", of.missing), f"{of.path}/{{{of.place}}}", path_doc("ns", of.place)


def _sealing(of: Collection) -> tuple[str, ...]:
    return ("secret_key_missing",) if of is SECRETS else ()


def _a(said: str) -> str:
    if said == "knowledge":
        return said
    return f"an {said}" if said[0] in "aeiouM" else f"a {said}"
