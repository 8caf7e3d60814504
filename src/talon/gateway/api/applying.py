"""Applying manifests: all of them, or nothing, and only what somebody may write."""

from __future__ import annotations

from talon.access.roles import Principal
from talon.domain.errors import FieldError, Invalid
from talon.gateway.api.permits import allow_documents, allow_plan
from talon.gateway.deps import GatewayDeps
from talon.gateway.pruning import Pruning
from talon.manifest.read import Reading
from talon.manifest.selectors import parse_selector
from talon.manifest.state import ApplyPlan


class How:
    """How to apply. `dry_run`: answer with what would change, and change nothing. `prune`: also delete what `label_selector`
    matches in the namespaces of the manifests, and is in none of them; neither goes without the other."""

    def __init__(self, label_selector: str, *, dry_run: bool, prune: bool) -> None:
        """Raises `Invalid`."""
        self.selector = parse_selector(label_selector)
        self.dry_run, self.prune = dry_run, prune
        if prune != bool(self.selector):
            message = "goes together with prune=true: what is deleted is what has these labels and is in no manifest"
            raise Invalid("invalid", f"label_selector {message}", (FieldError("label_selector", message),))


class Applying:
    """Applies what was read."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._resources, self._pruning = deps.plane.resources, Pruning(deps.store, deps.plane.deletions)

    async def apply(self, who: Principal, reading: Reading, how: How) -> ApplyPlan:
        """What was done, or with `dry_run` would be. Raises as `Resources.apply`, `NotFound` and `Forbidden` for what `who` may
        not write."""
        allow_documents(who, reading)
        pruned = self._pruning.of(reading, how.selector) if how.prune else None
        if how.dry_run:
            plan = await self._resources.plan(reading, pruned)
            allow_plan(who, plan)
            return plan
        return await self._resources.apply(reading, lambda plan: allow_plan(who, plan), pruned)
