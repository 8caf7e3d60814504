"""What `talon init` writes is accepted by every part that will read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from talon.cli.documents import collect
from talon.cli.errors import WrongUse
from talon.cli.init import command
from talon.cli.load import load
from talon.manifest.read import read
from talon.providers.scripted.script import Script
from talon.tools.loader import import_modules

FILES = ["README.md", "agents/assistant.yaml", "model-script.yaml", "talon.yaml", "toolbox.py", ".talon/manifest.schema.json"]


def init(*args: str) -> list[str]:
    result = CliRunner().invoke(command, list(args), catch_exceptions=True)
    if result.exception:
        raise result.exception
    return result.stdout.split()


def test_it_lists_what_it_writes_and_refuses_to_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "hello"
    assert init(str(target)) == [str(target / name) for name in FILES]
    (target / "toolbox.py").write_text("mine")
    (target / "README.md").unlink()
    with pytest.raises(WrongUse) as caught:
        init(str(target))
    assert str(target / "toolbox.py") in caught.value.lines[0]
    assert "README.md" not in caught.value.lines[0]
    assert not (target / "README.md").exists()
    assert (target / "toolbox.py").read_text() == "mine"
    init(str(target), "--force")
    assert (target / "toolbox.py").read_text() != "mine"


def test_a_directory_that_cannot_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongUse, match="cannot be written"):
        init(str(tmp_path / "file" / "below"))


def test_the_manifests_name_a_schema_that_is_there_and_that_they_meet(tmp_path: Path) -> None:
    init(str(tmp_path))
    file = tmp_path / "agents" / "assistant.yaml"
    mark, _, path = file.read_text().splitlines()[0].partition("$schema=")
    assert mark == "# yaml-language-server: "
    schema = json.loads((file.parent / path).read_text())
    (source,) = collect([str(tmp_path / "agents")])
    validator: Any = jsonschema.Draft202012Validator(schema)
    validator.validate(source.document.data)
    assert not validator.is_valid({**source.document.data, "colour": "red"})


def test_settings_manifest_tools_and_script_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(str(tmp_path))
    loaded = load(environ={}, cwd=tmp_path)
    assert loaded.warnings == ()
    settings = loaded.settings
    reading = read([source.document for source in collect([str(path) for path in settings.apply])])
    assert reading.errors == []
    (manifest,) = reading.manifests
    definition = manifest.body["definition"]
    assert definition["modelPolicy"]["profiles"][0]["model"]["provider"] in settings.providers
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (toolset,) = import_modules(settings.tools.modules, settings.tools.path)
    assert [toolset.name] == definition["mcpServerRefs"]
    assert {name: one.spec.effect for name, one in toolset.tools().items()} == {"days_until": "read", "add_note": "idempotent"}
    script = settings.providers["demo"].script
    assert script is not None
    Script.load(script)
    sys.modules.pop("toolbox", None)
