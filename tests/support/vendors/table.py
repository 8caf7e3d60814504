"""The table of vendors: the conformance suite runs every row. A new dialect is one more row."""

from __future__ import annotations

from support.vendors.anthropic import ANTHROPIC
from support.vendors.openai_chat import OPENAI
from support.vendors.openai_responses import OPENAI_RESPONSES

VENDORS = (OPENAI, OPENAI_RESPONSES, ANTHROPIC)
