"""`POST /v1/apply`: manifests in, all or nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.gateway.deps import GatewayDeps
from talon.gateway.http.docs import doc
from talon.gateway.http.manifests import ALL_DOCS, manifest_doc, read_manifests
from talon.gateway.http.wire import reply
from talon.gateway.resources import Resources
from talon.manifest.state import ApplyPlan, Result, Warn

DryRun = Annotated[bool, Query(description="Answer with what would change, and change nothing.")]


class Applied(msgspec.Struct, frozen=True):
    """What an apply did, or with `dry_run` would do: one item for each document, in their order, then one for each resource that
    follows from them."""

    items: list[Result]
    warnings: list[Warn]
    dry_run: bool


def router(deps: GatewayDeps) -> APIRouter:
    """The apply route."""
    api = APIRouter(tags=["apply"])
    resources = Resources(deps.store, deps.ids)

    @api.post(
        "/v1/apply",
        operation_id="apply",
        summary="Create or change what manifests describe: all of it, or nothing",
        responses=doc(Applied, 200, refused=("invalid", "conflict"), body=True),
        openapi_extra=manifest_doc(*ALL_DOCS, many=True),
    )
    async def apply(request: Request, dry_run: DryRun = False) -> Response:
        reading = await read_manifests(request)
        plan = await resources.plan(reading) if dry_run else await resources.apply(reading)
        return reply(answer(plan, dry_run=dry_run))

    return api


def answer(plan: ApplyPlan, *, dry_run: bool) -> Applied:
    """The plan as it is told."""
    return Applied(list(plan.results), list(plan.warnings), dry_run)
