"""The kinds of this version as they may be written: one model per mapping, closed (an unknown field is an error).

Field names are the documents' own (`systemPrompt`, `mcpServerRefs`, `allowed_tools`). Nothing is coerced: `"1"` is no number.
A field that is written must have a value: `null` is refused where no field takes it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from talon.domain.ids import is_name, is_namespace

API_VERSION = "talon.dev/v1alpha1"
Kind = Literal["Namespace", "AgentTemplate", "Agent", "Session"]
KINDS: tuple[Kind, ...] = ("Namespace", "AgentTemplate", "Agent", "Session")
#: Kinds of the documents that a later version serves.
LATER_KINDS = ("Schedule", "Knowledge", "McpServer", "McpBinding", "Secret")

T = TypeVar("T")


def _given(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("no_value", "has no value: write one, or leave the field out")
    return value


def _name(text: str) -> str:
    if not is_name(text):
        raise PydanticCustomError("name", "is no name: {why}", {"why": why_no_name(text)})
    return text


def _namespace(text: str) -> str:
    if not is_namespace(text):
        raise PydanticCustomError("name", "is no namespace: {why}", {"why": why_no_name(text, namespace=True)})
    return text


def why_no_name(text: str, *, namespace: bool = False) -> str:
    """What keeps `text` from being a name (a namespace: names joined by `:`), in words that say what to change."""
    parts = text.split(":") if namespace else [text]
    if text == "":
        return "it is empty"
    if any(part == "" for part in parts):
        return "a part between two : is empty"
    if namespace and len(text) > 255:
        return f"it has {len(text)} characters, at most 255"
    longest = max(parts, key=len)
    if len(longest) > 63:
        return f"it has {len(longest)} characters, at most 63"
    wrong = next(
        (char for char in text if not (char in "abcdefghijklmnopqrstuvwxyz0123456789-" or (namespace and char == ":"))), ""
    )
    if wrong and wrong.lower() != wrong and wrong.lower() in "abcdefghijklmnopqrstuvwxyz":
        return f"{wrong!r} is upper case; write it in lower case"
    if wrong:
        return f"{wrong!a} may not be in it; only a-z, 0-9 and - may"
    return "it must begin and end with a letter or a digit"


Given = Annotated[T | None, BeforeValidator(_given)]
Name = Annotated[str, AfterValidator(_name)]
NamespaceName = Annotated[str, AfterValidator(_namespace)]
FeatureName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
LabelKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,252}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")]


class Part(BaseModel):
    """Base of all: closed, strict, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Stamps(Part):
    """What Talon writes into a resource's metadata. Its own output has them, so they may be written: `uid` must then be the stored
    one's, the others are never acted on."""

    uid: Given[str] = None
    generation: Given[int] = None
    created_at: Given[str] = Field(default=None, alias="createdAt")
    updated_at: Given[str] = Field(default=None, alias="updatedAt")


class Metadata(Stamps):
    """Who a resource is, and what its people note on it."""

    name: Name
    namespace: Given[NamespaceName] = None
    labels: Given[dict[LabelKey, LabelValue]] = None
    annotations: Given[dict[LabelKey, str]] = None


class NamespaceMetadata(Stamps):
    """A namespace is in none; its name may have parts (`acme:eu`)."""

    name: NamespaceName
    labels: Given[dict[LabelKey, LabelValue]] = None
    annotations: Given[dict[LabelKey, str]] = None


class SessionMetadata(Stamps):
    """Who a session is; what its people note on it is `spec.metadata`."""

    name: Name
    namespace: Given[NamespaceName] = None


class Status(Part):
    """What Talon says about a resource. Read so that its own output can be applied; never acted on."""

    conditions: Given[list[Any]] = None
    revision: Given[int] = None
    template: Given[str] = None


class FeatureDecl(Part):
    """A typed parameter. `values` are those of an enum; `default` is of the feature's type."""

    name: FeatureName
    type: Literal["string", "number", "boolean", "enum", "list"] = "string"
    required: bool = False
    default: Given[Any] = None
    values: Given[Annotated[list[Text], Field(min_length=1)]] = None
    description: str = ""


class Model(Part):
    """A model of a provider; `provider` is a name in the configuration's `providers`."""

    provider: Name
    name: Text
    temperature: Given[Annotated[float, Field(ge=0, le=2)]] = None
    max_tokens: Given[Annotated[int, Field(ge=1)]] = Field(default=None, alias="maxTokens")


class ProfileDecl(Part):
    """A model under a name that agents and sessions can choose."""

    name: Name
    model: Model


class ModelPolicy(Part):
    """Models to try, in this order."""

    profiles: Annotated[list[ProfileDecl], Field(min_length=1)]


