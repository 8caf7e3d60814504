"""Features: the typed parameters that a template declares and that an agent or a session gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from talon.domain.errors import FieldError
from talon.manifest.complaints import nearest, what
from talon.manifest.document import shown
from talon.manifest.effective import Effective, Feature

_EXPECTED = {"string": "text", "number": "a number", "boolean": "true or false", "list": "a list"}
Wrong = tuple[str, str, Any]  # name of the feature, what is wrong, the value


def wrong_value(feature: Feature, value: Any) -> str:
    """Why `value` is none for `feature`, or nothing."""
    if feature.type == "enum":
        if isinstance(value, str) and value in feature.values:
            return ""
        return f"must be one of {', '.join(feature.values)}"
    fits = {
        "string": isinstance(value, str),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "list": isinstance(value, list),
    }[feature.type]
    if not fits:
        quotes = "; put it in quotes" if feature.type == "string" and isinstance(value, int | float) else ""
        return f"must be {_EXPECTED[feature.type]}, not {what(value)}{quotes}"
    if isinstance(value, list):
        for at, item in enumerate(cast(list[Any], value)):
            if not isinstance(item, str | int | float):
                return f"item {at} must be text, a number or a boolean, not {what(item)}"
    return ""


def wrong_features(declared: Iterable[Feature], given: Mapping[str, Any]) -> list[Wrong]:
    """Every given feature that is unknown or has a wrong value. What is missing is no matter here."""
    known = {feature.name: feature for feature in declared}
    wrong: list[Wrong] = []
    for name, value in given.items():
        if name not in known:
            hint = nearest(name, known) or "; this agent declares none"
            wrong.append((name, f"unknown feature{hint}", None))
        elif reason := wrong_value(known[name], value):
            wrong.append((name, reason, value))
    return wrong


def check_session_features(effective: Effective, given: Mapping[str, Any]) -> list[Wrong]:
    """What is wrong with a session's features on an agent: unknown, of a wrong type, missing, or fixed by the agent.

    What the agent itself gives is its author's decision (a tool may be bound to it): a session may repeat it, not change it.
    """
    wrong = wrong_features(effective.declared, given)
    for name, value in given.items():
        if name in effective.features and effective.features[name] != value:
            wrong.append((name, f"is set by agent {effective.name} and cannot be changed by a session", value))
    for feature in effective.declared:
        if feature.required and feature.default is None and feature.name not in effective.features and feature.name not in given:
            kind = f"one of {', '.join(feature.values)}" if feature.type == "enum" else _EXPECTED[feature.type]
            about = f" ({feature.description})" if feature.description else ""
            wrong.append((feature.name, f"is missing: agent {effective.name} needs it ({kind}) from the session{about}", None))
    return wrong


def session_feature_errors(effective: Effective, given: Mapping[str, Any], field: str = "features") -> tuple[FieldError, ...]:
    """`check_session_features` as field errors below `field`; empty if all is well."""
    return tuple(
        FieldError(f"{field}.{shown(name)}", message, shown(value))
        for name, message, value in check_session_features(effective, given)
    )


def feature_values(effective: Effective, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a turn runs with: the declared defaults, over them the session's, over them the agent's own.

    Features that the agent does not declare (any more) are left out; those that nobody gives are absent.
    """
    values: dict[str, Any] = {}
    for feature in effective.declared:
        for source in (effective.features, given):
            if feature.name in source:
                values[feature.name] = source[feature.name]
                break
        else:
            if feature.default is not None:
                values[feature.name] = feature.default
    return values
