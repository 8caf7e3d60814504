"""`POST /v1/apply`: manifests in, all or nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.gateway.api.applying import Applying, How
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.body_docs import manifests_doc
from talon.gateway.http.docs import doc
from talon.gateway.http.manifests import read_manifests
from talon.gateway.http.resources import SelectorText
from talon.gateway.http.visit import who_asks
from talon.gateway.http.wire import reply
from talon.manifest.state import Result, Warn

DryRun = Annotated[bool, Query(description="Answer with what would change, and change nothing.")]
Prune = Annotated[
    bool,
    Query(description="Also delete what `label_selector` matches in the namespaces of the manifests, and is in none of them."),
]


class Applied(msgspec.Struct, frozen=True):
    """What an apply did, or with `dry_run` would do: one item for each document, in their order, then one for each resource that
    follows from them or is pruned."""

    items: list[Result]
    warnings: list[Warn]
    dry_run: bool


def router(deps: GatewayDeps) -> APIRouter:
    """The apply route."""
    api = APIRouter(tags=["apply"])
    applying = Applying(deps)

    @api.post(
        "/v1/apply",
        operation_id="apply",
        summary="Create or change what manifests describe: all of it, or nothing",
        responses=doc(Applied, 200, refused=("invalid", "conflict", "terminating", "in_use", "secret_key_missing"), body=True),
        openapi_extra=manifests_doc(),
    )
    async def apply(request: Request, dry_run: DryRun = False, prune: Prune = False, label_selector: SelectorText = "") -> Response:
        how = How(label_selector, dry_run=dry_run, prune=prune)
        plan = await applying.apply(who_asks(request), await read_manifests(request), how)
        return reply(Applied(list(plan.results), list(plan.warnings), dry_run))

    return api
