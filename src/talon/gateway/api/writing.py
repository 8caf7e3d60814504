"""Creating, replacing, changing and deleting one resource by its own route."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from talon.domain.errors import Conflict, FieldError
from talon.gateway.api.collections import Collection, find
from talon.gateway.deps import GatewayDeps
from talon.gateway.resources import ATTEMPTS_MAX
from talon.manifest import kinds
from talon.manifest.document import Document
from talon.manifest.merge import merge_patch
from talon.manifest.plan import invalid
from talon.manifest.read import Expected, Manifest, Reading, read
from talon.manifest.state import ApplyPlan
from talon.store.resources import ResourceRow

_FIELDS_SHOWN_MAX = 5
Check = Callable[[ResourceRow | None], None]


class _Moved(Exception):
    """Somebody else changed the resource between its being looked at and the plan."""


class Writing:
    """Changes resources of one collection, one at a time."""

    def __init__(self, deps: GatewayDeps, collection: Collection) -> None:
        self._deps, self._collection = deps, collection
        self._store, self._resources = deps.store, deps.plane.resources

    async def create(self, reading: Reading) -> tuple[bool, ResourceRow]:
        """Create what the one manifest says; -> (whether it was created, its row).

        One that exists and is the same is answered as it is; one that differs raises `Conflict("already_exists")`. Raises as an
        apply.
        """
        manifest = one(reading)

        def refuse_change(plan: ApplyPlan) -> None:
            if _action(plan) == "changed":
                fields = [change.field for result in plan.results if result.document for change in result.changes]
                named = ", ".join(fields[:_FIELDS_SHOWN_MAX])
                detail = f"{manifest.label} exists and differs ({named}); an apply changes it, or PUT over HTTP"
                raise Conflict("already_exists", detail)

        plan = await self._resources.apply(reading, refuse_change)
        return _action(plan) == "created", await self._written(manifest)

    async def replace(self, reading: Reading, check: Check) -> tuple[bool, ResourceRow]:
        """Create or replace what the one manifest says, if `check` does not refuse what is there now; -> as `create`."""
        manifest = one(reading)

        async def look() -> ResourceRow | None:
            return await find(self._store, self._collection, manifest.namespace, manifest.name)

        return await self._guarded(look, lambda _: reading, check)

    async def patch(self, require: Callable[[], Awaitable[ResourceRow]], patch: Document, check: Check) -> ResourceRow:
        """Change fields of what `require` finds (RFC 7396), if `check` does not refuse it as it is now; -> its row."""

        def reading(row: ResourceRow | None) -> Reading:
            if row is None:
                raise AssertionError("`require` raises for one that is not there")
            return patched(row, patch)

        return (await self._guarded(require, reading, check))[1]

    async def _guarded(
        self, look: Callable[[], Awaitable[ResourceRow | None]], wanted: Callable[[ResourceRow | None], Reading], check: Check
    ) -> tuple[bool, ResourceRow]:
        """Write `wanted` over what `look` finds and `check` does not refuse; all of it again when others were in between."""
        for attempt in itertools.count(1):
            row = await look()
            check(row)
            reading = wanted(row)
            manifest = one(reading)
            try:
                plan = await self._resources.apply(reading, lambda plan, row=row, of=manifest: _same(plan, of, row))
            except _Moved:
                now = None
            else:
                now = await self._written(manifest)
                # What is wanted may be there because another one wrote the same in between: then `check` has not seen that.
                if _action(plan) != "unchanged" or (row is not None and now.version == row.version):
                    return _action(plan) == "created", now
            if attempt == ATTEMPTS_MAX:
                raise Conflict("conflict", f"{manifest.label} keeps being changed by others; try again")
        raise AssertionError("the last attempt returns or raises")

    async def delete(self, require: Callable[[], Awaitable[ResourceRow]], check: Check, *, cascade: bool) -> ResourceRow | None:
        """Delete what `require` finds; -> its row if it could only be marked, and goes later. Raises `Conflict("in_use")`."""

        uid = ""

        async def rows() -> list[ResourceRow]:
            nonlocal uid
            row = await require()
            uid = row.uid
            return [row]

        deletion = await self._deps.plane.deletions.delete(rows, check, cascade=cascade)
        if deletion.marked:
            self._deps.plane.finisher.wake()
        return next((row for row in deletion.marked if row.uid == uid), None)

    async def _written(self, manifest: Manifest) -> ResourceRow:
        """The row of what was just written. Raises `Conflict` if somebody deleted it at once."""
        row = await self._store.get_resource(*manifest.identity)
        if row is None:
            raise Conflict("conflict", f"{manifest.label} was deleted in the meantime")
        return row


def one(reading: Reading) -> Manifest:
    """The only manifest. Raises `Invalid` with every error if it is none."""
    if reading.errors:
        raise invalid(reading.errors)
    (manifest,) = reading.manifests
    return manifest


def _action(plan: ApplyPlan) -> str:
    """What becomes of the one document."""
    return next(result.action for result in plan.results if result.document)


def _same(plan: ApplyPlan, manifest: Manifest, row: ResourceRow | None) -> None:
    """Raise `_Moved` unless the plan starts from `row` as it was looked at."""
    generation = 0 if row is None else row.generation
    if any((put.namespace, put.kind, put.name) == manifest.identity and put.if_generation != generation for put in plan.puts):
        raise _Moved


def patched(row: ResourceRow, patch: Document) -> Reading:
    """The manifest of `row` with `patch` put over it. Raises `Invalid` for one that would take a secret's value away: that is kept
    beside the manifest, which cannot say so."""
    spec: Any = patch.data.get("spec")
    if row.kind == "Secret" and isinstance(spec, dict) and cast(dict[str, Any], spec).get("value", "") is None:
        message = "null does not take a value away: give another one, or delete the secret"
        raise invalid([FieldError("spec.value", message)])
    merged = merge_patch(msgspec.json.decode(row.body), patch.data)
    expected = Expected(_kind(row.kind), row.namespace, row.name)
    return read([Document(1, merged)], expected)


def _kind(kind: str) -> kinds.Kind:
    return next(known for known in kinds.KINDS if known == kind)
