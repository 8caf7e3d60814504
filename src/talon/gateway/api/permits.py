"""Whether somebody may do something, asked before anything is looked up. Pure: `talon.access.roles` decides, this words it.

What he does not see answers in the words in which the look would say that it is not there (decision 0010).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from talon.access.roles import ALLOWED, CLIENT, EVERYWHERE, Grant, Principal, Verb, covers, may, roots, sees
from talon.domain.errors import Forbidden, TalonError
from talon.gateway.api.lookup import no_agent, no_namespace, no_session
from talon.gateway.api.table import Row
from talon.manifest.read import Reading
from talon.manifest.state import ApplyPlan
from talon.store.sight import Sight

#: What writing a manifest of a kind asks for.
_WRITING: dict[str, Verb] = {"Namespace": "namespaces.write", "Secret": "secrets.write", "Session": "sessions.write"}
#: Who has none of these writes no manifest at all, whatever it says.
_WRITES: tuple[Verb, ...] = ("resources.write", *_WRITING.values())


class At(NamedTuple):
    """What an operation is done to, as the request names it; "" for what it does not name."""

    namespace: str = ""
    agent: str = ""
    session: str = ""


def allow(who: Principal, row: Row, at: At) -> None:
    """Raise what `who` is told if he may not do the operation of `row` to `at`: `NotFound` or `Forbidden`."""
    error = refusal(who, row, at)
    if error is not None:
        raise error


def refusal(who: Principal, row: Row, at: At) -> TalonError | None:
    """What `allow` raises; None if he may."""
    verb = row.verb
    if verb is None:
        return None if row.place != "documents" or any(_anywhere(who, one) for one in _WRITES) else forbidden("resources.write", "")
    if row.place in ("anywhere", "visible"):
        return None if _anywhere(who, verb) else forbidden(verb, "")
    if row.place == "installation":
        return None if may(who, verb, "") else forbidden(verb, "")
    namespace, agent, session = at
    if not sees(who, namespace):
        return no_namespace(namespace)
    if row.place == "approval" and who.scoped:
        return None if verb in CLIENT and _has(who, verb, namespace) else forbidden(verb, namespace)
    if row.place in ("namespace", "approval"):
        agent = session = ""
    elif who.scoped:
        if agent != who.agent:
            return no_agent(namespace, agent)
        if row.place == "session" and who.session not in ("", session):
            return no_session(namespace, agent, session)
    return None if may(who, verb, namespace, agent, session) else forbidden(verb, namespace)


def own(who: Principal, at: At) -> bool:
    """Whether an approval of that session exists for him, who may do this in its namespace: only a client's token is narrower."""
    return not who.scoped or (at.agent == who.agent and who.session in ("", at.session))


def allow_documents(who: Principal, reading: Reading) -> None:
    """Raise for the first manifest that `who` may not write. Before anything of any of them is looked up."""
    for manifest in reading.manifests:
        _allow_write(who, manifest.kind, manifest.namespace, manifest.name)


def allow_plan(who: Principal, plan: ApplyPlan) -> None:
    """Raise for a plan that does more than its documents say and `who` may: makes a namespace on the way, follows, prunes."""
    for put in plan.puts:
        _allow_write(who, put.kind, put.namespace, put.name)
    for result in plan.results:
        if result.action == "deleted":
            _allow_write(who, result.kind, result.namespace, result.name)


def _allow_write(who: Principal, kind: str, namespace: str, name: str) -> None:
    namespace = name if kind == "Namespace" else namespace
    verb = _WRITING.get(kind, "resources.write")
    if not sees(who, namespace):
        raise no_namespace(namespace)
    if who.scoped or not may(who, verb, namespace):
        raise forbidden(verb, namespace)


def visible(who: Principal) -> tuple[str, ...] | None:
    """The roots of what he sees, none of them below another, sorted; None for everything."""
    places = {grant.namespace for grant in who.grants}
    return None if EVERYWHERE in places else roots(places)


@functools.lru_cache(4096)
def _sight(grants: tuple[Grant, ...], agent: str, session: str) -> Sight | None:
    places = visible(Principal("", grants))
    return None if places is None else Sight(places, agent, session)


def sight_of(who: Principal) -> Sight | None:
    """What the database shows him, behind its wall; None for everything."""
    return _sight(who.grants, who.agent, who.session)


def key_scope(who: Principal) -> str:
    """Where, within a namespace, an idempotency key of his counts: the same over all transports. Those who may write in a namespace
    see all of it and share its keys, so that a request may be repeated with another credential; a client's token shares them with
    those of its own agent or session only, and meets no other's."""
    return "/".join(part for part in ("http", who.agent, who.session) if part)


def forbidden(verb: Verb, namespace: str) -> Forbidden:
    """Seen, but his roles do not reach."""
    where = f"in namespace {namespace[:80]!r}" if namespace else "here"
    return Forbidden("forbidden", f"{verb} is not yours {where}: `talon auth whoami` shows your roles; an admin can give you more")


def _anywhere(who: Principal, verb: Verb) -> bool:
    return not who.scoped and any(verb in ALLOWED[grant.role] for grant in who.grants)


def _has(who: Principal, verb: Verb, namespace: str) -> bool:
    return any(verb in ALLOWED[grant.role] and covers(grant.namespace, namespace) for grant in who.grants)
