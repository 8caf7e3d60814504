"""What resources cost on SQLite (K11): the same steps of its machine among twenty thousand as among ten."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from talon.cli.system import SystemClock
from talon.domain.errors import Conflict
from talon.store.conformance import support as s
from talon.store.conformance.resources import put
from talon.store.migrations import migrations
from talon.store.model import NewSession
from talon.store.resources import Changes, DeleteResource, Ref, Requirement, SameUsers, Unchanged
from talon.store.sqlite import SqliteStore, resources_sql
from talon.store.sqlite.connection import Database

BASE = Ref("AgentTemplate", "base")
MANY = 20_000
STATEMENTS = {name: text for name, text in vars(resources_sql).items() if name[0].isupper() and isinstance(text, str)}
#: Reads the counters of all namespaces, when changes are forgotten.
READ_WHOLE = {"FORGET_BY_NUMBER"}
#: Groups what is forgotten anyway.
SORTED = {"FORGET_BY_AGE"}


@pytest.mark.parametrize("name", sorted(set(STATEMENTS) - READ_WHOLE))
def test_no_statement_reads_a_whole_table(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(migrations("sqlite")[0].sql)
    numbered = [int(number) for number in re.findall(r"\?(\d+)", STATEMENTS[name])]
    count = max(numbered) if numbered else STATEMENTS[name].count("?")
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name]}", [None] * count)]
    connection.close()
    assert not [step for step in plan if re.match(r"SCAN (?!CONSTANT ROW)", step)], plan
    assert name in SORTED or not [step for step in plan if "TEMP B-TREE" in step], plan


async def test_nothing_costs_more_among_twenty_thousand_than_among_ten(tmp_path: Path) -> None:
    database = Database(tmp_path / "talon.db", SystemClock())
    store = SqliteStore(database)
    await store.migrate()
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    async def listen(connections: int) -> None:
        """Count the steps of every connection that the store has."""

        def begin(connection: sqlite3.Connection, *_: Any) -> None:
            connection.set_progress_handler(count, 1)

        await database.write(begin)
        for _ in range(connections):
            await database.read(begin)

    async def fill(start: int, end: int) -> None:
        for first in range(start, end, 1_000):
            block = range(first, min(first + 1_000, end))
            puts = [
                put(
                    f"a{n:05}",
                    labels={"app": f"x{n % (end // 5)}", "env": "prod", "of": "few" if n < 5 else "many"},
                    refs=(BASE,) if n < 5 else (Ref("AgentTemplate", f"t{n}"),),
                )
                for n in block
            ]
            puts += [put(f"s{n:05}", kind="Secret", sealed=b"x", key_id="k") for n in block]
            await store.change(Changes(tuple(puts)))

    users = tuple(("acme", "Agent", f"a{n:05}", 1) for n in range(5))

    async def change() -> None:
        """Everything that a change may ask and do, refused at last."""
        refused = Changes(
            puts=(put("a00003", 1, b"2", labels={"app": "x1"}, refs=(BASE,), effective=b"{}", digest="d"), put("new")),
            deletes=(DeleteResource("acme", "Secret", "s00003", 1), DeleteResource("", "Namespace", "acme", 1)),
            sessions=(),
            unchanged=(Unchanged("acme", "Agent", "a00004", 1),),
            same_users=(SameUsers("acme", BASE, users),),
        )
        with pytest.raises(Conflict):
            await store.change(refused)

    async def session() -> None:
        await store.create_session(NewSession(s.fresh_id(), "acme", "a00003", s.fresh_id()))

    by = (Requirement("app", "in", ("x1",)),)
    rare = (Requirement("env", "in", ("prod",)), Requirement("of", "in", ("few",)))
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: store.get_resource("acme", "Agent", "a00003"),
        "list": lambda: store.list_resources("acme", "Agent", "", 5),
        "list everywhere": lambda: store.list_resources("*", "Agent", "", 5),
        "by label": lambda: store.list_resources("acme", "Agent", "", 3, by),
        "by two labels": lambda: store.list_resources("acme", "Agent", "", 3, rare),
        "list all": lambda: store.list_all("acme", "", 5),
        "children": lambda: store.list_children("acme", 5),
        "deleting": lambda: store.list_deleting(5),
        "users": lambda: store.users("acme", BASE, "", 10),
        "refs": lambda: store.refs_of([("acme", "Agent", "a00003")]),
        "versions": lambda: store.versions(["acme"]),
        "events": lambda: store.read_events("acme", 3, 5),
        "events of a kind": lambda: store.read_events("acme", 3, 5, "Agent"),
        "sealed": lambda: store.list_sealed("other", ("", ""), 5),
        "change": change,
        "session": session,
    }

    async def cost() -> dict[str, int]:
        nonlocal steps
        found: dict[str, int] = {}
        for name, ask in asked.items():
            steps = 0
            await ask()
            found[name] = steps
        return found

    await s.ensure(store, ("", "Namespace", "acme"))
    await fill(0, 10)
    await listen(8)
    few = await cost()
    await fill(10, MANY)
    many = await cost()
    await store.close()
    table = {name: (few[name], many[name]) for name in asked}
    print(table)
    assert min(few.values()) > 0
    assert {name: row for name, row in table.items() if row[1] > 1.5 * row[0] + 20} == {}
