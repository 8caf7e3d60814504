"""The kinds of things that commands show and change: their names, their routes, and the columns of their tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from talon.cli.connection import At
from talon.cli.errors import WrongUse
from talon.cli.output import table
from talon.cli.tables import approvals_table, sessions_table
from talon.cli.text import nearest

Item = dict[str, Any]
Columns = tuple[tuple[str, Callable[[Item], Any]], ...]


def _meta(key: str) -> Callable[[Item], Any]:
    return lambda item: item["metadata"].get(key)


def _status(*keys: str) -> Callable[[Item], Any]:
    return _at("status", *keys)


def _field(key: str) -> Callable[[Item], Any]:
    return lambda item: item.get(key)


def _spec(*keys: str) -> Callable[[Item], Any]:
    return _at("spec", *keys)


def _at(*keys: str) -> Callable[[Item], Any]:
    def value(item: Item) -> Any:
        found: Any = item
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return found  # pyright: ignore[reportUnknownVariableType]

    return value


def state(item: Item) -> str:
    """`Terminating`; or what is not as it should be, `Resolved=False (MissingToolsets)`; `ok` otherwise. Nothing where no
    conditions are told: a watch tells what was written, and conditions are computed when one is read."""
    status = item.get("status", {})
    if status.get("phase") == "Terminating":
        return "Terminating"
    if "conditions" not in status:
        return ""
    wrong = [c for c in status.get("conditions", []) if str(c.get("status")) != "True"]
    return ", ".join(f"{c['type']}={c['status']} ({c.get('reason', '')})" for c in wrong) or "ok"


def _labels(item: Item) -> str:
    return ",".join(f"{key}={value}" for key, value in item["metadata"].get("labels", {}).items())


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind. `manifest` is the `kind:` of its manifests, "" for what has none. `plural` stands in routes, `singular` is said of
    one. `owner` are the names above it, written `AGENT` or `AGENT/SESSION` in NAME."""

    manifest: str
    plural: str
    singular: str
    aliases: tuple[str, ...]
    columns: Columns
    owner: tuple[str, ...] = ()
    own_table: Callable[[list[Item]], str] | None = None

    @property
    def is_resource(self) -> bool:
        """Whether it is declared, versioned and watched: it has metadata, labels and a route of its own."""
        return bool(self.manifest) and self.own_table is None

    def heads(self, wide: bool = False) -> list[str]:
        """The heads of its table."""
        return [head for head, _ in self._columns(wide)]

    def row(self, item: Item, wide: bool = False) -> list[Any]:
        """One row of it."""
        return [value(item) for _, value in self._columns(wide)]

    def table(self, items: Sequence[Item], wide: bool = False) -> str:
        """The items, one a row."""
        if self.own_table is not None:
            return self.own_table(list(items))
        return table(self.heads(wide), [self.row(item, wide) for item in items], empty=f"no {self.plural}")

    def name_of(self, item: Item) -> str:
        """`agent/customer-support`, `session/customer-support/renewals`: what other commands take for KIND NAME."""
        if self.is_resource:
            return f"{self.singular}/{item['metadata']['name']}"
        if self.singular == "session":
            return f"session/{item['agent']}/{item['id']}"
        return f"{self.singular}/{item.get('id') or item.get('turn_id') or item.get('revision')}"

    def path(self, at: At, names: Sequence[str] = ()) -> str:
        """The route of its list, or of the one that `names` names."""
        if self.plural == "namespaces":
            from talon.cli.client import path_of

            return path_of("namespaces", *names)
        above = [part for pair in zip(("agents", "sessions"), names, strict=False) for part in pair][: 2 * len(self.owner)]
        return at.path(*above, self.plural, *names[len(self.owner) :])

    def one(self, name: str) -> list[str]:
        """The names in `NAME`, which must name exactly one."""
        names = name.split("/")
        if len(names) != len(self.owner) + 1 or not all(names):
            raise WrongUse(f"{name!r}: expected {'/'.join((*self.owner, 'NAME'))}")
        return names

    def _columns(self, wide: bool) -> Columns:
        return (*self.columns, *_WIDE) if wide and self.is_resource else self.columns


