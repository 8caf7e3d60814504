"""All parts of the store together."""

from __future__ import annotations

from urllib.parse import urlsplit

from talon.domain.errors import Invalid
from talon.domain.ids import Ids
from talon.store.postgres.access import PostgresAccess
from talon.store.postgres.commit import PostgresCommits
from talon.store.postgres.connections import PATIENCE_S, Database
from talon.store.postgres.deliver import PostgresDeliveries
from talon.store.postgres.queue import PostgresQueue
from talon.store.postgres.reads import PostgresReads
from talon.store.postgres.resources import PostgresResources
from talon.store.postgres.resources_change import PostgresChanges
from talon.store.postgres.resources_secrets import PostgresSecrets
from talon.store.postgres.resources_watch import PostgresWatches
from talon.store.postgres.schedules import PostgresSchedules
from talon.store.postgres.schema import PostgresSchema
from talon.store.postgres.sessions import PostgresSessions
from talon.store.postgres.shared import PostgresShared
from talon.store.postgres.wall import PostgresWall


class PostgresStore(
    PostgresCommits,
    PostgresDeliveries,
    PostgresReads,
    PostgresQueue,
    PostgresSessions,
    PostgresResources,
    PostgresChanges,
    PostgresWatches,
    PostgresSecrets,
    PostgresSchedules,
    PostgresAccess,
    PostgresShared,
    PostgresWall,
    PostgresSchema,
):
    """A `talon.store.protocols.Store`. Belongs to the event loop in which it is first used."""

    def __init__(self, url: str, ids: Ids, *, notify: bool, patience_s: float) -> None:
        self._db = Database(url, patience_s)
        self._ids = ids
        self._notify = self._rings = notify
        self._covered = set()

    def is_ours(self, pid: int) -> bool:
        """Whether the server's process `pid` rings for commits and deliveries of this store, whose answers tell the same."""
        return self._db.journal.is_backend(pid) or self._db.inbox.is_backend(pid)

    def heard(self, by_others: bool) -> None:
        """Whether other processes listen at all. While none does, commits and deliveries ring no bell: to this process their
        answers tell the same, and a NOTIFY costs a lone commit a third more."""
        self._rings = self._notify and by_others


async def open_store(url: str, ids: Ids, notify: bool = True, patience_s: float = PATIENCE_S) -> PostgresStore:
    """A store on the database at `url` (`postgresql://…`); migrates nothing.

    With `notify` every change rings the bell of `talon.domain.bell` inside its own transaction (but see `PostgresStore.heard`).
    `ids` mark deliveries, so that one whose answer was lost can be found. A commit or a delivery tries for `patience_s` to reach
    a database that went away.
    Raises `Invalid` for a URL that cannot be read, `Unavailable` when the database cannot be reached.
    """
    try:
        readable = urlsplit(url).scheme in ("postgresql", "postgres") and urlsplit(url).port != 0
    except ValueError:
        readable = False
    if not readable:
        # The URL is not shown: it may hold a password.
        raise Invalid("invalid", "the database URL cannot be read; write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    store = PostgresStore(url, ids, notify=notify, patience_s=patience_s)
    try:
        await store.schema_version()
    except ValueError as error:
        # An option that the driver does not take; its message names the option.
        raise Invalid("invalid", f"the database URL cannot be used: {error}") from None
    return store
