"""Malformed manifests: each refused with its field, in less than a second of one processor and 200 MB, and nothing to write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from support.malformed import Outcome, cases, controls, wrong_with

TESTS = Path(__file__).resolve().parents[2]
CPU_MAX_S = 1.0
MEMORY_MAX_MB = 200
#: A process that has what a reader needs and nothing else, so that what it takes is the reader's.
PROGRAM = """
import dataclasses, json, sys
from support.malformed import cases, controls, outcome_of
from support.manifestworld import World
from talon.manifest.parse import parse
from talon.manifest.read import read
from talon.manifest.schedule import zones

def work(data, is_json):
    World().plan_of(read(parse(data, "json" if is_json else "yaml")))

zones()
for case in [*cases(), *controls()]:
    print(json.dumps(dataclasses.asdict(outcome_of(case, work))))
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=TESTS, env={"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    found = [msgspec.json.decode(line, type=Outcome) for line in ran.stdout.splitlines()]
    return {one.name: one for one in found}


def test_there_are_many_and_each_has_a_name() -> None:
    names = [case.name for case in [*cases(), *controls()]]
    assert len(cases()) > 350
    assert len(set(names)) == len(names)


def test_each_is_refused_with_its_field(outcomes: dict[str, Outcome]) -> None:
    wrong = {case.name: said for case in cases() if (said := wrong_with(case, outcomes[case.name]))}
    assert wrong == {}


def test_none_takes_long_or_much(outcomes: dict[str, Outcome]) -> None:
    assert len(outcomes) > 350
    assert {name: one.cpu_s for name, one in outcomes.items() if one.cpu_s >= CPU_MAX_S} == {}
    assert {name: one.memory_mb for name, one in outcomes.items() if one.memory_mb >= MEMORY_MAX_MB} == {}


def test_what_lies_close_and_is_well_formed_passes(outcomes: dict[str, Outcome]) -> None:
    assert {case.name: outcomes[case.name].detail for case in controls() if outcomes[case.name].code != "passed"} == {}


def test_no_refusal_is_longer_than_a_screen_or_shows_what_nobody_can_see(outcomes: dict[str, Outcome]) -> None:
    for one in outcomes.values():
        assert len(one.detail) < 3_000, one.name
        assert len(one.fields) <= 1_200, one.name
        for path, message in one.fields:
            assert len(path) + len(message) < 2_500, one.name
            assert (path + message).isprintable(), one.name
