"""Label selectors, in the grammar that Kubernetes uses: `app=x, tier!=y, env in (a,b), zone notin (c), new, !old`."""

from __future__ import annotations

import re
from typing import Final, NoReturn

from talon.domain.errors import FieldError, Invalid
from talon.domain.resources import Requirement
from talon.manifest.document import shown
from talon.manifest.fields import LABEL_KEY, LABEL_VALUE

SELECTOR_MAX: Final = 4096
REQUIREMENTS_MAX: Final = 32
VALUES_MAX: Final = 100
_TOKEN: Final = re.compile(r"\s*(?:(?P<mark>==|!=|=|!|\(|\)|,)|(?P<word>[^\s=!(),]+))")


def parse_selector(text: str, field: str = "label_selector") -> tuple[Requirement, ...]:
    """All requirements of `text`, none for an empty one. `!=` and `notin` also hold where the label is absent.

    Raises `Invalid` about `field`, with the place in the text.
    """
    if len(text) > SELECTOR_MAX:
        _refuse(field, text, f"has {len(text)} characters; at most {SELECTOR_MAX}")
    reader = _Reader(field, text)
    found: list[Requirement] = []
    while reader.more:
        if found:
            reader.take(",")
        found.append(_requirement(reader))
        if len(found) > REQUIREMENTS_MAX:
            _refuse(field, text, f"has more than {REQUIREMENTS_MAX} requirements")
    return tuple(found)


def _requirement(reader: _Reader) -> Requirement:
    if reader.took("!"):
        return Requirement(reader.key(), "absent")
    key = reader.key()
    if reader.took("=") or reader.took("=="):
        return Requirement(key, "in", (reader.value(),))
    if reader.took("!="):
        return Requirement(key, "notin", (reader.value(),))
    if reader.took("in"):
        return Requirement(key, "in", reader.values())
    if reader.took("notin"):
        return Requirement(key, "notin", reader.values())
    if reader.more and reader.next != ",":
        reader.refuse("=, ==, !=, in, notin or a comma")
    return Requirement(key, "exists")


class _Reader:
    """The tokens of a selector, one after the other."""

    def __init__(self, field: str, text: str) -> None:
        self._field, self._text, self._at = field, text, 0
        self._tokens: list[tuple[str, int]] = []
        end = len(text.rstrip())
        while self._at < end:
            match = _TOKEN.match(text, self._at)
            if match is None:  # pragma: no cover - every character is a mark, a part of a word or space
                _refuse(field, text, f"cannot be read at character {self._at + 1}")
            self._tokens.append((match["mark"] or match["word"], match.end()))
            self._at = match.end()
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._tokens)

    @property
    def next(self) -> str:
        return self._tokens[self._at][0] if self.more else ""

    def took(self, token: str) -> bool:
        """Take the next token if it is this one."""
        if self.next != token:
            return False
        self._at += 1
        return True

    def take(self, token: str) -> None:
        if not self.took(token):
            self.refuse(repr(token))

    def key(self) -> str:
        return self._word(LABEL_KEY.pattern, "a label's key")

    def value(self) -> str:
        """A value; none is the empty one."""
        return "" if not self.more or self.next == "," else self._word(LABEL_VALUE.pattern, "a label's value")

    def values(self) -> tuple[str, ...]:
        self.take("(")
        found: list[str] = []
        while True:
            found.append("" if self.next in (",", ")") else self._word(LABEL_VALUE.pattern, "a label's value"))
            if self.took(")"):
                break
            self.take(",")
            if len(found) >= VALUES_MAX:
                _refuse(self._field, self._text, f"has more than {VALUES_MAX} values in one list")
        return tuple(dict.fromkeys(found))

    def refuse(self, wanted: str) -> NoReturn:
        place = f"at character {self._tokens[self._at][1] - len(self.next) + 1}: {self.next!r}" if self.more else "at its end"
        _refuse(
            self._field, self._text, f"is no label selector {place}, where {wanted} should be (app=x,tier!=y,env in (a,b),!old)"
        )

    def _word(self, pattern: str, what: str) -> str:
        word = self.next
        if not word or re.fullmatch(pattern, word) is None:
            self.refuse(what)
        self._at += 1
        return word


def _refuse(field: str, text: str, why: str) -> NoReturn:
    raise Invalid("invalid", f"{field}: {why}", (FieldError(field, why, shown(text)),))
