"""Resources as HTTP shows them: the manifest as it was applied, what Talon wrote into it, and its conditions as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from talon.domain.resources import Identity
from talon.gateway.api.schedules import statuses
from talon.gateway.deps import GatewayDeps
from talon.gateway.times import rfc3339
from talon.manifest.conditions import conditions, wanted
from talon.manifest.effective import Effective, decode
from talon.manifest.resolve import load
from talon.manifest.views import Stamp, shown_effective, shown_manifest
from talon.store.resources import ResourceRow
from talon.store.sight import looking_up

#: Resources looked up at a time.
_AT_ONCE = 1_000


class Views:
    """Shows rows of one store. A page of them takes as many queries as one of them does."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._store, self._resources = deps.store, deps.plane.resources

    async def one(self, row: ResourceRow, *, effective: bool = False) -> dict[str, Any]:
        """A resource; with `effective` an agent as turns run it."""
        (shown,) = await self.shown([row], effective=effective)
        return shown

    async def shown(self, rows: Sequence[ResourceRow], *, effective: bool = False) -> list[dict[str, Any]]:
        """Resources of any kinds, in their order."""
        if all(row.kind == "Namespace" for row in rows):
            return [shown_manifest(row.body, stamp(row)) for row in rows]
        models = [load(row.body) for row in rows]
        resolved = await self._resolved(rows)
        places = [wanted(model, row.namespace, resolved.get(row.uid)) for model, row in zip(models, rows, strict=True)]
        found = await self._found({place for one in places for place in one})
        secrets = [(row.namespace, row.name) for row in rows if row.kind == "Secret"]
        valued = await self._store.have_values(secrets) if secrets else set[tuple[str, str]]()
        catalogue = await self._resources.served()
        schedules = await statuses(self._store, rows)
        out: list[dict[str, Any]] = []
        for model, row in zip(models, rows, strict=True):
            agent = resolved.get(row.uid)
            schedule = schedules.get(row.uid)
            now = conditions(
                model,
                row.namespace,
                found,
                catalogue,
                effective=agent,
                has_value=(row.namespace, row.name) in valued,
                error=schedule.error if schedule is not None else "",
                over=schedule is not None and schedule.next_at is None,
            )
            if agent is not None and effective:
                metadata: dict[str, Any] = msgspec.json.decode(row.body)["metadata"]
                out.append(shown_effective(agent, metadata, stamp(row), now, row.revision))
            else:
                out.append(shown_manifest(row.body, stamp(row), now, row.revision))
            if schedule is not None:
                out[-1]["status"]["schedule"] = msgspec.to_builtins(schedule)
        return out

    async def _resolved(self, rows: Sequence[ResourceRow]) -> dict[str, Effective]:
        """uid -> the definition of those that are agents."""
        agents = [row for row in rows if row.kind == "Agent" and row.revision]
        revisions = await self._resources.revisions(agents)
        return {
            row.uid: decode(revision.effective)
            for row in agents
            if (revision := revisions.get((row.namespace, row.name, row.revision))) is not None
        }

    async def _found(self, places: set[Identity]) -> set[Identity]:
        ordered, found = sorted(places), set[Identity]()
        for start in range(0, len(ordered), _AT_ONCE):
            with looking_up():
                rows = await self._store.get_resources(ordered[start : start + _AT_ONCE])
            found |= {(row.namespace, row.kind, row.name) for row in rows}
        return found


def stamp(row: ResourceRow) -> Stamp:
    """What Talon writes into a shown manifest's metadata."""
    return Stamp(
        row.uid,
        row.generation,
        row.version,
        rfc3339(row.created_at_ms),
        rfc3339(row.updated_at_ms),
        "" if row.deleting_at_ms is None else rfc3339(row.deleting_at_ms),
    )


def watched(row: ResourceRow) -> bytes:
    """A resource as watches tell it, as JSON: without conditions, which change without a version."""
    shown = shown_manifest(row.body, stamp(row), (), row.revision)
    del shown["status"]["conditions"]
    return msgspec.json.encode(shown)
