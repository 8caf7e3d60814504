"""Finding what a path names, and saying exactly what is missing when it is not there."""

from __future__ import annotations

import re

from talon.domain.errors import Conflict, NotFound
from talon.domain.ids import is_name, is_namespace
from talon.domain.resources import lineage
from talon.domain.session import SessionRow, TurnRow
from talon.manifest.effective import Effective, decode
from talon.store.protocols import Store, Where
from talon.store.sight import looking_up

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def is_id(text: str) -> bool:
    """Whether `text` can be an id that Talon made (a UUID)."""
    return _ID.fullmatch(text) is not None


def no_namespace(namespace: str) -> NotFound:
    """There is none of that name, or not for him who asks."""
    return NotFound("namespace_not_found", f"no namespace {namespace[:80]!r}")


def no_agent(namespace: str, agent: str) -> NotFound:
    """As `no_namespace`, for an agent."""
    return NotFound("agent_not_found", f"no agent {agent[:80]!r} in namespace {namespace!r}")


def no_session(namespace: str, agent: str, session: str) -> NotFound:
    """As `no_namespace`, for a session."""
    return NotFound("session_not_found", f"no session {session[:80]!r} of agent {agent!r} in namespace {namespace!r}")


async def require_namespace(store: Store, namespace: str) -> None:
    """Raise `NotFound("namespace_not_found")` unless it exists."""
    if not is_namespace(namespace) or await store.get_resource("", "Namespace", namespace) is None:
        raise no_namespace(namespace)


async def require_open(store: Store, namespace: str) -> None:
    """Raise `NotFound("namespace_not_found")` unless it exists, `Conflict("terminating")` if it, or one that it lies in, is being
    deleted: nothing new begins there."""
    with looking_up():
        found = await store.get_resources([("", "Namespace", one) for one in lineage(namespace)]) if is_namespace(namespace) else []
    if all(row.name != namespace for row in found):
        raise no_namespace(namespace)
    ending = next((row for row in found if row.deleting_at_ms is not None), None)
    if ending is not None:
        raise Conflict("terminating", f"namespace {ending.name!r} is being deleted; nothing new begins there")


async def require_agent(store: Store, namespace: str, agent: str, *, to_begin: bool = False) -> tuple[int, Effective]:
    """-> (newest revision, effective definition) of an agent. Raises `NotFound`, and if something is `to_begin` with it that must
    not while it is being deleted, `Conflict("terminating")`."""
    row = await store.get_resource(namespace, "Agent", agent) if is_namespace(namespace) and is_name(agent) else None
    if row is None:
        await require_namespace(store, namespace)
        raise no_agent(namespace, agent)
    if to_begin:
        if row.deleting_at_ms is not None:
            raise Conflict("terminating", f"agent {agent!r} in namespace {namespace!r} is being deleted; no session of it begins")
        await require_open(store, namespace)
    revision = await store.get_revision(namespace, agent, row.revision)
    if revision is None:
        raise NotFound("agent_not_found", f"agent {agent!r} in namespace {namespace!r} has no revision that can run")
    return row.revision, decode(revision.effective)


async def missing_session(store: Store, where: Where) -> NotFound:
    """What to raise for a session that is not there: names the first part of `where` that is missing."""
    namespace, agent, session = where
    try:
        await require_agent(store, namespace, agent)
    except NotFound as exc:
        return exc
    return no_session(namespace, agent, session)


async def require_session(store: Store, where: Where) -> SessionRow:
    """The living session of that name. Raises `NotFound` (namespace, agent or session)."""
    namespace, agent, session = where
    if is_namespace(namespace) and is_name(agent) and is_name(session):
        row = await store.get_session(where)
        if row is not None:
            return row
    raise await missing_session(store, where)


async def require_turn(store: Store, session: SessionRow, turn_id: str) -> TurnRow:
    """One turn of a session. Raises `NotFound("turn_not_found")`."""
    turn = await store.get_turn(session.sid, turn_id) if is_id(turn_id) else None
    if turn is None:
        raise NotFound("turn_not_found", f"no turn {turn_id[:80]!r} in session {session.id!r}")
    return turn
