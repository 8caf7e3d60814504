"""`make bench [PEERS="steps langgraph dbos"] [OUT=file.json]`: measure, write OUT and a readable table beside it."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench import machine
from bench.database import running_database
from bench.node import Node
from bench.plan import FULL, SMALL
from bench.rounds import Bench, Round
from bench.subjects import BARE, PEER_SUBJECTS, TALON, TALON_SQLITE, Subject
from bench.table import render
from bench.targets import TARGETS, judge
from bench.venvs import python_of


def main() -> int:
    """-> the exit code: 0 when everything could be measured, whatever it is."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--peers", default=" ".join(PEER_SUBJECTS), help="which of steps, langgraph, dbos; bare always runs")
    parser.add_argument("--out", default="", help="the JSON file to write (default: a dated one under .bench/)")
    parser.add_argument("--small", action="store_true", help="tiny counts: does everything work?")
    given = parser.parse_args()
    peers = given.peers.split()
    unknown = sorted(set(peers) - PEER_SUBJECTS.keys())
    if unknown:
        parser.error(f"unknown peer {unknown[0]!r}; known: {', '.join(PEER_SUBJECTS)}")
    subjects = [TALON, BARE, TALON_SQLITE, *(subject for peer in peers for subject in PEER_SUBJECTS[peer])]
    now = datetime.datetime.now(datetime.UTC)
    out = Path(given.out or machine.ROOT / ".bench" / f"bench-{now:%Y-%m-%d-%H%M}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    for environment in sorted({subject.environment for subject in subjects if subject.environment}):
        print(f"environment of {environment}", file=sys.stderr, flush=True)
        python_of(environment)
    os.environ["PYTHONPATH"] = str(machine.ROOT)  # of the bench's own processes
    directory = Path(tempfile.mkdtemp(prefix="talon-bench-", dir=out.parent))
    try:
        _run(subjects, directory, out, now, small=given.small)
    finally:
        shutil.rmtree(directory)
    return 0


def _run(subjects: list[Subject], directory: Path, out: Path, now: datetime.datetime, *, small: bool) -> None:
    scale = SMALL if small else FULL
    document = {"date": f"{now:%Y-%m-%d %H:%M} UTC", "commit": machine.commit(), "machine": machine.describe(directory)}
    rounds: list[Round] = []
    with running_database() as postgres:
        model = Node("model", [sys.executable, "-m", "bench.model"], directory, {})
        try:
            bench = Bench(postgres, model.url, directory, scale)
            rounds += [bench.round(number, subjects) for number in range(scale.rounds)]
        finally:
            model.kill()
        document |= {"postgres": postgres.version}
    rows = [judge(target, rounds) for target in TARGETS]
    table = render(document, rounds, rows)
    targets = [
        {"what": row.target.what, "value": row.value, "at_least": row.target.least, "aim": row.target.aim, "reached": row.reached}
        for row in rows
    ]
    out.write_text(json.dumps({**document, "targets": targets, "rounds": rounds}, indent=1) + "\n")
    out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    sys.exit(main())
