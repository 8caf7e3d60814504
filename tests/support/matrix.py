"""The authorization matrix: every operation of the table, for everybody, in every place; what should come back is worked out here
from the decision's own words (`docs/decisions/0010-access.md`), and not by asking the code that decides.

A caller is one way to ask: HTTP in this process, HTTP over a socket, gRPC. Each says which operations it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from support import asgi
from talon.gateway.api.table import TABLE, Row

Answer = Literal["let in", "unauthenticated", "absent", "forbidden"]
#: Stands in everything that is in a namespace that some must not see; no answer to them may contain it.
CANARY = "canary-7f3a"

_READS = {"resources.read", "sessions.read", "approvals.read"}
_OPERATES = _READS | {"sessions.write", "schedules.operate", "tokens.mint"}
_DEVELOPS = _OPERATES | {"resources.write", "secrets.write", "secrets.uses"}
ROLES: dict[str, set[str]] = {
    "viewer": _READS,
    "operator": _OPERATES,
    "approver": _READS | {"approvals.resolve"},
    "developer": _DEVELOPS,
    "admin": _DEVELOPS | {"approvals.resolve", "namespaces.write", "keys.manage", "log.read", "keyring.rotate"},
}
#: Where the callers' roles are, and where they ask: in their own place, below it, beside it with the same beginning, elsewhere and
#: nowhere.
GRANTED = ("acme", "acme:eu", "*")
PLACES = ("acme", "acme:eu", "acmex", "beta", "gone")


@dataclass(frozen=True)
class Target:
    """What is asked about. Names below the namespace are such that nothing is changed by who is let in."""

    namespace: str
    agent: str = "helper"
    session: str = "s1"


@dataclass(frozen=True)
class Got:
    """What came back: `code` is "" where nothing was refused; `text` everything that can be read in it."""

    code: str
    detail: str
    text: str


@dataclass(frozen=True)
class Shown:
    """What a caller shows, and what he has: role@namespace, or a token's narrowing. `grants` None: he is nobody."""

    name: str
    authorization: str
    grants: tuple[tuple[str, str], ...] | None
    agent: str = ""
    session: str = ""


class Caller(Protocol):
    """One transport."""

    name: str

    def operations(self) -> list[str]:
        """Those that it has."""
        ...

    async def ask(self, operation: str, target: Target, authorization: str) -> Got:
        """Do it, in a way that changes nothing (but for `deleteSession`)."""
        ...


@dataclass(frozen=True)
class Cell:
    """One question and its answer as it must be."""

    operation: str
    shown: Shown
    target: Target
    answer: Answer


@dataclass
class Findings:
    """What a run came to: `wrong` are answers that should be others, `leaks` answers that say what nobody may learn."""

    cells: int = 0
    wrong: list[str] = field(default_factory=list[str])
    leaks: list[str] = field(default_factory=list[str])


def covers(granted: str, namespace: str) -> bool:
    """By segment."""
    mine, theirs = granted.split(":"), namespace.split(":")
    return granted == "*" or theirs[: len(mine)] == mine


def expected(row: Row, shown: Shown, target: Target) -> Answer:
    """What decision 0010 says."""
    if shown.grants is None:
        return "unauthenticated"
    if row.place == "known":
        return "let in"
    has = {verb for role, _ in shown.grants for verb in ROLES[role]}
    if row.place in ("anywhere", "visible"):
        return "let in" if row.verb in has and not shown.agent else "forbidden"
    if row.place == "installation":
        return "let in" if any(row.verb in ROLES[role] and granted == "*" for role, granted in shown.grants) else "forbidden"
    here = [role for role, granted in shown.grants if covers(granted, target.namespace)]
    verbs = {verb for role in here for verb in ROLES[role]}
    if row.place == "documents":  # an Agent, or a Namespace
        if not has & {"resources.write", "sessions.write", "secrets.write", "namespaces.write"} or shown.agent:
            return "forbidden"
        return "absent" if not here else "let in" if row.verb in verbs else "forbidden"
    if not here:
        return "absent"
    if shown.agent and row.place in ("agent", "session"):
        foreign = target.agent != shown.agent
        if foreign or (row.place == "session" and shown.session not in ("", target.session)):
            return "absent"
        # Sessions are made and listed by who has more than one of them.
        if row.place == "agent" and (shown.session or row.verb != "sessions.read"):
            return "forbidden"
    elif shown.agent and not (row.place == "approval" and row.verb == "approvals.read"):
        return "forbidden"
    return "let in" if row.verb in verbs else "forbidden"


#: The verb of what the documents of a cell are.
_DOCUMENT_VERBS = {"createNamespace": "namespaces.write", "apply": "resources.write"}


def cells(operations: list[str], people: list[Shown]) -> Iterator[Cell]:
    """All questions of one caller. Who may delete a session does: that comes last."""
    for operation in sorted(operations, key=lambda name: (name == "deleteSession", name)):
        row = TABLE[operation]
        if row.place == "open":
            continue
        if operation in _DOCUMENT_VERBS:
            row = row._replace(verb=_DOCUMENT_VERBS[operation])
        placed = row.place in ("namespace", "agent", "session", "approval", "documents")
        for shown in people:
            for target in _targets(row, shown) if placed else (Target("acme"),):
                answer = expected(row, shown, target)
                if answer == "let in" and operation in _DOCUMENT_VERBS and target.namespace == "gone":
                    continue  # it would be made
                yield Cell(operation, shown, target, answer)


