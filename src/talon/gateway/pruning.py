"""Pruning: what an apply deletes because no manifest names it any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from talon.domain.errors import Conflict, FieldError
from talon.domain.resources import Identity, Requirement
from talon.gateway.deleting import CASCADE_MAX, Deletions, identity
from talon.gateway.resources import Pruned
from talon.manifest.kinds import KINDS
from talon.manifest.read import Reading
from talon.manifest.state import ApplyPlan, Result
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

#: Namespaces are deleted by name only, and sessions are no resources.
PRUNED = tuple(kind for kind in KINDS if kind not in ("Namespace", "Session"))
_PAGE = 500


class Pruning:
    """Finds what is to be pruned in one store."""

    def __init__(self, store: Store, deletions: Deletions) -> None:
        self._store, self._deletions = store, deletions

    def of(self, reading: Reading, selector: Sequence[Requirement]) -> Callable[[ApplyPlan], Awaitable[Pruned]]:
        """What an apply of `reading` prunes: of the namespaces that its manifests are in, what `selector` matches and they do not
        name. What others use (not counting what is pruned with it) is refused: `Conflict("in_use")`."""

        async def prune(plan: ApplyPlan) -> Pruned:
            namespaces = sorted({manifest.namespace for manifest in reading.manifests if manifest.namespace})
            named = {manifest.identity for manifest in reading.manifests}
            rows = [row for one in namespaces for row in await self._matching(one, selector, named)]
            deletion = await self._deletions.plan(rows, cascade=False, applied=plan.refs)
            results = [Result(0, row.kind, row.namespace, row.name, "deleted", cause="no manifest names it") for row in rows]
            return Pruned(deletion.changes, tuple(results))

        return prune

    async def _matching(self, namespace: str, selector: Sequence[Requirement], named: set[Identity]) -> list[ResourceRow]:
        found: list[ResourceRow] = []
        for kind in PRUNED:
            cursor = ""
            while True:
                rows, cursor = await self._store.list_resources(namespace, kind, cursor, _PAGE, selector)
                found += [row for row in rows if identity(row) not in named and row.deleting_at_ms is None]
                if len(found) > CASCADE_MAX:
                    message = (
                        f"more than {CASCADE_MAX} resources would be pruned from namespace {namespace!r}, the most of one apply"
                    )
                    raise Conflict("in_use", message, (FieldError("label_selector", message),))
                if not cursor:
                    break
        return found
