"""The pages that are made from the program are those that the program makes."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from support.markdown import ROOT
from talon.cli.sources import VENDOR_ENV
from talon.domain.entries import PAYLOADS, Payload


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("documents_generator", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


@pytest.mark.parametrize("name", GENERATOR.PAGES)
def test_a_made_page_is_what_the_program_makes_now(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TALON_CONFIG", "DATABASE_URL", *VENDOR_ENV):
        monkeypatch.delenv(variable, raising=False)
    made = GENERATOR.PAGES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made, "run `make docs`"


def test_every_payload_is_an_entry_type_and_stands_in_the_reference() -> None:
    assert set(PAYLOADS.values()) == set(Payload.__subclasses__())


def test_entry_types_that_are_said_to_be_never_written_are_never_made() -> None:
    made = {name for file in _modules() for name in _made(file) if name in {payload.__name__ for payload in PAYLOADS.values()}}
    never = {name for name, payload in PAYLOADS.items() if payload.__name__ not in made}
    assert set(GENERATOR.NOT_WRITTEN) == never


def _modules() -> list[Path]:
    return [path for path in (ROOT / "src" / "talon").rglob("*.py") if "conformance" not in path.parts]


def _made(file: Path) -> set[str]:
    """The names of what is called in a module: `TurnStarted(…)`, `e.TurnStarted(…)`; not patterns of a `match`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            found.add(function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""))
    return found
