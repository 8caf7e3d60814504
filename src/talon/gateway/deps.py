"""What the gateway is given by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from talon.access.protocol import Access
from talon.domain.entries import NewEntry
from talon.domain.ids import Clock, Ids
from talon.domain.inbox import Message, Operation, Receipt
from talon.domain.session import SessionRow
from talon.store.protocols import Store, Where
from talon.store.sight import NO_WALL, Wall
from talon.vault.protocol import Sealer

if TYPE_CHECKING:
    from talon.gateway.accesslog import Told
    from talon.gateway.holding import Holding
    from talon.gateway.hub import StreamHub
    from talon.gateway.plane import Plane

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits and addresses. Sizes are bytes; units stand last in each name.

    `allowed_hosts` are host names (no port) that a `Host` header may carry beside loopback names and `host` itself; `*` allows all.
    `allowed_origins` (`https://ui.example.com`) may change state from another site's pages; the gateway's own page always may.
    `schedules_ahead_ms`: so long before it is due somebody else is told of a schedule's occurrence (0: nobody is).
    """

    host: str = "127.0.0.1"
    port: int = 19789
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    body_max: int = 8 * MIB
    message_max: int = 1 * MIB
    image_max: int = 3840 * KIB
    images_max: int = 8
    metadata_max: int = 64 * KIB
    queue_max: int = 100
    heartbeat_s: float = 15.0
    streams_max: int = 4096
    headers_max: int = 64 * KIB
    page_max: int = 500
    connections_max: int = 20_000
    principal_streams_max: int = 4096
    principal_requests_per_s: float = 0.0
    principal_requests_burst: int = 2000
    browser_session_max_s: int = 28_800
    stream_buffer_max: int = 1 * MIB
    poll_s: float = 1.0
    schedules_ahead_ms: int = 0


class JournalWriter(Protocol):
    """The part of the journal writer that a gateway uses: group-committed inbox operations."""

    @property
    def alive(self) -> bool:
        """False once the writer has died: nothing can be accepted any more."""
        ...

    async def deliver(self, op: Operation) -> Receipt:
        """Commit `op` with whatever else is waiting; returns when it is durable. Raises what `Journal.deliver` answers with."""
        ...


class Offer(NamedTuple):
    """A free worker slot of this process: the worker's id (`name/boot`) and what makes the first entries of a turn."""

    worker: str
    start: Callable[[Message, SessionRow, int], tuple[NewEntry, ...] | None]


@dataclass(frozen=True, slots=True)
class GatewayDeps:
    """Everything a gateway needs.

    `offer(where)` gives a free slot of a worker in this process, or None; then exactly one of `started(receipt)` (the receipt's
    `claimed` is set: run it) and `declined(offer)` (the slot was not taken) is called. Where the `wall` of the store stands, what
    is read for a caller is read as he sees it.
    """

    store: Store
    writer: JournalWriter
    hub: StreamHub
    clock: Clock
    ids: Ids
    sealer: Sealer
    plane: Plane
    access: Access
    holding: Holding
    told: Told
    version: str
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    offer: Callable[[Where], Awaitable[Offer | None]] | None = None
    started: Callable[[Receipt], None] | None = None
    declined: Callable[[Offer], None] | None = None
    wall: Wall = NO_WALL
