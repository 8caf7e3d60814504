"""Watching resources: what is there, then every change, each once and in order, over restarts of the server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from talon.cli.connection import At
from talon.cli.kinds import Item, Kind, kind_of
from talon.cli.output import as_json, as_yaml, cell, note
from talon.cli.text import columns, styled
from talon.domain import errors as err

if TYPE_CHECKING:
    from talon.cli.client import Client

TYPES = {"added": "green", "modified": "yellow", "deleted": "red"}
#: The server keeps no changes from so long ago, or was set back: what is there is read anew.
LIST_AGAIN = frozenset({"version_gone", "version_ahead"})


@dataclass(frozen=True, slots=True)
class Change:
    """`type` is added | modified | deleted; `object` is as it was written, of a deleted one the last."""

    type: str
    object: Item


Show = Callable[[Sequence[Change]], None]


async def watch(client: Client, path: str, params: Mapping[str, str], show: Show) -> None:
    """Show what the list at `path` has (as added, all at once), then each change as it comes; never ends by itself.

    A change is shown once, also when the connection or the server is lost in between. When the server no longer has the changes
    since then, the list is read again, and what differs is shown as changes: then what happened in between is shown in one.
    """
    known: dict[str, Item] = {}
    while True:
        items, version = await client.listing(path, params)
        there = {item["metadata"]["name"]: item for item in items}
        show(_between(known, there))
        known = there
        query = {**params, "watch": "true", "resource_version": version}
        try:
            async with aclosing(client.events(path, query, version)) as events:
                async for event in events:
                    if event.type in TYPES and _is_new(known, event.type, event.data["object"]):
                        show([Change(event.type, event.data["object"])])
        except err.Refused as error:
            if error.code not in LIST_AGAIN:
                raise
            note("the server no longer has every change since then: reading anew what is there")


def _between(known: Mapping[str, Item], there: Mapping[str, Item]) -> list[Change]:
    """The changes that lead from what was known to what is there."""
    changes = [Change("deleted", item) for name, item in known.items() if _uid(there.get(name)) != _uid(item)]
    for name, item in there.items():
        if _uid(known.get(name)) != _uid(item):
            changes.append(Change("added", item))
        elif _version(known[name]) != _version(item):
            changes.append(Change("modified", item))
    return changes


def _is_new(known: dict[str, Item], kind: str, item: Item) -> bool:
    """Remember a change; False for one that the list, read page by page, has told already."""
    name = item["metadata"]["name"]
    before = known.get(name)
    if before is None and kind == "deleted":
        return False
    if before is not None and _version(item) <= _version(before):
        return False
    if kind == "deleted":
        del known[name]
    else:
        known[name] = item
    return True


def _uid(item: Item | None) -> str:
    return item["metadata"]["uid"] if item else ""


def _version(item: Item) -> int:
    return int(item["metadata"]["resourceVersion"])


async def watch_everywhere(client: Client, at: At, kind: Kind, params: Mapping[str, str], show: Show) -> None:
    """As `watch`, of all namespaces, also of those that come later."""
    running: set[str] = set()

    async def one(namespace: str) -> None:
        with suppress(err.NotFound):  # the namespace is gone
            await watch(client, kind.path(replace(at, namespace=namespace)), params, show)
        running.discard(namespace)

    def seen(changes: Sequence[Change]) -> None:
        for change in changes:
            name = change.object["metadata"]["name"]
            if change.type != "deleted" and name not in running:
                running.add(name)
                group.create_task(one(name))

    try:
        async with asyncio.TaskGroup() as group:
            await watch(client, kind_of("namespaces").path(at), {}, seen)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def show_changes(at: At, kind: Kind, name: str, params: Mapping[str, str], output: str, *, all_namespaces: bool) -> None:
    """Print what is there and what changes, in the form `output`; only of the one called `name`, if given."""
    printer = Printer(kind, output)

    def show(changes: Sequence[Change]) -> None:
        printer.show([change for change in changes if name in ("", change.object["metadata"]["name"])])

    async with at.client() as client:
        if all_namespaces:
            await watch_everywhere(client, at, kind, params, show)
        else:
            await watch(client, kind.path(at), params, show)


@dataclass
class Printer:
    """Writes changes to stdout, each at once. A table's columns are as wide as its first rows need."""

    kind: Kind
    output: str
    widths: list[int] = field(default_factory=list[int])

    def show(self, changes: Sequence[Change]) -> None:
        """Write them."""
        if not changes:
            return
        if self.output in ("table", "wide"):
            self._rows(changes)
        for change in changes:
            if self.output == "json":
                print(as_json({"type": change.type, "object": change.object}))
            elif self.output == "yaml":
                print(f"---\n{as_yaml({'type': change.type, 'object': change.object})}", end="")
            elif self.output == "name":
                print(change.type, self.kind.name_of(change.object))
        sys.stdout.flush()

    def _rows(self, changes: Sequence[Change]) -> None:
        wide = self.output == "wide"
        rows = [[change.type.upper(), *map(cell, self.kind.row(change.object, wide))] for change in changes]
        if not self.widths:
            heads = ["CHANGE", *self.kind.heads(wide)]
            self.widths = [max(columns(head), *(columns(row[i]) for row in rows)) for i, head in enumerate(heads)]
            self.widths[0] = max(map(len, TYPES))
            print(styled(self._line(heads), "bold"))
        for change, row in zip(changes, rows, strict=True):
            print(styled(row[0].ljust(self.widths[0]), TYPES[change.type]) + self._line(row)[self.widths[0] :])

    def _line(self, row: Sequence[Any]) -> str:
        return "  ".join(text + " " * max(w - columns(text), 0) for text, w in zip(row, self.widths, strict=True)).rstrip()
