"""The effective agent: what a turn runs on after every reference is resolved. Immutable; one per revision (K12)."""

from __future__ import annotations

from typing import Any

import msgspec


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """A typed parameter that an Agent or a Session must give. `type`: string | number | boolean | enum | list."""

    name: str
    type: str = "string"
    required: bool = False
    default: Any = None
    values: tuple[str, ...] = ()  # for enum
    description: str = ""


class AnswerForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON Schema that an answer's text follows, under a name; `strict`: the vendor makes the model follow it."""

    name: str
    schema: dict[str, Any]
    strict: bool = True


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model to try, with what goes with its calls. `provider` is a name in `providers.NAME` of the configuration.
    `on_broken_stream`: reset | continue; empty: continue, where the model can."""

    name: str
    provider: str
    model: str
    temperature: float | None = None
    max_output_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    thinking: str = ""
    tool_choice: str = ""
    parallel_tool_calls: bool | None = None
    answer_schema: AnswerForm | None = None
    on_broken_stream: str = ""


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `model_routing` says of a tier: names of profiles or models, the first one and those after it."""

    primary: str
    fallback: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one turn; each ends it as `turn.failed` with its own reason. 0 means no limit (except `model_calls_max` ≥ 1)."""

    model_calls_max: int = 10
    tool_calls_max: int = 50
    wall_time_max_s: float = 3600.0
    tokens_max: int = 0
    model_retries_max: int = 20


class Effective(msgspec.Struct, frozen=True, omit_defaults=True):
    """A resolved agent. `system_prompt` still has its `{{ feature }}` places: a session may give features too.

    `tool_refs` are the toolsets named in `mcpServerRefs`; `allowed_tools` narrows what they grant, or, without refs, names built-in
    tools; None and no refs means no tools. `knowledge_refs` are names of Knowledge. `features` are the agent's own values.
    `routing` is by tier of data, `0` to `2`. `select`: order | task. `on_refusal`: end | next.
    """

    namespace: str
    name: str
    system_prompt: str
    profiles: tuple[Profile, ...]
    profile: str = ""
    declared: tuple[Feature, ...] = ()
    features: dict[str, Any] = {}
    tool_refs: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    limits: Limits = Limits()
    template: str = ""
    knowledge_refs: tuple[str, ...] = ()
    routing: dict[str, Route] = {}
    select: str = "order"
    on_refusal: str = "end"


def encode(effective: Effective) -> bytes:
    """As canonical JSON bytes: the same agent gives the same bytes, so their digest tells revisions apart."""
    return msgspec.json.encode(effective, order="deterministic")


_DECODER = msgspec.json.Decoder(Effective)


def decode(data: bytes) -> Effective:
    """Back from `encode`."""
    return _DECODER.decode(data)
