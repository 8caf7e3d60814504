"""What a gateway does with resources, one of each: apply, watch, delete, finish."""

from __future__ import annotations

from dataclasses import dataclass

from talon.domain.ids import Ids
from talon.gateway.deleting import Deletions
from talon.gateway.deps import GatewaySettings, JournalWriter
from talon.gateway.finishing import Finisher
from talon.gateway.hub import StreamHub
from talon.gateway.resources import Resources
from talon.gateway.watch import Watches
from talon.store.protocols import Store
from talon.vault.protocol import Sealer


@dataclass(frozen=True, slots=True)
class Plane:
    """The control plane of one gateway. Whatever writes resources tells `watches` which namespaces it wrote to."""

    resources: Resources
    watches: Watches
    deletions: Deletions
    finisher: Finisher


def control_plane(
    store: Store, writer: JournalWriter, hub: StreamHub, ids: Ids, sealer: Sealer, settings: GatewaySettings
) -> Plane:
    """Its parts, put together. Nothing runs yet; `hub.close` ends its watches."""
    watches = Watches(store, hub, settings)
    hub.on_close.append(watches.close)
    return Plane(
        resources=Resources(store, ids, sealer, watches.changed, now_ms=hub.clock.now_ms, ahead_ms=settings.schedules_ahead_ms),
        watches=watches,
        deletions=Deletions(store, watches.changed),
        finisher=Finisher(store, writer, hub, watches, ids),
    )
