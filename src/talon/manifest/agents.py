"""Templates, agents and sessions as they may be written. Field names are the documents' own (`systemPrompt`, `allowed_tools`)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from talon.manifest.fields import TEXT_MAX, Count, FeatureName, Given, Name, Names, Part, Text, Word, Words
from talon.manifest.models import ModelPolicy, Policies, ThinkingLevel

FEATURES_MAX: Final = 200
MESSAGES_MAX: Final = 10_000


class FeatureDecl(Part):
    """A typed parameter that an agent or a session gives. `values` are those of an enum; `default` is of the feature's type."""

    name: FeatureName = Field(description="`{{ name }}` in the system prompt stands for its value.")
    type: Literal["string", "number", "boolean", "enum", "list"] = Field(default="string", description="What a value must be.")
    required: bool = Field(default=False, description="Whether the agent, or else the session, must give it.")
    default: Given[Any] = Field(default=None, description="The value where nobody gives one.")
    values: Given[Annotated[list[Word], Field(min_length=1, max_length=FEATURES_MAX)]] = Field(
        default=None, description="The values of an enum."
    )
    description: str = Field(default="", max_length=TEXT_MAX, description="For people, and in the error when it is missing.")


class Capabilities(Part):
    """What an agent may use of what its references grant; without references, which built-in tools."""

    allowed_tools: Given[Words] = Field(default=None, description="Names of tools, or `toolset/tool`; absent: all that is granted.")


class LimitsDecl(Part):
    """Bounds of one turn. `max_iterations` and `max_tool_calls_per_run` are other spellings of the first two; 0 means no limit,
    except for model calls, of which a turn has one at least."""

    model_calls_max: Given[Annotated[int, Field(ge=1)]] = Field(default=None, description="Model calls of a turn; absent: 10.")
    max_iterations: Given[Count] = Field(default=None, description="Another spelling of model_calls_max.")
    tool_calls_max: Given[Count] = Field(default=None, description="Tool calls of a turn; absent: 50.")
    max_tool_calls_per_run: Given[Count] = Field(default=None, description="Another spelling of tool_calls_max.")
    wall_time_max_s: Given[Annotated[float, Field(ge=0, le=31_536_000)]] = Field(
        default=None, description="Seconds that a turn may take, waiting excepted; absent: 3600."
    )
    tokens_max: Given[Count] = Field(default=None, description="Tokens, in and out, of a turn; absent: no limit.")
    model_retries_max: Given[Count] = Field(
        default=None, description="Model calls of a turn that may fail in a way that is tried again or elsewhere; absent: 20."
    )


class Overrides(Part):
    """What a definition says, each part optional; an agent's own part replaces the template's (limits: one by one)."""

    model_policy: Given[ModelPolicy] = Field(default=None, alias="modelPolicy", description="Which models, in which order.")
    policies: Given[Policies] = Field(default=None, description="What is decided for the agent beside its models' order.")
    system_prompt: Given[Annotated[str, Field(max_length=TEXT_MAX)]] = Field(
        default=None, alias="systemPrompt", description="Text with `{{ feature }}` places; `\\{{` stands for literal braces."
    )
    mcp_server_refs: Given[Names] = Field(
        default=None, alias="mcpServerRefs", description="Toolsets and MCP servers whose tools the agent may use."
    )
    knowledge_refs: Given[Names] = Field(
        default=None, alias="knowledgeRefs", description="Knowledge of the namespace, or of one that it lies in."
    )
    capabilities: Given[Capabilities] = Field(default=None, description="Narrows what the references grant.")
    limits: Given[LimitsDecl] = Field(default=None, description="Bounds of one turn.")


class CustomSpec(Overrides):
    """What an agent is: its parts, and the features that it wants to be told."""

    features: list[FeatureDecl] = Field(default=[], max_length=FEATURES_MAX, description="Parameters of its agents and sessions.")


class Definition(Overrides):
    """A whole definition: of a template, or of an agent that has none. Its parts stand in `customSpec`, where the documents print
    them, or beside it; each part in one place."""

    custom_spec: Given[CustomSpec] = Field(default=None, alias="customSpec", description="The parts, and the declared features.")


#: The parts that may stand in either place: attribute -> as it is written.
PARTS = {name: field.alias or name for name, field in Overrides.model_fields.items()}


def flat(definition: Definition) -> CustomSpec:
    """All parts of a definition in one, wherever they stand."""
    spec = definition.custom_spec or CustomSpec()
    beside = {name: value for name in PARTS if (value := getattr(definition, name)) is not None}
    return spec.model_copy(update=beside)


class TemplateRef(Part):
    """A template of the agent's namespace, or of the nearest one that it lies in."""

    name: Name = Field(description="The template's name.")


def _ref(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class AgentSpec(Overrides):
    """An agent: a template (`templateRef`) or a definition of its own, its features, and what it changes."""

    template_ref: Annotated[Given[TemplateRef], BeforeValidator(_ref, json_schema_input_type=Name | TemplateRef)] = Field(
        default=None, alias="templateRef", description="The AgentTemplate that it is made from, by name."
    )
    definition: Given[Definition] = Field(default=None, description="A definition of its own, instead of a template.")
    features: dict[str, Any] = Field(
        default={}, max_length=FEATURES_MAX, description="Values of declared features; sessions give the rest."
    )
    profile: Given[Name] = Field(default=None, description="The one model profile to use; absent: all, in order.")


class HistoryMessage(Part):
    """A message that was said before; imported when the session is created."""

    role: Literal["user", "assistant"] = Field(description="Who said it.")
    content: Text = Field(description="What was said.")


class SessionConfig(Part):
    """What one session wants otherwise than its agent says."""

    model: Given[Word] = Field(
        default=None, description="The model to ask first: `provider/model`, or the name of a profile or of a model that one has."
    )
    thinking_level: Given[ThinkingLevel] = Field(
        default=None, alias="thinkingLevel", description="How much the model thinks before it answers, whatever its profile says."
    )
    verbose_level: Given[bool] = Field(
        default=None,
        alias="verboseLevel",
        description="Whether the model's visible thoughts are streamed and kept in the journal; absent: they are.",
    )


class SessionSpec(Part):
    """A session of an agent."""

    agent: Name = Field(description="The agent, of the same namespace.")
    features: dict[str, Any] = Field(
        default={}, max_length=FEATURES_MAX, description="Values of features that the agent left open."
    )
    profile: Given[Name] = Field(default=None, description="The one model profile to use; absent: the agent's.")
    config: Given[SessionConfig] = Field(default=None, description="What the session wants otherwise than its agent says.")
    metadata: dict[str, Any] = Field(default={}, description="Free-form JSON for the people who run it; at most 64 KiB.")
    messages: list[HistoryMessage] = Field(
        default=[], max_length=MESSAGES_MAX, description="What was said before; imported when the session is created."
    )
