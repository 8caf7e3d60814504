"""The collections of resources that are served alike: one line each, and finding one of them by its path."""

from __future__ import annotations

from dataclasses import dataclass

from talon.domain.errors import NotFound
from talon.domain.ids import is_name, is_namespace
from talon.gateway.api.lookup import require_namespace
from talon.manifest.kinds import Kind
from talon.store.protocols import Store
from talon.store.resources import ResourceRow


@dataclass(frozen=True, slots=True)
class Collection:
    """A kind of resource. `plural` stands in its routes, `said` in sentences; `one` and `many` are in operation ids
    (`getMcpServer`, `listMcpServers`); `missing` is the code for one that does not exist."""

    kind: Kind
    plural: str
    said: str
    one: str
    many: str
    missing: str

    @property
    def path(self) -> str:
        """The route of the list."""
        return "/v1/namespaces" if self.kind == "Namespace" else "/v1/ns/{ns}/" + self.plural

    @property
    def all(self) -> str:
        """What the list holds, in words."""
        return "namespaces" if self.kind == "Namespace" else f"{self.plural} of a namespace"

    @property
    def place(self) -> str:
        """The name of its own place in a path."""
        return {"Namespace": "ns", "Agent": "agent"}.get(self.kind, "name")

    @property
    def tag(self) -> str:
        """The group of its routes in the document."""
        return self.plural

    def location(self, row: ResourceRow) -> str:
        """The path of one."""
        return f"{self.path.replace('{ns}', row.namespace)}/{row.name}"


NAMESPACES = Collection("Namespace", "namespaces", "namespace", "Namespace", "Namespaces", missing="namespace_not_found")
TEMPLATES = Collection("AgentTemplate", "templates", "template", "Template", "Templates", missing="template_not_found")
AGENTS = Collection("Agent", "agents", "agent", "Agent", "Agents", missing="agent_not_found")
SCHEDULES = Collection("Schedule", "schedules", "schedule", "Schedule", "Schedules", missing="schedule_not_found")
KNOWLEDGE = Collection("Knowledge", "knowledge", "knowledge", "Knowledge", "KnowledgeBases", missing="knowledge_not_found")
MCP_SERVERS = Collection("McpServer", "mcp-servers", "MCP server", "McpServer", "McpServers", missing="mcp_server_not_found")
MCP_BINDINGS = Collection("McpBinding", "mcp-bindings", "MCP binding", "McpBinding", "McpBindings", missing="mcp_binding_not_found")
SECRETS = Collection("Secret", "secrets", "secret", "Secret", "Secrets", missing="secret_not_found")
COLLECTIONS = (NAMESPACES, TEMPLATES, AGENTS, SCHEDULES, KNOWLEDGE, MCP_SERVERS, MCP_BINDINGS, SECRETS)
BY_KIND: dict[str, Collection] = {one.kind: one for one in COLLECTIONS}


async def find(store: Store, collection: Collection, namespace: str, name: str) -> ResourceRow | None:
    """The one of that name; None for any name that is none."""
    if collection.kind == "Namespace":
        return await store.get_resource("", "Namespace", name) if is_namespace(name) else None
    return await store.get_resource(namespace, collection.kind, name) if is_namespace(namespace) and is_name(name) else None


async def require(store: Store, collection: Collection, namespace: str, name: str) -> ResourceRow:
    """The one of that name. Raises `NotFound` of the namespace or of the resource."""
    row = await find(store, collection, namespace, name)
    if row is None:
        if collection.kind == "Namespace":
            await require_namespace(store, name)
        else:
            await require_namespace(store, namespace)
        raise NotFound(collection.missing, f"no {collection.said} {name[:80]!r} in namespace {namespace!r}")
    return row
