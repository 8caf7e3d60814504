"""What credentials and the access log cost (K11): the same among twenty thousand as among ten, on both stores."""

from __future__ import annotations

import re
import sqlite3
from typing import Any, cast

import asyncpg
import msgspec
import pytest

from support.postgres import PostgresServer, database_of
from talon.store.migrations import migrations
from talon.store.postgres import access as postgres_sql
from talon.store.postgres.driver import Connection
from talon.store.sqlite import access as sqlite_sql

STATEMENTS = {
    name: text
    for name, text in {**vars(sqlite_sql), **{f"LOG_LIST[{by}]": sql for by, sql in sqlite_sql.LOG_LIST.items()}}.items()
    if name[0].isupper() and isinstance(text, str) and not name.endswith(("_MS", "_MAX"))
}
#: Ordered by the primary key and limited: the oldest ones only.
IN_ORDER = {"LOG_LIST[]", "LOG_FORGET"}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_statement_of_sqlite_reads_a_whole_table(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    for migration in migrations("sqlite"):
        connection.executescript(migration.sql)
    numbered = [int(number) for number in re.findall(r"\?(\d+)", STATEMENTS[name])]
    count = max(numbered) if numbered else STATEMENTS[name].count("?")
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name]}", [None] * count)]
    connection.close()
    scans = [step for step in plan if re.match(r"SCAN (?!CONSTANT ROW)", step)]
    assert not scans or name in IN_ORDER or "access_log_refused" in "".join(scans), plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


FILL = """
    INSERT INTO credentials (id, kind, digest, name, grants, agent, session, parent, created_by, created_at_ms, expires_at_ms,
        revoked_at_ms, revoked_version, places)
    SELECT 'c' || n, CASE WHEN n % 2 = 0 THEN 'key' ELSE 'token' END, '', '', '', '', '', 'c' || n / 3, '', 0,
        CASE WHEN n > 3 THEN 1000000000000000 END, CASE WHEN n % 5 = 4 THEN 1000000000000000 END, CASE WHEN n % 5 = 4 THEN n END,
        CASE WHEN n < 8 THEN ARRAY['acme'] WHEN n % 4 = 0 THEN ARRAY['beta'] ELSE ARRAY['acme-two', 'beta'] END
    FROM generate_series({start}, {rows}) n;
    UPDATE access_state SET version = {rows};
    INSERT INTO access_log (at_ms, who, verb, operation, namespace, object, outcome, request_id, address, via)
    SELECT 1000000000000000, 'key:' || n % 7, 'v', 'o', 'ns' || n % 7, 'x',
        CASE WHEN n % 50 = 3 THEN 'forbidden' ELSE 'ok' END, 'r', '', 'http' FROM generate_series({start}, {rows}) n;"""
FEW = 5
#: The version above which there is nothing new in either filling.
LAST = 20_000
USED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "get": (postgres_sql.GET, ("c3",)),
    "list": (postgres_sql.LIST, ("key", 2**62, FEW)),
    "list within": (postgres_sql.LIST_WITHIN, ("key", 2**62, FEW, ["acme"])),
    "list within others": (postgres_sql.LIST_WITHIN, ("key", 2**62, FEW, ["beta", "gamma"])),
    "a key that is alive": (postgres_sql.KEY_ALIVE, ()),
    "revoke": (postgres_sql.REVOKE, ("c3", 1)),
    "revoke what was minted": (postgres_sql.REVOKE_MINTED, (["c3"], 1)),
    "revoked after": (postgres_sql.REVOKED_AFTER, (LAST,)),
    "touch": (postgres_sql.TOUCH, (["c2", "c3"],)),
    "forget": (postgres_sql.FORGET, (0, 10)),
    "log": (postgres_sql.LOG_LIST[""], (2**62, FEW)),
    "log of one": (postgres_sql.LOG_LIST["who"], (2**62, FEW, "key:3")),
    "log of a namespace": (postgres_sql.LOG_LIST["namespace"], (2**62, FEW, "ns3")),
    "log of refusals": (postgres_sql.LOG_LIST["refused"], (2**62, FEW)),
    "forget the log": (postgres_sql.LOG_FORGET, (0, 10)),
}


def literal(value: Any) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]::text[]"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return f"'{value}'" if isinstance(value, str) else str(value)


async def test_no_statement_of_postgres_costs_more_among_many(postgres: PostgresServer, database_url: str) -> None:
    """By pages read, under plans that were made when the tables were empty, and under plans that know better."""
    database = database_of(database_url)
    settings = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "jit": "off"}
    opened = await asyncpg.connect(database_url, server_settings=settings)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    connection = cast(Connection, opened)
    calls = [f"EXECUTE s{number} ({', '.join(map(literal, arguments))})" for number, (_, arguments) in enumerate(USED.values())]
    calls = [call.removesuffix(" ()") for call in calls]

    async def pages() -> list[int]:
        found: list[int] = []
        for call in calls:
            await connection.execute("BEGIN")
            plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}")
            await connection.execute("ROLLBACK")
            root = msgspec.json.decode(plan)[0]["Plan"]
            found.append(root["Shared Hit Blocks"] + root["Shared Read Blocks"])
        return found

    try:
        for number, (statement, _) in enumerate(USED.values()):
            await connection.execute(f"PREPARE s{number} AS {statement}")
        await pages()
        postgres.sql(FILL.format(start=1, rows=10), database)
        await pages()
        few = await pages()
        postgres.sql(FILL.format(start=11, rows=LAST), database)
        await pages()
        many = await pages()
        postgres.sql("VACUUM ANALYZE", database)
        await pages()
        analyzed = await pages()
    finally:
        await connection.close()
    table = dict(zip(USED, zip(few, many, analyzed, strict=True), strict=True))
    print(table)
    assert {name: row for name, row in table.items() if max(row[1:]) > 2 * row[0] + 16} == {}
