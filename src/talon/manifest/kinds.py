"""The kinds of this version as they may be written: one model per mapping, closed (an unknown field is an error)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from talon.manifest.agents import MESSAGES_MAX, AgentSpec, Definition, HistoryMessage, SessionConfig, SessionSpec
from talon.manifest.environment import KnowledgeSpec, McpBindingSpec, McpServerSpec, SecretSpec
from talon.manifest.fields import Given, Name, NamespaceName, Part
from talon.manifest.metadata import ApiVersion, Metadata, NamespaceMetadata, SessionMetadata, Status
from talon.manifest.schedule import ScheduleSpec

Kind = Literal["Namespace", "Secret", "McpServer", "Knowledge", "AgentTemplate", "Agent", "Session", "McpBinding", "Schedule"]
#: In an order in which each refers only to those before it.
KINDS: tuple[Kind, ...] = get_args(Kind)
_API_VERSION = "The version of the manifest's form."
_STATUS = "What Talon says about it; never acted on."


class _Doc(Part):
    """The envelope that all kinds share."""

    api_version: ApiVersion = Field(alias="apiVersion", description=_API_VERSION)


class NamespaceDoc(_Doc):
    """Where everything else lives. It has nothing to specify yet."""

    kind: Literal["Namespace"] = Field(description="What it is.")
    metadata: NamespaceMetadata = Field(description="Who it is.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class TemplateDoc(_Doc):
    """What agents are made from. A change makes a new revision of each of them."""

    kind: Literal["AgentTemplate"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    definition: Definition = Field(description="What its agents are.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class AgentDoc(_Doc):
    """An agent: `spec`, or a whole `definition` of its own beside it."""

    kind: Literal["Agent"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: AgentSpec = Field(default_factory=AgentSpec, description="Its template, its features and what it changes.")
    definition: Given[Definition] = Field(default=None, description="A whole definition of its own, as of a template.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class SessionDoc(_Doc):
    """The durable thread around an agent."""

    kind: Literal["Session"] = Field(description="What it is.")
    metadata: SessionMetadata = Field(description="Who it is.")
    spec: SessionSpec = Field(description="Whose it is, and what it begins with.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class ScheduleDoc(_Doc):
    """What wakes a session, and when."""

    kind: Literal["Schedule"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: ScheduleSpec = Field(description="When, whom and with what.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class KnowledgeDoc(_Doc):
    """Documents of a namespace."""

    kind: Literal["Knowledge"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: KnowledgeSpec = Field(description="The documents.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class McpServerDoc(_Doc):
    """A server of the Model Context Protocol."""

    kind: Literal["McpServer"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: McpServerSpec = Field(description="How it is reached.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class McpBindingDoc(_Doc):
    """Which agents may use an MCP server."""

    kind: Literal["McpBinding"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: McpBindingSpec = Field(description="Who may use what, and as whom.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class SecretDoc(_Doc):
    """A value under a name."""

    kind: Literal["Secret"] = Field(description="What it is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: SecretSpec = Field(default_factory=SecretSpec, description="The value, which is never shown again.")
    status: Given[Status] = Field(default=None, description=_STATUS)


class BareSession(Part):
    """A session without an envelope. `status` and `stream` describe, they do not command: a warning says so."""

    id: Name = Field(description="The session's name.")
    agent: Name = Field(description="The agent, of the same namespace.")
    ns: Given[NamespaceName] = Field(default=None, description="The namespace; absent: `default`.")
    status: Any = Field(default=None, description="Describes; not read.")
    stream: Any = Field(default=None, description="Describes; not read.")
    features: dict[str, Any] = Field(default={}, description="Values of features that the agent left open.")
    profile: Given[Name] = Field(default=None, description="The one model profile to use; absent: the agent's.")
    config: Given[SessionConfig] = Field(default=None, description="What the session wants otherwise than its agent says.")
    metadata: dict[str, Any] = Field(default={}, description="Free-form JSON for the people who run it; at most 64 KiB.")
    messages: list[HistoryMessage] = Field(default=[], max_length=MESSAGES_MAX, description="What was said before.")


class BareSchedule(Part):
    """A schedule without an envelope."""

    name: Name = Field(description="The schedule's name.")
    ns: Given[NamespaceName] = Field(default=None, description="The namespace; absent: `default`.")
    spec: ScheduleSpec = Field(description="When, whom and with what.")


Doc = NamespaceDoc | TemplateDoc | AgentDoc | SessionDoc | ScheduleDoc | KnowledgeDoc | McpServerDoc | McpBindingDoc | SecretDoc
DOCS: dict[
    str,
    type[NamespaceDoc]
    | type[TemplateDoc]
    | type[AgentDoc]
    | type[SessionDoc]
    | type[ScheduleDoc]
    | type[KnowledgeDoc]
    | type[McpServerDoc]
    | type[McpBindingDoc]
    | type[SecretDoc],
] = {
    "Namespace": NamespaceDoc,
    "Secret": SecretDoc,
    "McpServer": McpServerDoc,
    "Knowledge": KnowledgeDoc,
    "AgentTemplate": TemplateDoc,
    "Agent": AgentDoc,
    "Session": SessionDoc,
    "McpBinding": McpBindingDoc,
    "Schedule": ScheduleDoc,
}
