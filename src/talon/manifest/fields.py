"""What fields are made of: names, durations, points in time, values that may come from a Secret; and the base of all mappings.

Nothing is coerced: `"1"` is no number. A field that is written must have a value: `null` is refused where no field takes it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from talon.domain.ids import NAME_MAX, is_name, is_namespace

T = TypeVar("T")

WORD_MAX: Final = 256
TEXT_MAX: Final = 1024 * 1024
LIST_MAX: Final = 500
LABELS_MAX: Final = 64
ANNOTATIONS_MAX: Final = 64
DURATION_MAX_MS: Final = 366 * 86_400_000
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
#: Control and format characters (those that turn the direction of text too), halves of pairs, separators and odd spaces.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_DURATION: Final = r"^(?=[0-9])([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
_NAME_PATTERN: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def wrong(kind: str, message: str, **context: Any) -> PydanticCustomError:
    """An error whose message is for the user as it stands (`{name}` is taken from `context`)."""
    return PydanticCustomError(kind, message, context or None)  # pyright: ignore[reportArgumentType] - it wants a literal


@dataclass(frozen=True, slots=True)
class Matching:
    """Text that matches `pattern` as a whole; `message` says what that means."""

    pattern: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise wrong("pattern", self.message)
        return text


def _given(value: Any) -> Any:
    if value is None:
        raise wrong("no_value", "has no value: write one, or leave the field out")
    return value


def _name(text: str) -> str:
    if not is_name(text):
        raise wrong("name", "is no name: {why}", why=why_no_name(text))
    return text


def _namespace(text: str) -> str:
    if not is_namespace(text):
        raise wrong("name", "is no namespace: {why}", why=why_no_name(text, namespace=True))
    return text


def why_no_name(text: str, *, namespace: bool = False) -> str:
    """What keeps `text` from being a name (a namespace: names joined by `:`), in words that say what to change."""
    parts = text.split(":") if namespace else [text]
    if text == "":
        return "it is empty"
    if any(part == "" for part in parts):
        return "a part between two : is empty"
    if namespace and len(text) > 255:
        return f"it has {len(text)} characters, at most 255"
    longest = max(parts, key=len)
    if len(longest) > NAME_MAX:
        return f"it has {len(longest)} characters, at most {NAME_MAX}"
    odd = next((char for char in text if not (char in "abcdefghijklmnopqrstuvwxyz0123456789-" or (namespace and char == ":"))), "")
    if odd and odd.lower() != odd and odd.lower() in "abcdefghijklmnopqrstuvwxyz":
        return f"{odd!r} is upper case; write it in lower case"
    if odd:
        return f"{odd!a} may not be in it; only a-z, 0-9 and - may"
    return "it must begin and end with a letter or a digit"


def _word(text: str) -> str:
    """What people and programs compare by eye and by bytes must be the same to both."""
    hidden = next((char for char in text if char != " " and unicodedata.category(char) in _INVISIBLE), "")
    if hidden:
        raise wrong("word", "holds the invisible character {char}; take it out", char=f"U+{ord(hidden):04X}")
    if text != text.strip():
        raise wrong("word", "begins or ends with a space; take it out")
    if unicodedata.normalize("NFC", text) != text:
        raise wrong("word", "is not in Unicode's composed form (NFC), so that it equals no other spelling; write it composed")
    return text


def duration_ms(text: str) -> int:
    """A duration (`90s`, `5m`, `1h30m`, `2d`, `500ms`) in milliseconds. `text` must be a `Duration`."""
    return sum(int(count) * _UNIT_MS[unit] for count, unit in re.findall(r"([0-9]+)(ms|[dhms])", text))


def _duration(text: str) -> str:
    if re.fullmatch(_DURATION, text) is None:
        raise wrong("duration", "is no duration: write whole numbers with d, h, m, s or ms, largest first: 90s, 5m, 1h30m")
    if not 0 < duration_ms(text) <= DURATION_MAX_MS:
        raise wrong("duration", "must be longer than nothing and at most 366d")
    return text


@dataclass(frozen=True, slots=True)
class _Given:
    """A field that may be left out, and has a value if it is not: neither the reader nor the schema knows `null`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_given, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        forms = [one for one in found.get("anyOf", [found]) if one != {"type": "null"}]
        return forms[0] if len(forms) == 1 else {**found, "anyOf": forms}


Given = Annotated[T | None, _Given()]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME_PATTERN}$"})]
NamespaceName = Annotated[
    str,
    AfterValidator(_namespace),
    WithJsonSchema({"type": "string", "maxLength": 255, "pattern": f"^{_NAME_PATTERN}(:{_NAME_PATTERN})*$"}),
]
FeatureName = Annotated[
    str,
    Matching(
        "[A-Za-z_][A-Za-z0-9_-]{0,62}",
        "is no feature name: letters, digits, _ and -, not beginning with a digit or -, at most 63",
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
Word = Annotated[str, Field(min_length=1, max_length=WORD_MAX), AfterValidator(_word)]
Count = Annotated[int, Field(ge=0)]
Duration = Annotated[
    str, AfterValidator(_duration), WithJsonSchema({"type": "string", "pattern": _DURATION, "examples": ["90s", "5m", "1h30m"]})
]
LABEL_KEY: Final = Matching(
    "[A-Za-z0-9]([A-Za-z0-9._/-]{0,252}[A-Za-z0-9])?",
    "is no label key: letters, digits, '.', '_', '-' and '/', at most 254, a letter or digit at both ends",
)
LABEL_VALUE: Final = Matching(
    "([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?",
    "is no label value: letters, digits, '.', '_' and '-', at most 63, a letter or digit at both ends",
)
LabelKey = Annotated[str, LABEL_KEY]
LabelValue = Annotated[str, LABEL_VALUE]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=LABELS_MAX)]
Annotations = Annotated[dict[LabelKey, Annotated[str, Field(max_length=TEXT_MAX)]], Field(max_length=ANNOTATIONS_MAX)]
Words = Annotated[list[Word], Field(max_length=LIST_MAX)]
Names = Annotated[list[Name], Field(max_length=LIST_MAX)]


class Part(BaseModel):
    """Base of all: closed, strict, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Without the titles and the `null` defaults that nobody wrote; mappings whose names have a form are closed."""
        found = handler.resolve_ref_schema(handler(schema))
        for field in found.get("properties", {}).values():
            field.pop("title", None)
            if field.get("default", 0) is None:
                del field["default"]
            if "patternProperties" in field:
                field["additionalProperties"] = False
        return found


class SecretRef(Part):
    """A value that a Secret of the same namespace holds."""

    secret_ref: Name = Field(alias="secretRef", description="The name of a Secret in the resource's own namespace.")
