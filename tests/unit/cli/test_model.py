"""`talon model test` without a server: what is wrong here is said with its exit code, and nothing is made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from talon.cli.main import run

SETTINGS = "providers: {mine: {kind: openai, base_url: 'http://127.0.0.1:9/v1', api_key: 'secret:default/vendor'}}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talon.yaml").write_text(SETTINGS)
    return tmp_path


def test_a_key_in_a_database_that_is_not_there_is_a_mistake_and_makes_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "test", "mine/m"]) == 2
    error = capsys.readouterr().err
    assert "providers.mine.api_key: there is no secret 'vendor' in" in error
    assert "TALON_PROVIDERS_MINE_API_KEY" in error
    assert not (here / "talon-data").exists()


def test_a_key_in_a_database_that_is_empty_is_a_mistake(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "talon-data").mkdir()
    sqlite3.connect(here / "talon-data" / "talon.db").close()
    assert run(["model", "test", "mine/m"]) == 2
    assert "there is no secret 'vendor' in" in capsys.readouterr().err


def test_a_wrong_catalogue_is_a_mistake_of_this_side_said_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "catalogue.yaml").write_text("vendors: {openai: {models: {m: {tier: best}}}}")
    flags = ["--models-catalogue", "catalogue.yaml", "--set", "providers.mine.api_key=sk-of-nobody"]
    assert run(["model", "test", "mine/m", *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("vendors.openai.models.m.tier must be one of cheap, mid, premium, not 'best'") == 1, said
    assert len(said.splitlines()) == 1


def test_explaining_needs_an_agent_or_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["clerk", "--task", "chat"], ["clerk", "--model", "openai/gpt-4o"], ["--task", "chat", "--session", "s"]):
        assert run(["model", "explain", *flags]) == 2
        assert {"AGENT", "--task"} & set(capsys.readouterr().err.split())
