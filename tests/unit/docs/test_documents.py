"""Links lead somewhere, commands are commands, manifests are manifests, settings are settings, tools are tools."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from support.manifestworld import World
from support.markdown import ROOT, SCAFFOLD, Block, Page, page, pages
from talon.cli.load import load
from talon.cli.main import app
from talon.providers.catalogue import load_models
from talon.providers.kinds import KINDS
from talon.providers.registry import ProviderInfo
from talon.providers.scripted.script import Script
from talon.tools.loader import import_modules

COMMANDS = ("talon", ".venv/bin/talon")
SHELL = ("sh", "console")
MARKS = {"yaml": {"manifest", "settings", "script", "catalogue"}, "python": {"tool"}}
KNOWN = {"sh", "text", "yaml", "json", "python", "console"}
#: Not a command: the line that a server prints when it is ready.
READY = "talon ready "
#: What a whole page is there for, though no other page must lead to it.
UNLINKED = ("docs/progress.md", "docs/results/", "changes/", "src/")
NAMES = [one.name for one in pages()]


def blocks_of(info: str, mark: str) -> Iterator[tuple[Page, Block]]:
    for one in pages():
        for block in one.blocks():
            if block.info[:1] == (info,) and mark in block.info[1:]:
                yield one, block


# --- links --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    this = page(name)
    broken: list[str] = []
    for target in this.links():
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (this.path.parent / file).resolve() if file else this.path
        found = path.exists() and path.is_relative_to(ROOT)
        if not found or (anchor and anchor not in page(str(path.relative_to(ROOT))).anchors()):
            broken.append(target)
    assert not broken


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, coming = {"README.md"}, ["README.md"]
    while coming:
        this = page(coming.pop())
        for target in this.links():
            path = (this.path.parent / target.partition("#")[0]).resolve()
            name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
            if name in NAMES and name not in reached:
                reached.add(name)
                coming.append(name)
    assert [name for name in NAMES if name not in reached and not name.startswith(UNLINKED)] == []


# --- commands -----------------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """(page, line, arguments) of every `talon …` that is shown."""
    for one in pages():
        lines = [line for block in one.blocks() if block.info[:1] and block.info[0] in SHELL for line in _joined(block.text)]
        lines += [line for line in one.indented() if line.split(" ")[0] in COMMANDS]
        for line in lines:
            for words in _simple_commands(line.removeprefix("$ ")):
                yield one.name, line, words
        for text in one.inline_code():
            if text.split(" ")[0] in COMMANDS and " " in text and not text.startswith(READY):
                for words in _simple_commands(text):
                    yield one.name, text, words


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The arguments of each `talon` in a line of shell: split at `|`, `&&` and `;`, without variables before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in ("|", "&&", "||", ";", "&", "(", ")", ">", ">>"):
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words and words[0] in COMMANDS:
                yield words[1:]
            words = []
        else:
            words.append(word)


def parse_command(words: list[str]) -> None:
    """Parse as `talon` would, run nothing. Raises `click.UsageError`."""
    command: click.Command = app
    context, name = None, "talon"
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=name, parent=context)
        if not words or words == ["--help"]:
            return
        found, sub, words = command.resolve_command(context, words)
        assert found is not None
        assert sub is not None
        name, command = found, sub
    try:
        command.make_context(name, list(words), parent=context)
    except click.exceptions.Exit:  # --help
        return


def test_every_command_that_is_shown_is_one() -> None:
    wrong: list[str] = []
    seen = 0
    for name, line, words in commands():
        seen += 1
        try:
            parse_command(words)
        except click.MissingParameter:
            assert line in page(name).inline_code(), f"{name}: {line}"  # in a sentence a command may stand without its arguments
        except click.UsageError as error:
            wrong.append(f"{name}: {line}: {error.format_message()}")
    assert not wrong
    assert seen > 80, "the documents show commands; they were not found"


@pytest.mark.parametrize(
    "line", ["talon sesion list", "talon up --prot 1", "talon session send a b c --strategy later", "talon get"]
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    (words,) = _simple_commands(line)
    with pytest.raises(click.UsageError):
        parse_command(words)


# --- blocks -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name: str) -> None:
    for block in page(name).blocks():
        kind = block.info[0] if block.info else ""
        assert kind in KNOWN, f"{name}:{block.line}: a block of {kind or 'no kind'}"
        if kind == "yaml":
            assert len(block.info) == 2, f"{name}:{block.line}: mark it as one of {', '.join(MARKS['yaml'])}"
        assert set(block.info[1:]) <= MARKS.get(kind, set()), f"{name}:{block.line}: {block.info}"
        if kind == "json":
            json.loads(block.text)


def _with_manifests() -> list[str]:
    return list(dict.fromkeys(one.name for one, _ in blocks_of("yaml", "manifest")))


@pytest.mark.parametrize("name", _with_manifests())
def test_the_manifests_of_a_page_can_be_applied_together(name: str) -> None:
    whole = "---\n".join(block.text for one, block in blocks_of("yaml", "manifest") if one.name == name)
    assert World().plan(whole).puts


def test_settings_are_read_without_a_warning(tmp_path: Path) -> None:
    found = list(blocks_of("yaml", "settings"))
    assert found
    keys = {kind.key_env: "sk-of-the-vendor" for kind in KINDS.values() if kind.key_env}
    for number, (one, block) in enumerate(found):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "talon.yaml").write_text(block.text, encoding="utf-8")
        loaded = load(environ=keys, cwd=directory)
        assert loaded.warnings == (), f"{one.name}:{block.line}"
        assert loaded.where, f"{one.name}:{block.line} sets nothing"


def test_scripts_of_a_model_are_scripts() -> None:
    for _, block in blocks_of("yaml", "script"):
        Script.parse(block.text)


def test_catalogues_of_models_are_catalogues(tmp_path: Path) -> None:
    found = list(blocks_of("yaml", "catalogue"))
    assert found
    for number, (one, block) in enumerate(found):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert list(load_models([ProviderInfo("openai", "openai"), ProviderInfo("local", "openai")], path)), one.name


def test_tools_are_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = list(blocks_of("python", "tool"))
    assert found
    for number, (one, block) in enumerate(found):
        name = f"documented_tools_{number}"
        (tmp_path / f"{name}.py").write_text(block.text, encoding="utf-8")
        importlib.invalidate_caches()
        (toolset,) = import_modules([name], [tmp_path])
        assert toolset.tools(), f"{one.name}:{block.line}"


def test_other_python_runs_beside_the_files_of_talon_init() -> None:
    found = [(one, block) for one in pages() for block in one.blocks() if block.info == ("python",)]
    assert found
    for one, block in found:
        done = subprocess.run(
            [sys.executable, "-B", "-c", block.text], cwd=SCAFFOLD, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{one.name}:{block.line}\n{done.stderr}"


def test_the_demo_in_the_readme_is_the_demo_that_is_there() -> None:
    source = (ROOT / "examples" / "demo.py").read_text(encoding="utf-8").replace("\\'", "'")
    (block,) = page("README.md").section("The kill").blocks()
    said = [line for line in block.text.splitlines() if re.match(r"\d\. ", line)]
    assert len(said) >= 5
    for line in said:
        fixed = re.split(r'"[^"]*"|draft_follow_up|entry \d+', line)
        assert all(part.strip() in source for part in fixed), line
