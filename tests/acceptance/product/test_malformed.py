"""Malformed manifests over HTTP, through the booted product: each is refused with its field, quickly, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.malformed import Case, cases, controls
from support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")
CPU_MAX_S = 1.0
MEMORY_MAX_MB = 200
#: What is refused does not depend on the store: on the second one a part of them is enough.
EVERY = {"sqlite": 1, "postgres": 8}


def cpu_s(pid: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most memory that a process ever had."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def apply(stage: Stage, case: Case, query: str = "") -> tuple[int, Any]:
    media = "application/json" if case.json else "application/yaml"
    return await stage.api.call("POST", "/v1/apply" + query, case.data, headers={"Content-Type": media})


def wrong_with(case: Case, status: int, problem: Any) -> str:
    """What an answer misses of what `case` expects, or nothing."""
    if problem["code"] != case.code or status not in (400, 413, 422):
        return f"{status} {problem['code']} instead of {case.code}: {problem['detail'][:200]}"
    told = [one["message"] for one in problem["errors"] if not case.where or one["field"] == case.where]
    if case.code == "too_large" and "the body is larger than" in problem["detail"]:
        return ""  # the door refused it before anything read it
    words = told if case.code == "invalid" else [problem["detail"]]
    return "" if any(case.words in one for one in words) else f"{case.where}: {case.words!r} is not said: {problem['detail'][:200]}"


@pytest.mark.timeout(240)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="what a request takes is read from /proc")
async def test_each_malformed_manifest_is_refused_with_its_field_quickly_and_nothing_is_written(stage: Stage) -> None:
    pid, slow, wrong = stage.gateways[0].pid, dict[str, float](), dict[str, str]()
    before = peak_mb(pid)
    await stage.api.call("GET", "/v1/namespaces/acme", expect=404)
    for case in cases()[:: EVERY[stage.store]]:
        start = cpu_s(pid)
        status, problem = await apply(stage, case)
        if (taken := cpu_s(pid) - start) >= CPU_MAX_S:
            slow[case.name] = taken
        if said := wrong_with(case, status, problem):
            wrong[case.name] = said
    assert wrong == {}
    assert slow == {}
    assert peak_mb(pid) - before < MEMORY_MAX_MB
    await stage.api.call("GET", "/v1/namespaces/acme", expect=404)
    for case in controls():
        status, answer = await apply(stage, case, "?dry_run=true")
        assert status == 200, (case.name, answer)
    await stage.api.call("GET", "/v1/namespaces/acme", expect=404)
