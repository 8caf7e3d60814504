"""Making a session: by its own route, and on the way by a message with `?create=true`."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import Field

from talon.domain.errors import FieldError, Invalid, TooLarge
from talon.domain.ids import NAME_MAX, is_name
from talon.domain.session import SessionRow
from talon.gateway.api.lookup import require_agent
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body
from talon.manifest.effective import Effective
from talon.manifest.features import session_feature_errors
from talon.manifest.resolve import unknown_profile
from talon.store.model import NewSession
from talon.store.protocols import Store


class SessionFields(Body):
    """A session to create. Without `id` it gets a fresh one."""

    id: str | None = Field(default=None, description="Its name; `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 characters.")
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any], description="Yours; Talon keeps it and reads nothing from it.")
    features: dict[str, Any] = Field(default_factory=dict[str, Any], description="Parameters that the agent's template declares.")
    profile: str = Field(default="", description="Name of the model profile to begin with; empty: the agent's choice.")


async def create_session(deps: GatewayDeps, namespace: str, agent: str, fields: SessionFields) -> tuple[SessionRow, bool]:
    """-> (session, created). One that exists is returned as it is, whatever `fields` say.

    Raises `NotFound` (namespace, agent), `Invalid` with every wrong field, `TooLarge`.
    """
    _, effective = await require_agent(deps.store, namespace, agent, to_begin=True)
    errors: list[FieldError] = []
    if fields.id is not None and not is_name(fields.id):
        errors.append(
            FieldError("id", f"must be lower case letters, digits and inner hyphens, at most {NAME_MAX} characters", fields.id)
        )
    elif fields.id is not None:
        row = await deps.store.get_session((namespace, agent, fields.id))
        if row is not None:
            return row, False
    errors += session_feature_errors(effective, fields.features)
    errors += profile_errors(effective, fields.profile)
    refuse(errors)
    most = deps.settings.metadata_max
    new = NewSession(
        uid=deps.ids.uuid7(),
        namespace=namespace,
        agent=agent,
        id=fields.id or deps.ids.uuid7(),
        metadata=bounded_json("metadata", fields.metadata, most),
        features=bounded_json("features", fields.features, most),
        profile=fields.profile,
        key_id=namespace,
    )
    return await deps.store.create_session(new)


async def bare_session_revision(store: Store, namespace: str, agent: str) -> int:
    """The agent's newest revision, if a session of it needs no fields. Raises `NotFound` (namespace, agent), `Invalid`."""
    revision, effective = await require_agent(store, namespace, agent, to_begin=True)
    refuse([*session_feature_errors(effective, {})])
    return revision


def profile_errors(effective: Effective, profile: str) -> list[FieldError]:
    """Empty if the agent has that profile, or none is asked for."""
    reason = unknown_profile(effective.profiles, profile) if profile else ""
    return [FieldError("profile", reason, profile)] if reason else []


def refuse(errors: list[FieldError]) -> None:
    """Raise `Invalid` with all of `errors`, if there are any."""
    if errors:
        raise Invalid("invalid", "; ".join(f"{one.field} {one.message}" for one in errors[:3]), tuple(errors))


def bounded_json(field: str, value: dict[str, Any], most: int) -> bytes:
    """`value` as JSON bytes. Raises `TooLarge` over `most` bytes, `Invalid` for what cannot be written as UTF-8 JSON."""
    try:
        data = msgspec.json.encode(value)
    except (RecursionError, ValueError, OverflowError) as exc:
        raise Invalid("invalid", f"{field} cannot be stored: {exc}", (FieldError(field, "cannot be stored"),)) from None
    if len(data) > most:
        raise TooLarge(
            "too_large", f"{field} has {len(data)} bytes, it may have {most}", (FieldError(field, f"at most {most} bytes"),)
        )
    return data
