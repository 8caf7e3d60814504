"""The table of vendors: the conformance suite runs every row. A new dialect is one more row."""

from __future__ import annotations

from support.vendors.anthropic import ANTHROPIC
from support.vendors.bedrock import BEDROCK
from support.vendors.gemini import GEMINI
from support.vendors.ollama import OLLAMA
from support.vendors.openai_chat import OPENAI
from support.vendors.openai_responses import OPENAI_RESPONSES
from support.vendors.openrouter import OPENROUTER

VENDORS = (OPENAI, OPENAI_RESPONSES, ANTHROPIC, GEMINI, BEDROCK, OLLAMA, OPENROUTER)
