"""One measurement: the counters before, the load, the counters after."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench import machine
from bench.database import Database
from bench.plan import TURNS, Measure
from bench.stats import median, window
from bench.subjects import MESSAGE, Running
from bench.toolbox import LONG_S

Readings = dict[str, Any]
LOAD_MAX_S = 300.0
RECOVERY_MAX_S = 60.0


class Loads:
    """Starts load generators; every job gets session names of its own."""

    def __init__(self) -> None:
        self._jobs = 0

    def run(self, up: Running, measure: Measure, seconds: float = 0.0) -> Readings:
        """Put the load of `measure` on `up`; -> what the load generator saw. Raises `RuntimeError` when it fails itself."""
        self._jobs += 1
        job = {
            "kind": measure.kind,
            "url": up.node.url,
            "path": up.path(measure.mode),
            "body": up.body(measure.mode),
            "tag": f"job{self._jobs}",
            "sessions": measure.sessions,
            "seconds": seconds,
            "turns": measure.turns,
            "database": up.database if up.subject.store == "postgres" else "",
        }
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=machine.ROOT,
            timeout=LOAD_MAX_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the load generator failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout)


def measured(loads: Loads, up: Running, postgres: Database, measure: Measure, seconds: float) -> Readings:
    """The load's result, with what it cost: CPU of the subject and of the database, commits, WAL, memory."""
    pid = up.node.pid
    loads.run(up, Measure("first", "burst", measure.mode, 1))  # the agent of this mode has been used before
    machine.reset_peak(pid)
    before, cpu_before_s = postgres.counters(), machine.cpu_s(pid)
    result = loads.run(up, measure, seconds)
    cpu_after_s, after = machine.cpu_s(pid), postgres.counters()
    result["peak_mib"] = machine.memory_mib(pid, peak=True)
    serial = result.pop("serial", None)
    if serial:
        result |= _by_turn(serial)
    turns = result["turns"]
    if turns:
        result["cpu_ms"] = (cpu_after_s - cpu_before_s) * 1000 / turns
        if up.subject.store == "postgres":
            result["database_cpu_ms"] = (after.cpu_s - before.cpu_s) * 1000 / turns
            result["commits"] = (after.commits - before.commits) / turns
            result["fsyncs"] = (after.fsyncs - before.fsyncs) / turns
            result["wal_bytes"] = (after.wal_bytes - before.wal_bytes) / turns
    return result


def _by_turn(serial: list[dict[str, list[float]]]) -> Readings:
    """The cost of the n-th turn of a session, the median over the sessions."""
    last = len(serial[0]["ms"])
    turns = [turn for turn in TURNS if turn <= last]
    return {
        f"{what}_of_turn": {str(turn): median([window(session[what], turn) for session in serial]) for turn in turns}
        for what in ("ms", "wal")
    }


def idle_memory(loads: Loads, up: Running, sessions: int) -> Readings:
    """What sessions that ran a turn and now wait for their next message cost in memory."""
    loads.run(up, Measure("warm", "closed", "plain", 64), 1.0)
    before = machine.memory_mib(up.node.pid)
    made = 0
    while made < sessions:
        some = min(200, sessions - made)
        made += some
        loads.run(up, Measure("idle", "burst", "plain", some))
    after = machine.memory_mib(up.node.pid)
    return {"sessions": made, "before_mib": before, "after_mib": after, "bytes_per_session": (after - before) * machine.MIB / made}


def recovery(up: Running) -> Readings:
    """SIGKILL in the middle of a tool, start again, see the turn's end; the time of the start and of the tool is left out."""
    _restart(up)
    start_s = up.node.ready_s - up.node.began_s  # with nothing to recover
    path = up.path("long").replace("{session}", "killed")
    base = path.partition("/message")[0]
    _call(up.node.url + path, json.dumps({"content": MESSAGE}).encode())
    _wait(up, f"{base}/journal?limit=500", "tool.started")
    _restart(up)
    end = _wait(up, f"{base}/journal?limit=500", "turn.completed")
    total_s = end - up.node.began_s
    return {"start_s": start_s, "total_s": total_s, "beyond_s": total_s - start_s - LONG_S}


def _restart(up: Running) -> None:
    up.node.kill()
    up.restart()


def _wait(up: Running, path: str, kind: str) -> float:
    """Until the journal has an entry of `kind`; -> when it was seen."""
    deadline = time.monotonic() + RECOVERY_MAX_S
    while time.monotonic() < deadline:
        items = json.loads(_call(up.node.url + path))["items"]
        if any(item["type"] == kind for item in items):
            return time.monotonic()
        time.sleep(0.01)
    raise RuntimeError(f"no {kind} within {RECOVERY_MAX_S:g} s")


def _call(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def fresh(directory: Path, name: str) -> Path:
    """A directory that does not exist yet."""
    number = 1
    while (directory / f"{name}-{number}").exists():
        number += 1
    return directory / f"{name}-{number}"
