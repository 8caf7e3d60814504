"""Creating, replacing and deleting one resource by its own route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from talon.domain.errors import Conflict
from talon.gateway.resources import ATTEMPTS_MAX, Resources
from talon.manifest.plan import invalid
from talon.manifest.read import Manifest, Reading
from talon.manifest.state import ApplyPlan
from talon.store.protocols import Store
from talon.store.resources import Changes, DeleteResource, ResourceRow

_FIELDS_SHOWN_MAX = 5


async def create(store: Store, resources: Resources, reading: Reading) -> tuple[bool, ResourceRow]:
    """Create what the one manifest says; -> (whether it was created, its row).

    One that exists and is the same is answered as it is; one that differs raises `Conflict("already_exists")`. Raises `Invalid`.
    """
    manifest = one(reading)

    def refuse_change(plan: ApplyPlan) -> None:
        fields = [change.field for result in plan.results if result.document for change in result.changes]
        if fields:
            named = ", ".join(fields[:_FIELDS_SHOWN_MAX])
            raise Conflict("already_exists", f"{manifest.label} exists and differs ({named}); PUT or POST /v1/apply changes it")

    plan = await resources.apply(reading, refuse_change)
    return _created(plan), await written(store, manifest)


async def replace(store: Store, resources: Resources, reading: Reading) -> tuple[bool, ResourceRow]:
    """Create or replace what the one manifest says; -> (whether it was created, its row). Raises `Invalid`, `Conflict`."""
    manifest = one(reading)
    plan = await resources.apply(reading)
    return _created(plan), await written(store, manifest)


def _created(plan: ApplyPlan) -> bool:
    return any(result.action == "created" and result.document for result in plan.results)


async def remove(
    store: Store, find: Callable[[], Awaitable[ResourceRow]], refuse: Callable[[ResourceRow], Awaitable[None]]
) -> None:
    """Delete what `find` finds, unless `refuse` raises for it; both are asked again when somebody changed it meanwhile."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        row = await find()
        await refuse(row)
        try:
            await store.change(Changes(deletes=(DeleteResource(row.namespace, row.kind, row.name, row.generation),)))
        except Conflict:
            if attempt == ATTEMPTS_MAX:
                raise
            continue
        return


def one(reading: Reading) -> Manifest:
    """The only manifest. Raises `Invalid` with every error if it is none."""
    if reading.errors:
        raise invalid(reading.errors)
    (manifest,) = reading.manifests
    return manifest


async def written(store: Store, manifest: Manifest) -> ResourceRow:
    """The row of what was just written. Raises `Conflict` if somebody deleted it at once."""
    row = await store.get_resource(*manifest.identity)
    if row is None:
        raise Conflict("conflict", f"{manifest.label} was deleted in the meantime")
    return row
