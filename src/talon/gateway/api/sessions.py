"""Making a session by itself, and on the way by a message; changing and deleting one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from talon.domain.errors import FieldError, Invalid, NotFound, TooLarge
from talon.domain.ids import NAME_MAX, is_name
from talon.domain.inbox import DeleteSession
from talon.domain.session import SessionConfig, SessionRow
from talon.gateway.api.asked import Asked
from talon.gateway.api.lookup import missing_session, require_agent, require_session
from talon.gateway.deps import GatewayDeps
from talon.gateway.wakeups import forget
from talon.manifest.effective import Effective
from talon.manifest.features import session_feature_errors
from talon.manifest.resolve import unknown_profile
from talon.store.model import NewSession, SessionPatch
from talon.store.protocols import Store, Where


class SessionWanted(msgspec.Struct, frozen=True):
    """A session to create. Without `id` it gets a fresh one. `metadata` is the client's own; `features` are parameters that the
    agent's template declares; `profile` is the model profile to begin with, "" for the agent's choice; `config` what the
    session wants otherwise than its agent says."""

    id: str | None = None
    metadata: dict[str, Any] = {}
    features: dict[str, Any] = {}
    profile: str = ""
    config: SessionConfig = SessionConfig()


async def create_session(deps: GatewayDeps, namespace: str, agent: str, fields: SessionWanted) -> tuple[SessionRow, bool]:
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
        config=msgspec.json.encode(fields.config),
        key_id=namespace,
    )
    return await deps.store.create_session(new)


def id_of_key(asked: Asked, namespace: str, agent: str) -> str | None:
    """A session id that follows from the idempotency key, so that a repeated request finds the session it made before; None
    without a key. Raises `Invalid` for a key that is none."""
    if asked.key is None:
        return None
    asked.check_key()
    digest = hashlib.sha256(f"{namespace}\0{agent}\0{asked.key}".encode()).hexdigest()
    # The layout of a UUID whose bits are an application's own (version 8, RFC 9562).
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"


async def bare_session_revision(store: Store, namespace: str, agent: str) -> int:
    """The agent's newest revision, if a session of it needs no fields. Raises `NotFound` (namespace, agent), `Invalid`."""
    revision, effective = await require_agent(store, namespace, agent, to_begin=True)
    refuse([*session_feature_errors(effective, {})])
    return revision


class SessionUpdate(msgspec.Struct, frozen=True):
    """New values of a session's own fields; None leaves one as it is."""

    metadata: dict[str, Any] | None = None
    features: dict[str, Any] | None = None
    profile: str | None = None
    config: SessionConfig | None = None


async def change_session(deps: GatewayDeps, where: Where, fields: SessionUpdate) -> SessionRow:
    """The session with new values, checked against its agent as it is now. Raises `NotFound`, `Invalid`, `TooLarge`."""
    row = await require_session(deps.store, where)
    if fields == SessionUpdate():
        raise Invalid("invalid", "nothing to change: give metadata, features, profile or config")
    _, effective = await require_agent(deps.store, row.namespace, row.agent)
    errors = list(session_feature_errors(effective, fields.features)) if fields.features is not None else []
    refuse(errors + profile_errors(effective, fields.profile or ""))
    most = deps.settings.metadata_max
    patch = SessionPatch(
        metadata=None if fields.metadata is None else bounded_json("metadata", fields.metadata, most),
        features=None if fields.features is None else bounded_json("features", fields.features, most),
        profile=fields.profile,
        config=None if fields.config is None else msgspec.json.encode(fields.config),
    )
    changed = await deps.store.patch_session(where, patch)
    if changed is None:
        raise await missing_session(deps.store, where)
    return changed


async def delete_session(deps: GatewayDeps, where: Where, asked: Asked) -> None:
    """Cancel its turns and delete it, with the wakeups that it made for itself; its journal is kept. Raises `NotFound`."""
    await require_session(deps.store, where)
    await forget(deps.store, deps.plane.deletions, where)
    try:
        receipt = await deps.writer.deliver(DeleteSession(where, by=asked.who.id, traceparent=asked.traceparent))
    except NotFound:
        raise await missing_session(deps.store, where) from None
    deps.hub.deleted(receipt.sid)
    await forget(deps.store, deps.plane.deletions, where)  # its turn may have made one meanwhile


async def list_sessions(deps: GatewayDeps, namespace: str, agent: str, cursor: str, limit: int) -> tuple[Sequence[SessionRow], str]:
    """-> (sessions of an agent, newest first; the cursor behind them, "" at the end). Raises `NotFound`, `Invalid`."""
    await require_agent(deps.store, namespace, agent)
    return await deps.store.list_sessions(namespace, agent, cursor, limit)


def profile_errors(effective: Effective, profile: str) -> list[FieldError]:
    """Empty if the agent has that profile, or none is asked for."""
    reason = unknown_profile(effective.profiles, profile) if profile else ""
    return [FieldError("profile", reason, profile)] if reason else []


def refuse(errors: list[FieldError]) -> None:
    """Raise `Invalid` with all of `errors`, if there are any."""
    if errors:
        raise Invalid("invalid", "; ".join(f"{one.field}: {one.message}" for one in errors[:3]), tuple(errors))


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