class Capabilities(Part):
    """What an agent may use of what its references grant; without references, which built-in tools."""

    allowed_tools: Given[list[Text]] = None


class LimitsDecl(Part):
    """Bounds of one turn. `max_iterations` and `max_tool_calls_per_run` are other spellings of the first two; 0 means no limit,
    except for model calls, of which a turn has one at least."""

    model_calls_max: Given[Annotated[int, Field(ge=1)]] = None
    max_iterations: Given[Count] = None
    tool_calls_max: Given[Count] = None
    max_tool_calls_per_run: Given[Count] = None
    wall_time_max_s: Given[Annotated[float, Field(ge=0, le=31_536_000)]] = None
    tokens_max: Given[Count] = None


class Overrides(Part):
    """What a definition says, each part optional; an agent's own part replaces the template's (limits: one by one)."""

    model_policy: Given[ModelPolicy] = Field(default=None, alias="modelPolicy")
    system_prompt: Given[str] = Field(default=None, alias="systemPrompt")
    mcp_server_refs: Given[list[Name]] = Field(default=None, alias="mcpServerRefs")
    capabilities: Given[Capabilities] = None
    limits: Given[LimitsDecl] = None


class CustomSpec(Overrides):
    """What an agent is: its parts, and the features that it wants to be told."""

    features: list[FeatureDecl] = []


class Definition(Overrides):
    """A whole definition: of a template, or of an agent that has none. Its parts stand in `customSpec`, where the documents print
    them, or beside it; each part in one place."""

    custom_spec: Given[CustomSpec] = Field(default=None, alias="customSpec")


#: The parts that may stand in either place: attribute -> as it is written.
PARTS = {name: field.alias or name for name, field in Overrides.model_fields.items()}


def flat(definition: Definition) -> CustomSpec:
    """All parts of a definition in one, wherever they stand."""
    spec = definition.custom_spec or CustomSpec()
    beside = {name: value for name in PARTS if (value := getattr(definition, name)) is not None}
    return spec.model_copy(update=beside)


class TemplateRef(Part):
    """A template of the agent's namespace."""

    name: Name


def _ref(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class AgentSpec(Overrides):
    """An agent: a template (`templateRef`) or a definition of its own, its features, and what it changes."""

    template_ref: Annotated[Given[TemplateRef], BeforeValidator(_ref)] = Field(default=None, alias="templateRef")
    definition: Given[Definition] = None
    features: dict[str, Any] = {}
    profile: Given[Name] = None


class HistoryMessage(Part):
    """A message that was said before; imported when the session is created."""

    role: Literal["user", "assistant"]
    content: Text


class SessionSpec(Part):
    """A session of an agent. `metadata` is free-form JSON for the people who run it."""

    agent: Name
    features: dict[str, Any] = {}
    profile: Given[Name] = None
    metadata: dict[str, Any] = {}
    messages: list[HistoryMessage] = []


class NamespaceDoc(Part):
    """`kind: Namespace`. It has nothing to specify yet."""

    api_version: Literal["talon.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Namespace"]
    metadata: NamespaceMetadata
    status: Given[Status] = None


class TemplateDoc(Part):
    """`kind: AgentTemplate`."""

    api_version: Literal["talon.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["AgentTemplate"]
    metadata: Metadata
    definition: Definition
    status: Given[Status] = None


class AgentDoc(Part):
    """`kind: Agent`: `spec`, or a whole `definition` of its own beside it."""

    api_version: Literal["talon.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Agent"]
    metadata: Metadata
    spec: AgentSpec = AgentSpec()
    definition: Given[Definition] = None
    status: Given[Status] = None


class SessionDoc(Part):
    """`kind: Session`, the form with an envelope."""

    api_version: Literal["talon.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Session"]
    metadata: SessionMetadata
    spec: SessionSpec
    status: Given[Status] = None


class BareSession(Part):
    """The form of a session without an envelope. `status` and `stream` describe, they do not command: a warning says so."""

    id: Name
    agent: Name
    ns: Given[NamespaceName] = None
    status: Any = None
    stream: Any = None
    features: dict[str, Any] = {}
    profile: Given[Name] = None
    metadata: dict[str, Any] = {}
    messages: list[HistoryMessage] = []


Doc = NamespaceDoc | TemplateDoc | AgentDoc | SessionDoc
DOCS: dict[str, type[NamespaceDoc] | type[TemplateDoc] | type[AgentDoc] | type[SessionDoc]] = {
    "Namespace": NamespaceDoc,
    "AgentTemplate": TemplateDoc,
    "Agent": AgentDoc,
    "Session": SessionDoc,
}
