"""The kinds of providers: what each is called, where its vendor is, and which of the vendor's own variables name it. A table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProviderKind = Literal["openai", "openai_responses", "anthropic", "gemini", "bedrock", "ollama", "openrouter", "scripted"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A vendor's wire: `module:class` of its dialect, imported when it is called for the first time; the vendor's own address, in
    which `{region}` is the provider's; the variables that its own programs read (its key's and its address's make a provider of
    the kind's name exist); `module:function` of what finds a key where none is given; the settings that only some kinds read."""

    about: str
    dialect: str
    base_url: str
    key_env: str = ""
    url_env: str = ""
    region_env: tuple[str, ...] = ()
    finds_key: str = ""
    options: frozenset[str] = frozenset()


#: All but `scripted`, which is no vendor.
KINDS: dict[str, Kind] = {
    "openai": Kind(
        "OpenAI's chat completions, and every server that speaks them",
        "talon.providers.openai_chat:OpenAIChat",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        options=frozenset({"max_tokens_field"}),
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
    "gemini": Kind(
        "Google's Gemini API",
        "talon.providers.gemini:Gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
    ),
    "bedrock": Kind(
        "Amazon Bedrock's ConverseStream",
        "talon.providers.bedrock:Bedrock",
        "https://bedrock-runtime.{region}.amazonaws.com",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
        "talon.providers.aws:chain",
        frozenset({"region"}),
    ),
    "ollama": Kind(
        "Ollama's own API",
        "talon.providers.ollama:Ollama",
        "http://127.0.0.1:11434",
        "OLLAMA_API_KEY",
        "OLLAMA_HOST",
    ),
    "openrouter": Kind(
        "OpenRouter",
        "talon.providers.openrouter:OpenRouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        options=frozenset({"max_tokens_field"}),
    ),
}


def kind_of(name: str) -> str:
    """The kind that a provider's name says by itself (`openai-responses`: `openai_responses`); empty if it says none."""
    kind = name.replace("-", "_")
    return kind if kind in KINDS or kind == "scripted" else ""