def _targets(row: Row, shown: Shown) -> Iterator[Target]:
    if shown.grants is None:
        yield Target("acme")
        return
    for namespace in PLACES:
        yield Target(namespace)
    if shown.agent:
        yield Target("acme", session="s2")
        yield Target("acme", agent="other", session="s1")
        yield Target("acme", agent="nobody", session="s1")


async def run(caller: Caller, questions: Iterator[Cell]) -> Findings:
    """Ask them all."""
    found = Findings()
    for cell in questions:
        got = await caller.ask(cell.operation, cell.target, cell.shown.authorization)
        found.cells += 1
        what = (
            f"{caller.name} {cell.operation} as {cell.shown.name} in {cell.target}: expected {cell.answer}, got {got.code or 'ok'}"
        )
        if not _fits(cell, got):
            found.wrong.append(f"{what} {got.detail}")
        if cell.answer != "let in" and CANARY in got.text:
            found.leaks.append(what)
        if cell.shown.grants is not None and cell.answer == "let in" and not _sees_canary(cell.shown) and CANARY in got.text:
            found.leaks.append(what)
    return found


def _sees_canary(shown: Shown) -> bool:
    return any(covers(granted, place) for _, granted in shown.grants or () for place in ("beta", "acmex")) or bool(shown.agent)


def _fits(cell: Cell, got: Got) -> bool:
    if cell.answer == "unauthenticated":
        return got.code == "unauthenticated"
    if cell.answer == "forbidden":
        verb = _DOCUMENT_VERBS.get(cell.operation) or TABLE[cell.operation].verb
        return got.code == "forbidden" and (str(verb) in got.detail or TABLE[cell.operation].place == "documents")
    if cell.answer == "let in":
        # `gone` is not there, for those who would see it too.
        return got.code not in ("unauthenticated", "forbidden") and (
            got.code != "namespace_not_found" or cell.target.namespace == "gone"
        )
    return (got.code, got.detail) == absent(cell)


def absent(cell: Cell) -> tuple[str, str]:
    """The code and the words for what is not there."""
    namespace, agent, session = cell.target.namespace, cell.target.agent, cell.target.session
    if not any(covers(granted, namespace) for _, granted in cell.shown.grants or ()):
        return "namespace_not_found", f"no namespace {namespace!r}"
    if agent != cell.shown.agent:
        return "agent_not_found", f"no agent {agent!r} in namespace {namespace!r}"
    return "session_not_found", f"no session {session!r} of agent {agent!r} in namespace {namespace!r}"


# --- HTTP -------------------------------------------------------------------------------------------------------------------

GHOST_ID = "00000000-0000-7000-8000-000000000000"
#: Bodies with which who is let in changes nothing: wrong in a field that is looked at after the permission.
_BODIES: dict[str, bytes] = {"createSession": b'{"profile": "none"}', "sendMessage": b'{"content": ""}'}


class HttpRoutes:
    """The routes of a gateway, from its own document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._routes = {
            operation["operationId"]: (method.upper(), path)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }

    def operations(self) -> list[str]:
        """All of them."""
        return sorted(self._routes)

    def request(self, operation: str, target: Target) -> tuple[str, str, bytes, str]:
        """-> (method, path with query, body, its media type)."""
        method, path = self._routes[operation]
        ghosts = {"name": "ghost", "revision": "1", "kind": "Agent", "approval": GHOST_ID, "turn_id": GHOST_ID, "key": "ghost"}
        named = TABLE[operation].place in ("agent", "session")
        places = {"ns": target.namespace, "agent": target.agent if named else "ghost", "session_id": target.session, **ghosts}
        for name, value in places.items():
            path = path.replace(f"{{{name}}}", value)
        body, media = _BODIES.get(operation, b'{"nothing": true}'), "application/json"
        if method == "GET":
            body = b""
        if operation == "createNamespace":
            body = json.dumps({"kind": "Namespace", "metadata": {"name": target.namespace}}).encode()
        if operation == "apply":
            path, body = path + "?dry_run=true", agent_document(target.namespace)
        if operation == "listAccessLog":
            path += "?limit=1"
        return method, path, body, media


def agent_document(namespace: str) -> bytes:
    """A manifest that changes nothing that a test looks at."""
    profiles = [{"name": "primary", "model": {"provider": "scripted", "name": "one"}}]
    return json.dumps(
        {
            "apiVersion": "talon.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": "helper", "namespace": namespace},
            "definition": {"customSpec": {"modelPolicy": {"profiles": profiles}, "systemPrompt": "You help."}},
        }
    ).encode()


class InProcess:
    """HTTP, the whole application, without a socket."""

    name = "http"

    def __init__(self, app: Any, routes: HttpRoutes) -> None:
        self._app, self._routes = app, routes

    def operations(self) -> list[str]:
        return self._routes.operations()

    async def ask(self, operation: str, target: Target, authorization: str) -> Got:
        method, path, body, media = self._routes.request(operation, target)
        headers = {"content-type": media, **({"authorization": authorization} if authorization else {})}
        answer = await asgi.request(self._app, method, path, headers, body)
        return got_of(answer.status, answer.raw, answer.headers)


def got_of(status: int, raw: bytes, headers: Any) -> Got:
    """An HTTP answer."""
    text = raw.decode("utf-8", "replace") + repr(headers)
    if status < 400:
        return Got("", "", text)
    problem = json.loads(raw)
    return Got(problem["code"], problem["detail"], text)
