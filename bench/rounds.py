"""All measurements, interleaved: in each round every subject has its turn, in another order each time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.database import Database
from bench.measures import Loads, Readings, fresh, idle_memory, measured, recovery
from bench.plan import HELD_MIB, Measure, Scale, measures
from bench.subjects import BARE, TALON, TALON_SQLITE, Subject, Wrap, running

#: subject -> measurement -> what was read.
Round = dict[str, dict[str, Readings]]


@dataclass
class Bench:
    """One run."""

    postgres: Database
    model_url: str
    directory: Path
    scale: Scale
    loads: Loads = field(default_factory=Loads)
    began_s: float = field(default_factory=time.monotonic)

    def round(self, number: int, subjects: Sequence[Subject]) -> Round:
        """One round; `number` from 0 turns the order."""
        turned = [*subjects[number % len(subjects) :], *subjects[: number % len(subjects)]]
        found: Round = {subject.name: self._all_of(subject) for subject in turned}
        for subject in (TALON, BARE)[:: 1 if number % 2 else -1]:
            found[subject.name] |= self._held(subject)
        self._say("recovery")
        with running(TALON_SQLITE, self.postgres, self.model_url, fresh(self.directory, "recovery")) as up:
            found[TALON_SQLITE.name]["recovery"] = recovery(up)
        self._say("idle sessions")
        with running(TALON, self.postgres, self.model_url, fresh(self.directory, "idle")) as up:
            found[TALON.name]["idle sessions"] = idle_memory(self.loads, up, self.scale.idle)
        return found

    def _all_of(self, subject: Subject) -> dict[str, Readings]:
        """Every measurement of one subject."""
        found: dict[str, Readings] = {}
        with running(subject, self.postgres, self.model_url, fresh(self.directory, subject.name)) as up:
            self.loads.run(up, Measure("warm", "closed", "plain", 16), self.scale.warm_s)
            for measure in measures(self.scale.small):
                if not measure.of or subject.name in measure.of:
                    self._say(f"{subject.name}: {measure.name}")
                    found[measure.name] = measured(self.loads, up, self.postgres, measure, self.scale.seconds)
        return found

    def _held(self, subject: Subject) -> dict[str, Readings]:
        """Crowds while the subject is held to one CPU and `HELD_MIB`."""
        found: dict[str, Readings] = {}
        for name, sessions in zip(("held crowd", "large held crowd"), self.scale.held, strict=True):
            self._say(f"{subject.name}: {name}")
            with machine.memory_limit(HELD_MIB) as procs:
                directory = fresh(self.directory, f"{subject.name}-held")
                with running(subject, self.postgres, self.model_url, directory, _holding(procs)) as up:
                    self.loads.run(up, Measure("warm", "closed", "plain", 16), self.scale.warm_s)
                    measure = Measure(name, "burst", "chat", sessions)
                    found[name] = measured(self.loads, up, self.postgres, measure, 0.0)
                found[name]["memory_held"] = procs is not None
        return found

    def _say(self, text: str) -> None:
        """Progress, on stderr."""
        load = os.getloadavg()[0]
        print(f"[{time.monotonic() - self.began_s:6.1f} s, load {load:.1f}] {text}", file=sys.stderr, flush=True)


def _holding(procs: Path | None) -> Wrap:
    return lambda command: machine.held(command, (os.cpu_count() or 1) - 1, procs)
