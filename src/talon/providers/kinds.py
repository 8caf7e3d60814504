"""The kinds of providers: what each is called, where its vendor is, and which of the vendor's own variables name it. A table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProviderKind = Literal["openai", "openai_responses", "anthropic", "scripted"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A vendor's wire: `module:class` of its dialect, imported when it is called for the first time; the vendor's own address; the
    variables that its own programs read, which make a provider of the kind's name exist."""

    about: str
    dialect: str
    base_url: str
    key_env: str = ""
    url_env: str = ""


#: All but `scripted`, which is no vendor.
KINDS: dict[str, Kind] = {
    "openai": Kind(
        "OpenAI's chat completions, and every server that speaks them",
        "talon.providers.openai_chat:OpenAIChat",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    ),
    "openai_responses": Kind(
        "OpenAI's Responses API",
        "talon.providers.openai_responses:OpenAIResponses",
        "https://api.openai.com/v1",
    ),
    "anthropic": Kind(
        "Anthropic's Messages API",
        "talon.providers.anthropic:Anthropic",
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
    ),
}


def kind_of(name: str) -> str:
    """The kind that a provider's name says by itself (`openai-responses`: `openai_responses`); empty if it says none."""
    kind = name.replace("-", "_")
    return kind if kind in KINDS or kind == "scripted" else ""
