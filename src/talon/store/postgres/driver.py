"""The part of asyncpg that the store uses, with types, and how a connection is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol, cast

import asyncpg

from talon.store.pack import uuid_bytes, uuid_text

CONNECT_TIMEOUT_S = 5
#: A statement that takes longer means that the way to the server is gone: no statement of the store is long.
COMMAND_TIMEOUT_S = 30.0

_SETTINGS = {
    "application_name": "talon",
    # Plans are made once, maybe on empty tables, and kept: without this they would scan sequentially for ever. Hash joins stay.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "default_transaction_isolation": "read committed",
    # The locks of a client that vanished in the middle of a delivery are free again after this many milliseconds.
    "idle_in_transaction_session_timeout": "10000",
}
#: What is read through the wall comes in the order of an index, a page of it: a plan that is made on small tables would sort all.
_WALLED = {"enable_bitmapscan": "off", "enable_sort": "off"}
#: Durable means durable, also where the server's default is not. A stricter setting (remote_apply) is left alone.
_SYNCHRONOUS = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"


class Row(Protocol):
    """One row of an answer: by column, by position, or as a sequence."""

    def __getitem__(self, key: str | int) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """An `asyncpg.Connection`. `fetch` prepares a statement when it is first seen, and keeps it."""

    async def fetch(self, query: str, *args: object) -> list[Row]: ...

    async def fetchrow(self, query: str, *args: object) -> Row | None: ...

    async def fetchval(self, query: str, *args: object) -> Any: ...

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...

    def get_server_pid(self) -> int: ...

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    def terminate(self) -> None: ...

    async def add_listener(self, channel: str, callback: Any) -> None: ...

    def add_termination_listener(self, callback: Any) -> None: ...

    def transaction(self) -> Any: ...

    async def set_type_codec(self, typename: str, *, schema: str, encoder: Any, decoder: Any, format: str) -> None: ...


async def connect(url: str, role: str = "") -> Connection:
    """A new connection, with `role` if one is named: that of the wall. Raises what the driver raises, which
    `talon.store.postgres.errors` sorts.

    A caller who is cancelled meanwhile leaves no half-open connection behind.
    """
    opening = asyncio.ensure_future(_connect(url, role))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_discard)
        raise


def _discard(opening: asyncio.Future[Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


async def _connect(url: str, role: str) -> Connection:
    opened = await asyncpg.connect(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        server_settings=_SETTINGS | ({**_WALLED, "role": role} if role else {}),
        statement_cache_size=200,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,
    )
    connection = cast(Connection, opened)
    try:
        await connection.execute(_SYNCHRONOUS)
        # Ids are text to us.
        await connection.set_type_codec("uuid", schema="pg_catalog", encoder=uuid_bytes, decoder=uuid_text, format="binary")
    except BaseException:
        connection.terminate()
        raise
    return connection


async def disconnect(connection: Connection) -> None:
    """Close in order if the server answers, at once if not."""
    try:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
