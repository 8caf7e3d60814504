"""What secrets have beside the routes of all resources: who used a value, and a new key for all of them."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from talon.gateway.api.collections import SECRETS, require
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import doc
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.wire import page, reply
from talon.gateway.times import rfc3339
from talon.vault.protocol import Rotation


class Use(msgspec.Struct, frozen=True):
    """One use of a value: `used_by` says by whom (`worker/NAME`), `purpose` what for (`providers.openai.api_key`)."""

    at: str
    used_by: str
    purpose: str


class RotationAsked(Body):
    """No fields."""


def router(deps: GatewayDeps) -> APIRouter:
    """The routes of secrets alone."""
    api = APIRouter(tags=["secrets"])

    @api.get(
        SECRETS.path + "/{name}/uses",
        operation_id="listSecretUses",
        summary="Who used a secret's value, newest first; kept for 90 days",
        responses=doc(Use, 200, listed=True, refused=("namespace_not_found", "secret_not_found", "cursor_invalid")),
    )
    async def uses(ns: str, name: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        row = await require(deps.store, SECRETS, ns, name)
        found, after = await deps.store.list_uses(row.namespace, row.name, cursor, limit)
        return page([Use(rfc3339(one.at_ms), one.used_by, one.purpose) for one in found], after)

    @api.post(
        "/v1/secrets/rotate-key",
        operation_id="rotateKey",
        summary="Encrypt all secrets under a new key, or under the newest of the keys that were given",
        responses=doc(Rotation, 200, refused=("secret_key_missing",), body=True),
    )
    async def rotate(request: Request) -> Response:
        await read_json(request, RotationAsked)
        return reply(await deps.sealer.rotate())

    return api
