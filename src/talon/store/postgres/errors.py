"""What the driver raises, sorted: gone (try again on another connection), unavailable, or a mistake of ours."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg

from talon.domain.errors import Unavailable

#: The server or the way to it is gone, or it cannot take more for the moment: another connection may do better.
GONE = (
    OSError,  # refused, reset, no socket, no route, time-out
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections for the moment
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,  # too many connections, no memory (a full disk is looked at before)
    asyncpg.ReadOnlySQLTransactionError,  # a standby; after a fail-over the same address may be the primary
)
#: The server answers, and will not let us in however often we try.
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, asyncpg.InsufficientPrivilegeError)

#: What a store method lets through as `Unavailable`.
UNAVAILABLE = (*GONE, *REFUSED, asyncpg.DiskFullError)


def is_gone(error: BaseException) -> bool:
    """Whether trying again on a new connection makes sense."""
    return isinstance(error, GONE) and not isinstance(error, asyncpg.DiskFullError)


def unavailable(error: BaseException, place: str) -> Unavailable:
    """The error for people. `place` says which database, without its password."""
    if isinstance(error, asyncpg.DiskFullError):
        return Unavailable("storage_full", f"the disk of the database {place} is full; make room there", retry_after_s=5.0)
    said = str(error) or type(error).__name__
    return Unavailable(
        "database_unavailable",
        f"the database {place} cannot be used now ({said}); is it running, and is its address right?",
        retry_after_s=1.0,
    )


def place(url: str) -> str:
    """Host, port and database of a URL, for messages: never user or password, nor a part of a URL that cannot be read."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or next((p[5:] for p in parts.query.split("&") if p.startswith("host=")), "localhost")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "of the configured address"
    return f"{host}{port}{parts.path}"
