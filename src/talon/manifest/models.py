"""Models as agents may name them: what goes with each call, in which order they are tried, and what routes to them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AfterValidator, Field

from talon.manifest.fields import WORD_MAX, Given, Matching, Name, Part, Word, wrong

PROFILES_MAX: Final = 32
FALLBACKS_MAX: Final = 16
STOPS_MAX: Final = 16
SCHEMA_MAX: Final = 64 * 1024

ThinkingLevel = Literal["off", "low", "medium", "high"]


def _json_schema(value: dict[str, Any]) -> dict[str, Any]:
    size = len(msgspec.json.encode(value))
    if size > SCHEMA_MAX:
        raise wrong("too_long", "takes {size} bytes as JSON; at most {most}", size=size, most=SCHEMA_MAX)
    if value.get("type") != "object":
        raise wrong("schema", "must be a JSON Schema of an object: `type: object` and its `properties`")
    return value


class AnswerSchema(Part):
    """What the answer's text must be: JSON that follows a schema."""

    name: Annotated[str, Matching("[A-Za-z0-9_-]{1,64}", "is no name of a schema: letters, digits, _ and -, at most 64")] = Field(
        default="answer", description="What the vendor is told that the schema is called."
    )
    schema_: Annotated[dict[str, Any], AfterValidator(_json_schema)] = Field(
        alias="schema", description="A JSON Schema whose `type` is object; at most 64 KiB as JSON."
    )
    strict: bool = Field(default=True, description="Whether the vendor makes the model follow it; else the model is asked to.")


class Model(Part):
    """A model of a provider, and what goes with each call of it. What is absent is not sent: the provider's own holds."""

    provider: Name = Field(description="A name in the configuration's `providers`.")
    name: Word = Field(description="The model, by the provider's own name for it.")
    temperature: Given[Annotated[float, Field(ge=0, le=2)]] = Field(default=None, description="0 to 2; absent: the provider's own.")
    max_tokens: Given[Annotated[int, Field(ge=1)]] = Field(
        default=None, alias="maxTokens", description="The most tokens of one answer; absent: the provider's own limit."
    )
    top_p: Given[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=None, alias="topP", description="Only the likeliest words that together have this probability."
    )
    top_k: Given[Annotated[int, Field(ge=1)]] = Field(
        default=None, alias="topK", description="Only this many of the likeliest words."
    )
    stop: Given[
        Annotated[list[Annotated[str, Field(min_length=1, max_length=WORD_MAX)]], Field(min_length=1, max_length=STOPS_MAX)]
    ] = Field(default=None, description="Texts at which the answer ends.")
    seed: Given[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(
        default=None, description="Asks for the same answer to the same request, as far as the vendor can."
    )
    thinking_level: Given[ThinkingLevel] = Field(
        default=None, alias="thinkingLevel", description="How much the model thinks before it answers."
    )
    tool_choice: Given[Word] = Field(
        default=None,
        alias="toolChoice",
        description="auto, none, required, or the name of a tool; the last two hold for the first model call of a turn.",
    )
    parallel_tool_calls: Given[bool] = Field(
        default=None, alias="parallelToolCalls", description="Whether one answer may ask for several tools."
    )
    answer_schema: Given[AnswerSchema] = Field(
        default=None,
        alias="answerSchema",
        description="The schema that the vendor makes the answer's text follow; Talon does not check it.",
    )
    on_broken_stream: Given[Literal["reset", "continue"]] = Field(
        default=None,
        alias="onBrokenStream",
        description="An answer that breaks off: reset begins it again; continue, the default, goes on where the model is known to.",
    )


class ProfileDecl(Part):
    """A model under a name that agents and sessions can choose."""

    name: Name = Field(description="What agents and sessions choose it by.")
    model: Model = Field(description="The model.")


class ModelPolicy(Part):
    """Models to try, in this order."""

    profiles: Annotated[list[ProfileDecl], Field(min_length=1, max_length=PROFILES_MAX)] = Field(
        description="Tried in order: the next one when one fails in a way that another model may not."
    )
    select: Literal["order", "task"] = Field(
        default="order",
        description="order: as written; task: first those whose tier (cheap, mid, premium) is that of the turn's task.",
    )
    on_refusal: Literal["end", "next"] = Field(
        default="end",
        alias="onRefusal",
        description="When a model refuses, or its vendor's filter stops it: end the turn, or ask the next model.",
    )


class Route(Part):
    """A model and those that are asked when it fails."""

    primary: Word = Field(description="Asked first: a profile's name, `provider/model`, or a model's name.")
    fallback: Given[Annotated[list[Word], Field(max_length=FALLBACKS_MAX)]] = Field(
        default=None, description="Asked in this order when those before fail."
    )


class ModelRouting(Part):
    """Models by the tier of the data that a turn works on: 0 is public, 1 internal, 2 confidential. A tier that is not here takes
    the route of the next higher one."""

    tier_0: Given[Route] = Field(default=None, description="For public data; also where nothing says what the data is.")
    tier_1: Given[Route] = Field(default=None, description="For internal data.")
    tier_2: Given[Route] = Field(default=None, description="For confidential data.")


class Policies(Part):
    """What is decided for an agent."""

    model_routing: Given[ModelRouting] = Field(default=None, description="Models by the tier of the data.")
