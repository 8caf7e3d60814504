"""`/v1/schemas`: JSON Schemas of what may be written, for editors and for whoever generates manifests."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from talon.domain.errors import NotFound
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import JSON_OBJECT, doc
from talon.gateway.http.wire import page, reply
from talon.manifest.schemas import NAMES, schema

SCHEMAS = "/v1/schemas"
_A_DAY = {"Cache-Control": "max-age=86400"}


class SchemaName(msgspec.Struct, frozen=True):
    """A schema that there is. `Manifest` is that of any kind, and of the forms without an envelope."""

    kind: str
    path: str


def router(deps: GatewayDeps) -> APIRouter:
    """The schema routes."""
    api = APIRouter(tags=["schemas"])

    @api.get(
        SCHEMAS,
        operation_id="listSchemas",
        summary="The kinds that have a JSON Schema",
        responses=doc(SchemaName, 200, listed=True),
    )
    async def schemas() -> Response:
        return page([SchemaName(name, f"{SCHEMAS}/{name}") for name in NAMES], "")

    @api.get(
        SCHEMAS + "/{kind}",
        operation_id="getSchema",
        summary="The JSON Schema (2020-12) of a kind, or of any manifest",
        responses=doc(None, 200, refused=("kind_not_found",), content=JSON_OBJECT),
    )
    async def one(kind: str) -> Response:
        found = schema(kind)
        if found is None:
            raise NotFound("kind_not_found", f"no kind {kind[:80]!r}; there are {', '.join(NAMES)}")
        return reply(found, headers=_A_DAY)

    return api
