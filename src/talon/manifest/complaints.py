"""What the models found wrong, in words that say what to write instead."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from talon.domain.errors import FieldError
from talon.manifest import kinds
from talon.manifest.document import ERRORS_MAX, Document, Path, rest

#: What stands below a field of this name may be secret and is never shown.
_HIDDEN: Final = frozenset({"value", "env", "headers"})
#: Which form of a value was read: pydantic puts it into the place, the user did not.
_FORMS: Final = frozenset({"text", "ref"})
#: A longer word is no misspelling, and comparing it would take long.
_WORD_MAX: Final = 128
_MAPPINGS: Final = frozenset({"dict_type", "model_type", "model_attributes_type"})
_SHAPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of fields to values",
    "model_type": "a mapping of fields to values",
    "model_attributes_type": "a mapping of fields to values",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'systemPrompt'?`, or the list of what is known, or nothing if nothing is."""
    if len(word) > _WORD_MAX:
        return ""
    names = list(known)
    folded = {name.casefold().replace("_", "").replace("-", ""): name for name in names}
    close = difflib.get_close_matches(word.casefold().replace("_", "").replace("-", ""), folded, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def what(value: Any) -> str:
    """The kind of a value, as a user would say it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a mapping"


def complaints(document: Document, model: type[BaseModel], error: ValidationError, root: Path = ()) -> list[FieldError]:
    """Every error of `error` (from validating the value at `root` of `document` as `model`) as a field error: the first
    `ERRORS_MAX`, and one that counts the others."""
    found = error.errors(include_url=False)
    told = [_complaint(document, model, one, root) for one in found[:ERRORS_MAX]]
    return told + rest(document, len(found) - len(told))


def _complaint(document: Document, model: type[BaseModel], one: ErrorDetails, root: Path) -> FieldError:
    loc = _written(document.data, root, one["loc"])
    path = _existing(document.data, (*root, *loc), missing=one["type"] in ("missing", "extra_forbidden"))
    if one["type"] == "extra_forbidden":
        # The value is not shown: under an unknown name may stand anything, a password too.
        hint = nearest(str(loc[-1]), known_fields(model, loc[:-1]))
        if model is kinds.SecretDoc and path[:1] != ("metadata",) and "did you mean" not in hint:
            return document.error(path[:-1], f"has a field that is not known and not shown: it may be the value{hint}")
        return document.error(path, f"unknown field{hint}")
    # Text where a mapping should be may be anything that was meant to stand in it.
    hidden = one["type"] == "missing" or one["type"] in _MAPPINGS or not _HIDDEN.isdisjoint(path)
    value = None if hidden else one["input"]
    return document.error(path, _message(one), value)


def _message(one: ErrorDetails) -> str:
    kind, context, value = one["type"], one.get("ctx", {}), one["input"]
    if kind == "missing":
        return "is missing"
    if kind in _SHAPES:
        hint = "; put it in quotes" if kind == "string_type" and isinstance(value, int | float) else ""
        found = "one with a fraction" if kind == "int_from_float" else what(value)
        return f"must be {_SHAPES[kind]}, not {found}{hint}"
    if kind == "literal_error":
        words = str(context["expected"])
        hint = nearest(value, words.replace("'", "").replace(" or ", ", ").split(", ")) if isinstance(value, str) else ""
        return f"must be {words}" + (hint if "did you mean" in hint else "")
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}"
    if kind in ("string_too_short", "too_short"):
        return "must not be empty"
    if kind == "string_too_long":
        return f"has more than {context['max_length']} characters"
    if kind == "too_long":
        return f"has more than {context['max_length']} items"
    return one["msg"]


def _written(data: Any, root: Path, loc: tuple[int | str, ...]) -> Path:
    """`loc` as the user wrote it: without what pydantic adds to tell keys from values and one form of a value from another."""
    path: Path = ()
    at: Any = data
    for part in (*root, *loc):
        inside = cast(dict[Any, Any] | list[Any], at) if isinstance(at, dict | list) else ()
        known = part in inside if isinstance(inside, dict) else isinstance(part, int) and part < len(inside)
        if part == "[key]" or (part in _FORMS and not known):
            continue
        path = (*path, part)
        at = cast(Any, inside)[part] if known else None
    return path[len(root) :]


def _existing(data: Any, path: Path, *, missing: bool) -> Path:
    """`path`, without what a shorthand left out (`templateRef: x` has no `name` below it)."""
    for end, part in enumerate(path):
        if missing and end == len(path) - 1:
            return path
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return path[:end]
    return path


def known_fields(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The field names that may stand at `loc` below `model`, as they are written."""
    at: Any = model
    for part in loc:
        at = _inside(at)
        if isinstance(at, type) and issubclass(at, BaseModel):
            at = next((f.annotation for name, f in at.model_fields.items() if (f.alias or name) == part), None)
        else:
            at = (get_args(at) or (None,))[-1]  # the items of a list, the values of a mapping
    at = _inside(at)
    if isinstance(at, type) and issubclass(at, BaseModel):
        return [f.alias or name for name, f in at.model_fields.items()]
    return []


def _inside(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            forms = [_inside(arg) for arg in get_args(annotation) if arg is not type(None)]
            models = [form for form in forms if isinstance(form, type) and issubclass(form, BaseModel)]
            annotation = (models or forms or [None])[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation
