"""Places in a script's texts: `{{ user }}`, `{{ match.days | json }}`. Checked when the script is read, filled in per request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from talon.providers.scripted.conversation import Conversation

_PLACE = re.compile(r"\{\{\s*([a-z]+)(?:\.(\w+))?\s*(\|\s*json\s*)?\}\}")
_ANY = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_PLAIN = frozenset({"user", "system", "model", "step", "results", "result"})


def check(value: Any, groups: frozenset[str]) -> list[str]:
    """What is wrong with the places in every string of `value`; `groups` are the names that `match.` may take."""
    if isinstance(value, str):
        return [problem for place in _ANY.findall(value) if (problem := _problem(place, value, groups))]
    if isinstance(value, Mapping):
        return [p for item in cast("Mapping[str, Any]", value).values() for p in check(item, groups)]
    if isinstance(value, list | tuple):
        return [p for item in cast("list[Any]", value) for p in check(item, groups)]
    return []


def _problem(place: str, text: str, groups: frozenset[str]) -> str:
    found = _PLACE.fullmatch(place)
    if not found:
        return f"{place} is not a place; places look like {{{{ user }}}} or {{{{ match.name | json }}}}"
    name, key, as_json = found.groups()
    if as_json and text.strip() != place:
        return f"{place}: '| json' must be the whole text"
    if name == "match":
        return (
            ""
            if key in groups
            else f"{place}: no such group; there are {sorted(groups) or 'none (no user_matches or result_matches)'}"
        )
    if key and not (name == "result" and key.isdecimal()):
        return f"{place}: only match and result take a part"
    return "" if name in _PLAIN else f"{place}: unknown; there are {sorted(_PLAIN)} and match.GROUP"


def render(value: Any, conversation: Conversation, groups: Mapping[str, str]) -> Any:
    """`value` with every place filled in. A text that is one `{{ … | json }}` becomes the JSON value that the place holds.

    Raises `ValueError` when that is not JSON. A result that is not there is the empty text.
    """
    if isinstance(value, str):
        if "{{" not in value:
            return value
        alone = _PLACE.fullmatch(value.strip())
        if alone and alone[3]:
            text = _value(alone, conversation, groups)
            try:
                return msgspec.json.decode(text)
            except msgspec.DecodeError:
                raise ValueError(f"{value.strip()} is {text!r}, which is not JSON") from None
        return _PLACE.sub(lambda found: _value(found, conversation, groups), value)
    if isinstance(value, Mapping):
        return {key: render(item, conversation, groups) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [render(item, conversation, groups) for item in cast("list[Any]", value)]
    return value


def _value(found: re.Match[str], conversation: Conversation, groups: Mapping[str, str]) -> str:
    name, key = found[1], found[2]
    match name:
        case "match":
            return groups[key]
        case "result":
            index = int(key) if key else len(conversation.results) - 1
            return conversation.results[index] if 0 <= index < len(conversation.results) else ""
        case "results":
            return str(len(conversation.results))
        case _:
            return str(getattr(conversation, name))
