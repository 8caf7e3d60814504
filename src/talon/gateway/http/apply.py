"""`POST /v1/apply`: manifests in, all or nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import FieldError, Invalid
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.body_docs import manifests_doc
from talon.gateway.http.docs import doc
from talon.gateway.http.manifests import read_manifests
from talon.gateway.http.resources import SelectorText
from talon.gateway.http.wire import reply
from talon.gateway.pruning import Pruning
from talon.manifest.selectors import parse_selector
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
    resources, pruning = deps.plane.resources, Pruning(deps.store, deps.plane.deletions)

    @api.post(
        "/v1/apply",
        operation_id="apply",
        summary="Create or change what manifests describe: all of it, or nothing",
        responses=doc(Applied, 200, refused=("invalid", "conflict", "terminating", "in_use", "secret_key_missing"), body=True),
        openapi_extra=manifests_doc(),
    )
    async def apply(request: Request, dry_run: DryRun = False, prune: Prune = False, label_selector: SelectorText = "") -> Response:
        selector = parse_selector(label_selector)
        if prune != bool(selector):
            message = "goes together with prune=true: what is deleted is what has these labels and is in no manifest"
            raise Invalid("invalid", f"label_selector {message}", (FieldError("label_selector", message),))
        reading = await read_manifests(request)
        pruned = pruning.of(reading, selector) if prune else None
        plan = await (resources.plan(reading, pruned) if dry_run else resources.apply(reading, prune=pruned))
        return reply(Applied(list(plan.results), list(plan.warnings), dry_run))

    return api
