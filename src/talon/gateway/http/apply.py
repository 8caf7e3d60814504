"""`POST /v1/apply`: manifests in, all or nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import FieldError, Invalid
from talon.gateway.api.permits import allow_documents, allow_plan
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.body_docs import manifests_doc
from talon.gateway.http.docs import doc
from talon.gateway.http.manifests import read_manifests
from talon.gateway.http.resources import SelectorText
from talon.gateway.http.visit import who_asks
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
        reading, who = await read_manifests(request), who_asks(request)
        allow_documents(who, reading)
        pruned = pruning.of(reading, selector) if prune else None
        if dry_run:
            plan = await resources.plan(reading, pruned)
            allow_plan(who, plan)
        else:
            plan = await resources.apply(reading, lambda plan: allow_plan(who, plan), pruned)
        return reply(Applied(list(plan.results), list(plan.warnings), dry_run))

    return api
