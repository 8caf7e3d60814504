"""Markdown as far as the tests of the documents need it: pages, code blocks, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCAFFOLD = ROOT / "src" / "talon" / "cli" / "scaffold"
_FENCE = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the words after the fence, its text, the line of the fence."""

    info: tuple[str, ...]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Page:
    """A document. `name` is its path from the root of the repository."""

    name: str
    text: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    def blocks(self) -> Iterator[Block]:
        """The fenced code blocks."""
        for match in _FENCE.finditer(self.text):
            yield Block(tuple(match[2].split()), match[3], self.text.count("\n", 0, match.start()) + 1)

    def indented(self) -> Iterator[str]:
        """Lines of code that are indented by four."""
        for line in _FENCE.sub("", self.text).splitlines():
            if line.startswith("    "):
                yield line[4:]

    def prose(self) -> str:
        """The text without code blocks and comments."""
        return _COMMENT.sub("", _FENCE.sub("", self.text))

    def inline_code(self) -> list[str]:
        """What stands between single backticks."""
        return _CODE.findall(self.prose())

    def links(self) -> list[str]:
        """The targets of links."""
        return _LINK.findall(_CODE.sub(lambda match: "`" + "." * len(match[1]) + "`", self.prose()))

    def anchors(self) -> set[str]:
        """What a link may name after `#`: the headings, as code hosts spell them."""
        found: dict[str, int] = {}
        anchors: set[str] = set()
        for heading in _HEADING.findall(self.prose()):
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            count = found[slug] = found.get(slug, -1) + 1
            anchors.add(f"{slug}-{count}" if count else slug)
        return anchors

    def section(self, heading: str) -> Page:
        """The part from `heading` to the next one."""
        begin = re.search(rf"^#+ {re.escape(heading)} *$", self.text, re.MULTILINE)
        assert begin is not None, f"{self.name} has no heading {heading!r}"
        end = re.search(r"^#{1,6} ", self.text[begin.end() :], re.MULTILINE)
        return Page(self.name, self.text[begin.start() : begin.end() + end.start() if end else None])


@cache
def pages() -> tuple[Page, ...]:
    """Every document of the repository, and the README that `talon init` writes."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changes/*.md"), *ROOT.glob("examples/**/*.md")]
    paths.append(SCAFFOLD / "README.md")
    return tuple(Page(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in sorted(paths))


def page(name: str) -> Page:
    """The document of that path."""
    return next(one for one in pages() if one.name == name)
