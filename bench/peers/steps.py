"""Peer `steps`: the loop with one insert and commit per step (message, model, tool, model, answer) and nothing else.

No queue, no lease, no fence, no recovery, no stream that can be resumed: the least that can call itself durable. On PostgreSQL with
asyncpg and its default pool, on SQLite (WAL, synchronous FULL) with one writer thread.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import loop
from front import Message, Model, Turn, arguments, serve

OPTIONS = arguments()
COLUMNS = "session text NOT NULL, kind text NOT NULL, body text NOT NULL"
CREATE_POSTGRES = f"CREATE TABLE IF NOT EXISTS steps (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {COLUMNS})"
CREATE_SQLITE = f"CREATE TABLE IF NOT EXISTS steps (id integer PRIMARY KEY, {COLUMNS})"
Insert = Callable[[str, str, str], Awaitable[object]]


@asynccontextmanager
async def postgres() -> AsyncGenerator[Insert]:
    """Inserts, each a transaction of its own."""
    import asyncpg

    async with asyncpg.create_pool(OPTIONS.database) as pool:
        await pool.execute(CREATE_POSTGRES)
        statement = "INSERT INTO steps (session, kind, body) VALUES ($1, $2, $3)"
        yield lambda *row: pool.execute(statement, *row)


@asynccontextmanager
async def sqlite() -> AsyncGenerator[Insert]:
    """Inserts, each committed to disk on the writer's thread."""
    with ThreadPoolExecutor(1) as thread:
        running = asyncio.get_running_loop()

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(OPTIONS.database, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(CREATE_SQLITE)
            return connection

        connection = await running.run_in_executor(thread, connect)
        statement = "INSERT INTO steps (session, kind, body) VALUES (?, ?, ?)"
        yield lambda *row: running.run_in_executor(thread, connection.execute, statement, row)


@asynccontextmanager
async def opened() -> AsyncGenerator[Callable[[Turn], Awaitable[None]]]:
    """The model client and the table."""
    model = Model(OPTIONS.model_url)
    async with postgres() if OPTIONS.database.startswith("postgresql://") else sqlite() as insert:

        async def run(turn: Turn) -> None:
            async def save(kind: str, message: Message) -> None:
                await insert(turn.session, kind, json.dumps(message))

            await loop.run(turn, model, save)

        yield run
    await model.close()


if __name__ == "__main__":
    serve(opened)
