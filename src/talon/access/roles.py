"""Roles, verbs and what a principal may do where: one table, pure.

A grant gives a role in a namespace and in all below it, compared by segment: `acme` covers `acme:eu` and never `acmex`; `*` is
everywhere. A principal sees what some grant of his covers; what he does not see answers exactly as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

Role = Literal["viewer", "operator", "approver", "developer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

#: What can be done. The noun says to what, the verb how far.
Verb = Literal[
    "resources.read",  # manifests, revisions, schemas, graph, export, watches
    "resources.write",  # create, change, apply, delete, roll back: templates, agents, schedules, knowledge, servers, bindings
    "namespaces.write",  # create, change and delete namespaces
    "secrets.write",  # set and delete values (nobody reads them)
    "secrets.uses",  # who used a value, and when
    "sessions.read",  # sessions, turns, journals, messages, streams
    "sessions.write",  # create, send, change, cancel, delete
    "schedules.operate",  # pause, resume, trigger
    "approvals.read",
    "approvals.resolve",
    "tokens.mint",  # short-lived tokens for clients, never wider than their minter
    "keys.manage",  # API keys, browser sessions of others
    "log.read",  # the access log
    "keyring.rotate",  # the key that wraps secrets' keys: of the whole installation
]
VERBS: tuple[Verb, ...] = get_args(Verb)

_VIEWER: tuple[Verb, ...] = ("resources.read", "sessions.read", "approvals.read")
_OPERATOR: tuple[Verb, ...] = (*_VIEWER, "sessions.write", "schedules.operate", "tokens.mint")
_APPROVER: tuple[Verb, ...] = (*_VIEWER, "approvals.resolve")
_DEVELOPER: tuple[Verb, ...] = (*_OPERATOR, "resources.write", "secrets.write", "secrets.uses")
ALLOWED: dict[Role, frozenset[Verb]] = {
    "viewer": frozenset(_VIEWER),
    "operator": frozenset(_OPERATOR),
    "approver": frozenset(_APPROVER),
    "developer": frozenset(_DEVELOPER),
    "admin": frozenset(VERBS),
}
#: What a client's token may do in its own session at most, whatever its minter may.
_CLIENT: tuple[Verb, ...] = ("sessions.read", "sessions.write", "approvals.read")
CLIENT = frozenset(_CLIENT)

EVERYWHERE = "*"


class Grant(msgspec.Struct, frozen=True, order=True):
    """A role in `namespace` and below it; `*` is everywhere."""

    role: Role
    namespace: str


class Principal(msgspec.Struct, frozen=True):
    """Somebody who was recognised.

    `id` is stable and safe to log: `local` (nobody had to say who he is), `key:ID`, `token:ID`, `user:ISSUER#SUBJECT`.
    `agent` and `session` narrow a client's token to one agent, or one session of it ("" is no narrowing); it then may do no more
    than `CLIENT`. `expires_at_ms` is Unix time; streams end with it. `via` is the id of the stored credential that it stands on
    ("" for none, as with a JWT): it ends with that. `browser` says that a cookie was shown, which a browser sends unasked.
    """

    id: str
    grants: tuple[Grant, ...]
    agent: str = ""
    session: str = ""
    expires_at_ms: int | None = None
    via: str = ""
    browser: bool = False

    @property
    def scoped(self) -> bool:
        """Whether it is a client's token."""
        return bool(self.agent)


#: Who asks where no authentication is configured (loopback only).
LOCAL = Principal("local", (Grant("admin", EVERYWHERE),))


def covers(granted: str, namespace: str) -> bool:
    """Whether a grant in `granted` reaches `namespace` ("" is the installation itself: only `*` reaches it)."""
    return granted in (EVERYWHERE, namespace) or (namespace != "" and namespace.startswith(f"{granted}:"))


def sees(who: Principal, namespace: str) -> bool:
    """Whether anything in `namespace` exists for him. The parents of a namespace that he sees are not thereby seen."""
    return any(covers(grant.namespace, namespace) for grant in who.grants)


def roots(namespaces: Iterable[str]) -> tuple[str, ...]:
    """Those of `namespaces` that lie in no other of them, sorted."""
    places = set(namespaces)
    return tuple(sorted(one for one in places if not any(one != other and covers(other, one) for other in places)))


def may(who: Principal, verb: Verb, namespace: str, agent: str = "", session: str = "") -> bool:
    """Whether he may do `verb` to this agent's session (agent and session "" where the object is no session).

    A client's token may do nothing to what is not its own: a list of sessions, for one, is not.
    """
    if who.scoped:
        if verb not in CLIENT or agent != who.agent or (who.session and session != who.session):
            return False
        if not session and verb != "sessions.read":
            return False
    return any(verb in ALLOWED[grant.role] and covers(grant.namespace, namespace) for grant in who.grants)


def narrower(wanted: Grant, who: Principal) -> bool:
    """Whether `wanted` gives nothing that `who` does not have: what a minter may hand on."""
    return not who.scoped and all(
        any(verb in ALLOWED[grant.role] and covers(grant.namespace, wanted.namespace) for grant in who.grants)
        for verb in ALLOWED[wanted.role]
    )
