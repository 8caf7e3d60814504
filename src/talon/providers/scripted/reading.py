"""From a script's YAML text to its parts, with every wrong place named."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

import msgspec
import yaml

from talon.domain.errors import FieldError, Invalid
from talon.providers.scripted import template
from talon.providers.scripted.model import Answer, Defaults, Rule, When

_T = TypeVar("_T")


class Parts(msgspec.Struct, frozen=True):
    """What a script consists of."""

    rules: tuple[Rule, ...]
    default: Answer | None
    defaults: Defaults


def read(text: str, source: str) -> Parts:
    """Read YAML `text`; `source` names it in errors. Raises `Invalid` with one `FieldError` for each wrong place."""
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid("invalid", f"the model script {source} is not YAML: {' '.join(str(error).split())}") from None
    errors: list[FieldError] = []
    parts = _parts(data, errors)
    if errors or parts is None:
        words = "; ".join(f"{e.field}: {e.message}" for e in errors)
        raise Invalid("invalid", f"the model script {source} is not valid: {words}", tuple(errors))
    return parts


def _parts(data: Any, errors: list[FieldError]) -> Parts | None:
    if not isinstance(data, dict):
        errors.append(FieldError("$", "a script is a mapping with `rules`, `default` and `defaults`"))
        return None
    fields = cast("dict[str, Any]", data)
    errors += [FieldError(str(key), "unknown field", None) for key in fields if key not in ("rules", "default", "defaults")]
    raw: list[Any] = fields.get("rules") or []
    if not isinstance(raw, list):
        errors.append(FieldError("rules", "must be a list"))
        raw = []
    rules = [_part(item, Rule, f"rules[{n}]", errors) for n, item in enumerate(raw)]
    default = _part(fields["default"], Answer, "default", errors) if "default" in fields else None
    defaults = _part(fields.get("defaults") or {}, Defaults, "defaults", errors)
    if not raw and default is None and not errors:
        errors.append(FieldError("rules", "there is no rule and no default: the script answers nothing"))
    for n, rule in enumerate(rules):
        if rule is not None:
            _check(rule, _groups(rule.when, f"rules[{n}].when", errors), f"rules[{n}]", errors)
    if default is not None:
        _check(default, frozenset(), "default", errors)
    return Parts(tuple(rule for rule in rules if rule is not None), default, defaults or Defaults())


def _part(data: Any, kind: type[_T], field: str, errors: list[FieldError]) -> _T | None:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        errors.append(FieldError(field + path.rstrip("`"), message))
        return None


def _groups(when: When, field: str, errors: list[FieldError]) -> frozenset[str]:
    names: set[str] = set()
    for key, pattern in (("user_matches", when.user_matches), ("result_matches", when.result_matches)):
        if pattern is None:
            continue
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            errors.append(FieldError(f"{field}.{key}", f"not a regular expression: {error}", pattern))
            continue
        names |= set(compiled.groupindex) | {str(n) for n in range(1, compiled.groups + 1)}
    return frozenset(names)


def _check(answer: Answer, groups: frozenset[str], field: str, errors: list[FieldError]) -> None:
    if not (answer.text or answer.reasoning or answer.calls or answer.fault):
        errors.append(FieldError(field, "says nothing: give it text, calls or a fault"))
    places = {"text": answer.text, "reasoning": answer.reasoning}
    places |= {f"calls[{n}].arguments": call.arguments for n, call in enumerate(answer.calls)}
    for key, value in places.items():
        errors += [FieldError(f"{field}.{key}", problem) for problem in template.check(value, groups)]
