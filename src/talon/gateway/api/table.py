"""The one table of permissions: what each operation asks for, and where the thing that it is done to is named.

Every interface asks it (`permits`): an operation without a row is not served, and no gateway starts with one. The names are the
operation ids of the HTTP document; a gRPC method has the row of the operation that it is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from talon.access.roles import Verb

#: Where an operation's namespace, agent and session come from.
#:   open          nobody is asked who he is
#:   known         whoever was recognised
#:   anywhere      the verb in some namespace is enough; what is shown or made is narrowed further
#:   installation  the verb everywhere
#:   namespace     the request's own namespace (path or message), and agent, session: with these
#:   approval      as namespace; whose session asks shows when the approval is found
#:   documents     of each manifest in the body
#:   visible       all namespaces, as far as they are seen
Place = Literal["open", "known", "anywhere", "installation", "namespace", "agent", "session", "approval", "documents", "visible"]


class Row(NamedTuple):
    """What one operation asks for. `verb` is None where it asks for none (open, known) or each document has its own."""

    place: Place
    verb: Verb | None = None


OPEN, KNOWN, DOCUMENTS = Row("open"), Row("known"), Row("documents")
_READ, _OPERATE = Row("namespace", "resources.read"), Row("namespace", "schedules.operate")


def _collection(one: str, many: str, write: Verb = "resources.write") -> dict[str, Row]:
    """The operations of one kind of resource."""
    writing = Row("namespace", write)
    return {
        f"list{many}": _READ,
        f"create{one}": writing,
        f"get{one}": _READ,
        f"list{one}Users": _READ,
        f"put{one}": writing,
        f"patch{one}": writing,
        f"delete{one}": writing,
    }


_NAMESPACES = {
    "listNamespaces": Row("visible", "resources.read"),
    "createNamespace": DOCUMENTS,
    "getNamespace": _READ,
    "putNamespace": Row("namespace", "namespaces.write"),
    "patchNamespace": Row("namespace", "namespaces.write"),
    "deleteNamespace": Row("namespace", "namespaces.write"),
    "getGraph": _READ,
    "exportNamespace": _READ,
}
_RESOURCES = {
    "apply": DOCUMENTS,
    "listSchemas": KNOWN,
    "getSchema": KNOWN,
    **_collection("Template", "Templates"),
    **_collection("Agent", "Agents"),
    "listRevisions": _READ,
    "getRevision": _READ,
    "rollbackAgent": Row("namespace", "resources.write"),
    **_collection("Schedule", "Schedules"),
    "listScheduleTimes": _READ,
    "listScheduleHistory": _READ,
    "pauseSchedule": _OPERATE,
    "resumeSchedule": _OPERATE,
    "triggerSchedule": _OPERATE,
    **_collection("Knowledge", "KnowledgeBases"),
    **_collection("McpServer", "McpServers"),
    **_collection("McpBinding", "McpBindings"),
    **_collection("Secret", "Secrets", "secrets.write"),
    "listSecretUses": Row("namespace", "secrets.uses"),
    "rotateKey": Row("installation", "keyring.rotate"),
}
_SESSIONS = {
    "createSession": Row("agent", "sessions.write"),
    "listSessions": Row("agent", "sessions.read"),
    "getSession": Row("session", "sessions.read"),
    "changeSession": Row("session", "sessions.write"),
    "deleteSession": Row("session", "sessions.write"),
    "listEntries": Row("session", "sessions.read"),
    "listMessages": Row("session", "sessions.read"),
    "getImage": Row("session", "sessions.read"),
    "sendMessage": Row("session", "sessions.write"),
    "streamSession": Row("session", "sessions.read"),
    "listTurns": Row("session", "sessions.read"),
    "getTurn": Row("session", "sessions.read"),
    "cancelTurn": Row("session", "sessions.write"),
    "getLoopState": Row("session", "sessions.read"),
    "listApprovals": Row("namespace", "approvals.read"),
    "getApproval": Row("approval", "approvals.read"),
    "resolveApproval": Row("approval", "approvals.resolve"),
}
_MODELS = {
    "listModels": KNOWN,
    "getModelTiers": KNOWN,
    "selectModel": KNOWN,
    "estimateCost": KNOWN,
    "explainModels": Row("agent", "sessions.read"),
}
_ACCESS = {
    "getHealth": OPEN,
    "getReadiness": OPEN,
    "getPage": OPEN,
    "getOpenApi": OPEN,
    "getAccess": OPEN,
    "whoami": KNOWN,
    "beginLogin": OPEN,
    "finishLogin": OPEN,
    "openBrowserSession": KNOWN,
    "endBrowserSession": KNOWN,
    "createKey": Row("anywhere", "keys.manage"),
    "listKeys": Row("anywhere", "keys.manage"),
    "revokeKey": KNOWN,  # one's own may always be ended; others' are not found by who does not manage them
    "mintToken": Row("anywhere", "tokens.mint"),
    "listAccessLog": Row("anywhere", "log.read"),
}
#: operation id -> its row.
TABLE: dict[str, Row] = {**_NAMESPACES, **_RESOURCES, **_SESSIONS, **_MODELS, **_ACCESS}