_NAMED: Columns = (("NAMESPACE", _meta("namespace")), ("NAME", _meta("name")))
_UPDATED: Columns = (("STATUS", state), ("UPDATED", _meta("updatedAt")))
_WIDE: Columns = (
    ("GENERATION", _meta("generation")),
    ("VERSION", _meta("resourceVersion")),
    ("CREATED", _meta("createdAt")),
    ("UID", _meta("uid")),
    ("LABELS", _labels),
)
_TARGET: Columns = (
    ("WHEN", lambda item: _spec("cron")(item) or _spec("at")(item) or f"every {_spec('every')(item)}"),
    ("TIMEZONE", lambda item: _spec("timezone")(item) or "UTC"),
    ("AGENT", _spec("target", "agent")),
    ("SESSION", lambda item: _spec("target", "sessionId")(item) or "a new one"),
    ("ENABLED", lambda item: _spec("enabled")(item) is not False),
    ("NEXT", _status("schedule", "nextLocal")),
)
_BINDING: Columns = (
    ("SERVER", _spec("server")),
    ("AGENTS", lambda item: ",".join(_spec("agents")(item) or ("all",))),
    ("SECRET", _spec("auth", "secretRef")),
)
_REVISION: Columns = (
    ("REVISION", _field("revision")),
    ("DIGEST", lambda item: str(item.get("digest", ""))[:12]),
    ("CAUSE", _field("cause")),
    ("CREATED", _field("created_at")),
)
_TURN: Columns = tuple(
    (head, _field(key))
    for head, key in (
        ("TURN", "turn_id"),
        ("STATE", "state"),
        ("REASON", "reason"),
        ("STRATEGY", "strategy"),
        ("SEQ", "seq"),
        ("CREATED", "created_at"),
        ("ENDED", "ended_at"),
    )
)
KINDS = (
    Kind("Namespace", "namespaces", "namespace", ("ns",), (("NAME", _meta("name")), *_UPDATED)),
    Kind(
        "AgentTemplate",
        "templates",
        "template",
        ("tpl", "agenttemplates"),
        (*_NAMED, ("GENERATION", _meta("generation")), *_UPDATED),
    ),
    Kind(
        "Agent",
        "agents",
        "agent",
        ("ag",),
        (*_NAMED, ("TEMPLATE", _status("template")), ("REVISION", _status("revision")), *_UPDATED),
    ),
    Kind("Session", "sessions", "session", ("se",), (), ("AGENT",), sessions_table),
    Kind("Schedule", "schedules", "schedule", ("sched",), (*_NAMED, *_TARGET, *_UPDATED)),
    Kind(
        "Knowledge",
        "knowledge",
        "knowledge",
        ("kn",),
        (*_NAMED, ("DOCUMENTS", lambda item: len(_spec("documents")(item) or ())), *_UPDATED),
    ),
    Kind(
        "McpServer",
        "mcp-servers",
        "mcp-server",
        ("mcpservers", "mcp", "server", "servers"),
        (
            *_NAMED,
            ("TRANSPORT", _spec("transport")),
            ("ADDRESS", lambda item: _spec("url")(item) or _spec("command")(item)),
            *_UPDATED,
        ),
    ),
    Kind("McpBinding", "mcp-bindings", "mcp-binding", ("mcpbindings", "binding", "bindings"), (*_NAMED, *_BINDING, *_UPDATED)),
    Kind("Secret", "secrets", "secret", ("sec",), (*_NAMED, *_UPDATED)),
    Kind("", "revisions", "revision", ("rev",), _REVISION, ("AGENT",)),
    Kind("", "turns", "turn", (), _TURN, ("AGENT", "SESSION")),
    Kind("", "approvals", "approval", ("ap",), (), (), approvals_table),
)
BY_NAME = {name: kind for kind in KINDS for name in (kind.plural, kind.singular, kind.manifest.lower(), *kind.aliases) if name}
#: What a person reads when a kind is not known.
KNOWN = ", ".join(kind.plural for kind in KINDS)


def kind_of(name: str, known: str = KNOWN) -> Kind:
    """The kind that is called so: plural, singular, short or as in manifests, in any case. `known` is said of one that there is
    not."""
    kind = BY_NAME.get(name.lower())
    if kind is None:
        raise WrongUse(f"no such kind {name!r}{nearest(name.lower(), BY_NAME)} (there are: {known})")
    return kind


def declared_kind(name: str, lacking: str) -> Kind:
    """The kind that is called so and has manifests. Raises `WrongUse` for any other, saying that it has no `lacking`."""
    known = ", ".join(kind.singular for kind in KINDS if kind.manifest)
    kind = kind_of(name, known)
    if not kind.manifest:
        raise WrongUse(f"{kind.plural} are not declared, so they have no {lacking}; what is: {known}")
    return kind


def kind_and_name(kind: str, name: str | None) -> tuple[Kind, str | None]:
    """`agent a`, or both in one word as `talon get -o name` writes them: `agent/a`."""
    if name is None and "/" in kind:
        kind, _, name = kind.partition("/")
    return kind_of(kind), name or None


def resource_of(kind: str, name: str | None, doing: str) -> tuple[Kind, list[str]]:
    """The kind and the names of one thing that has a manifest. Raises `WrongUse` for any other, saying what cannot be done."""
    found, given = kind_and_name(kind, name)
    if not found.manifest:
        raise WrongUse(f"{found.plural} cannot be {doing}; what can: {', '.join(k.plural for k in KINDS if k.manifest)}")
    if given is None:
        raise WrongUse(f"expected {found.singular} {'/'.join((*found.owner, 'NAME'))}")
    return found, found.one(given)
