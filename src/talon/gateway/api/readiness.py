"""Whether a gateway can do its work."""

from __future__ import annotations

import asyncio

import msgspec

from talon.domain.errors import TalonError
from talon.gateway.deps import GatewayDeps

PROBE_S = 2.0


class UnreadyReason(msgspec.Struct, frozen=True):
    """`code`: shutting_down | writer_dead | database_unavailable | storage_full | schema_old."""

    code: str
    detail: str


async def unready_reasons(deps: GatewayDeps) -> list[UnreadyReason]:
    """Why this gateway is not ready; empty when it is."""
    reasons: list[UnreadyReason] = []
    if deps.hub.closing:
        reasons.append(UnreadyReason("shutting_down", "the gateway is shutting down"))
    if not deps.writer.alive:
        reasons.append(UnreadyReason("writer_dead", "the journal writer has stopped; restart the process"))
    try:
        async with asyncio.timeout(PROBE_S):
            await deps.store.ping()
            have, want = await deps.store.schema_version()
    except TimeoutError:
        reasons.append(UnreadyReason("database_unavailable", f"the database did not answer within {PROBE_S:.0f} s"))
    except TalonError as exc:
        reasons.append(UnreadyReason(exc.code, exc.detail))
    else:
        if have < want:
            detail = f"the schema is at version {have}, this program needs {want}: run `talon db migrate`"
            reasons.append(UnreadyReason("schema_old", detail))
    return reasons
