"""Manifests from files: which files, which documents are in them, and where each field stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from talon.cli.errors import WrongUse
from talon.cli.output import note
from talon.cli.text import counted
from talon.domain.errors import FieldError, TalonError
from talon.manifest.document import Document, path_text
from talon.manifest.parse import Form, parse

SUFFIXES = (".yaml", ".yml", ".json")
WARNINGS_SHOWN = 20
#: Of a file of many documents so much is read at once.
PIECE_DOCUMENTS, PIECE_BYTES = 100, 512 * 1024
#: Where a document begins: in YAML no text can hold such a line.
_BETWEEN = re.compile(rb"^---(?=\s)", re.MULTILINE)
#: The program's own configuration, not a manifest.
CONFIGURATION = ("talon.yaml", "talon.yml")
_DOCUMENT = re.compile(r"document (\d+)")
_OTHER = re.compile(r"\bin document (\d+)(?:, line \d+)?")


@dataclass(frozen=True, slots=True)
class Source:
    """A document and the file that it came from."""

    file: str
    document: Document

    def place(self, field: str) -> str:
        """`agents/a.yaml line 7` for the field, or for the nearest thing around it whose line is known."""
        lines = {path_text(path): line for path, line in self.document.lines.items()}
        while field and field not in lines:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        line = lines.get(field)
        return f"{self.file} line {line}" if line else f"{self.file} document {self.document.index}"


def collect(names: Sequence[str]) -> list[Source]:
    """The documents of files, directories (recursively, in order of their names) and `-` (standard input).

    Raises `WrongUse` with every mistake that reading them finds.
    """
    found: list[Source] = []
    mistakes: list[str] = []
    for file, data in _files(names, mistakes):
        try:
            form: Form = "json" if file.endswith(".json") else "yaml"
            documents = [document for piece in _pieces(data) for document in parse(piece, form)]
        except TalonError as error:
            mistakes.append(f"{file}: {error.detail}")
            continue
        for document in documents:
            source = Source(file, document)
            found.append(source)
            mistakes += [said(source, problem) for problem in document.problems]
    if mistakes:
        raise WrongUse(*mistakes)
    if not found:
        raise WrongUse(f"no manifest in {', '.join(names)}: looked for {', '.join('*' + suffix for suffix in SUFFIXES)}")
    return found


def said(source: Source, problem: FieldError) -> str:
    """One wrong field in words: `agents/a.yaml line 7: spec.templateRef: …`."""
    message = problem.message
    if message.startswith("document "):  # the server counts documents; the user has files
        message = message.partition(": ")[2] or message
    return f"{source.place(problem.field)}: {problem.field + ': ' if problem.field else ''}{message}"


def placed_in(namespace: str, document: Any) -> Any:
    """The document with `namespace` where it names none; what is no manifest goes as it is, for the server to refuse."""
    if not isinstance(document, dict):
        return document
    data = cast(dict[str, Any], document)
    metadata: Any = data.get("metadata")
    if "kind" not in data:
        return {"ns": namespace, **data}
    if data["kind"] == "Namespace" or not isinstance(metadata, dict):
        return data
    return {**data, "metadata": {"namespace": namespace, **cast(dict[str, Any], metadata)}}


def placed(sources: Sequence[Source], problem: Mapping[str, Any]) -> str:
    """A remark about `document N` of all `sources`, at the file and line where that stands."""
    field, message = str(problem.get("field") or ""), str(problem["message"])
    number = _DOCUMENT.match(message)
    if number is None or not 0 < int(number[1]) <= len(sources):
        return f"{field + ': ' if field else ''}{message}"
    return said(sources[int(number[1]) - 1], FieldError(field, _OTHER.sub(lambda other: _place_of(sources, other), message)))


def warn(sources: Sequence[Source], warnings: Sequence[Mapping[str, Any]]) -> None:
    """Say the warnings of an apply on stderr; of many the first, and how many there are."""
    for warning in warnings[:WARNINGS_SHOWN]:
        note(f"warning: {placed(sources, warning)}")
    if len(warnings) > WARNINGS_SHOWN:
        note(f"and {counted(len(warnings) - WARNINGS_SHOWN, 'more warning')}; apply -o json has them all")


def _place_of(sources: Sequence[Source], other: re.Match[str]) -> str:
    """Another document that a message speaks of, as the user knows it."""
    index = int(other[1]) - 1
    return f"in {sources[index].place('')}" if index < len(sources) else other[0]


def _pieces(data: bytes) -> Iterator[bytes]:
    """A file of many documents in pieces that can be read at once, each behind as many empty lines as there are lines before it."""
    if len(data) <= PIECE_BYTES and data.count(b"\n---") < PIECE_DOCUMENTS:
        yield data
        return
    begin = documents = 0
    for match in _BETWEEN.finditer(data):
        documents += 1
        if documents >= PIECE_DOCUMENTS or match.start() - begin >= PIECE_BYTES:
            yield b"\n" * data.count(b"\n", 0, begin) + data[begin : match.start()]
            begin, documents = match.start(), 0
    if data[begin:].strip() != b"---":
        yield b"\n" * data.count(b"\n", 0, begin) + data[begin:]


def _files(names: Sequence[str], mistakes: list[str]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for name in names:
        if name == "-":
            found.append(("standard input", sys.stdin.buffer.read()))
            continue
        path = Path(name)
        for file in _below(path) if path.is_dir() else [path]:
            try:
                found.append((str(file), file.read_bytes()))
            except OSError as error:
                mistakes.append(f"{file}: cannot be read: {error.strerror}")
    return found


def _below(directory: Path) -> list[Path]:
    files: list[Path] = []
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if hidden or path.suffix not in SUFFIXES or not path.is_file():
            continue
        if path.name in CONFIGURATION:
            note(f"{path}: left out, it configures the program")
        else:
            files.append(path)
    return files
