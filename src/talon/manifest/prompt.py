"""System prompts: text with `{{ feature }}` places. Nothing else is a place: no expressions, no loops, no second pass."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from talon.manifest.effective import Effective
from talon.manifest.features import feature_values

#: `\{{` is a literal `{{`.
_PLACE = re.compile(r"(\\?)\{\{([^{}\n]*)\}\}")
#: The place in a schedule's message that is no feature: when it was due.
SCHEDULED_AT: Final = "scheduled_at"


def places(text: str) -> list[str]:
    """What stands in the places of `text`, in order, each once."""
    return list(dict.fromkeys(match[2].strip(" \t") for match in _PLACE.finditer(text) if not match[1]))


def render_prompt(effective: Effective, given: Mapping[str, Any]) -> str:
    """The system prompt of a turn, with the features `given` by its session.

    A value is put in as it is and never read for places again.
    Lists are joined by ", ", booleans are `true` and `false`, what nobody gave is empty. Raises nothing.
    """
    return _filled(effective.system_prompt, feature_values(effective, given))


def render_message(text: str, effective: Effective, given: Mapping[str, Any], scheduled_at: str) -> str:
    """The message of a schedule: places are the agent's features, as its session has `given` them, and `scheduled_at`. Raises
    nothing."""
    return _filled(text, {**feature_values(effective, given), SCHEDULED_AT: scheduled_at})


def asks_session(text: str, effective: Effective) -> bool:
    """Whether a place of a schedule's message is a feature that a session may give."""
    open_ = {feature.name for feature in effective.declared if feature.name not in effective.features}
    return not open_.isdisjoint(places(text))


def _filled(text: str, values: Mapping[str, Any]) -> str:
    def fill(match: re.Match[str]) -> str:
        return match[0][1:] if match[1] else as_text(values.get(match[2].strip(" \t")))

    return _PLACE.sub(fill, text)


def as_text(value: Any) -> str:
    """A feature's value in a prompt."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(as_text(item) for item in cast(list[Any], value))
    return json.dumps(value, ensure_ascii=False)
