"""What the run has seen: operations, violations, faults. Everything ends up in one JSON document."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

SAMPLES_MAX = 20


@dataclass
class Report:
    """Counters of one run. `broken` is set with the first violation."""

    began_s: float = field(default_factory=time.monotonic)
    good: Counter[str] = field(default_factory=Counter[str])
    bad: Counter[str] = field(default_factory=Counter[str])
    ends: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    seen: Counter[str] = field(default_factory=Counter[str])
    violations: Counter[str] = field(default_factory=Counter[str])
    samples: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])
    orphans: set[str] = field(default_factory=set[str])  # workers (name/boot) that left a step without an end
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    def done(self, operation: str) -> None:
        """An operation came to the end that was asked for."""
        self.good[operation] += 1

    def failed(self, operation: str, why: str) -> None:
        """An operation did not."""
        self.bad[operation] += 1
        if len(self.failures) < SAMPLES_MAX:
            self.failures.append(f"{operation}: {why}"[:500])

    def violation(self, kind: str, detail: str) -> None:
        """A promise was broken."""
        self.violations[kind] += 1
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(f"{kind}: {detail}"[:2000])
            self.say(f"VIOLATION {kind}: {detail}"[:1000])
        self.broken.set()

    def say(self, text: str) -> None:
        """Progress, on stderr."""
        print(f"[{time.monotonic() - self.began_s:7.1f} s] {text}", file=sys.stderr, flush=True)

    @property
    def turns(self) -> int:
        """Turns that were verified to their end."""
        return sum(self.ends.values())

    @property
    def success(self) -> float:
        """Share of operations that succeeded."""
        good, bad = self.good.total(), self.bad.total()
        return good / (good + bad) if good + bad else 1.0

    def in_step(self, killed: set[str]) -> float:
        """Share of the killed workers that left a step without an end in some journal."""
        return len(killed & self.orphans) / len(killed) if killed else 1.0

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "turns": dict(self.ends),
            "operations": {"good": dict(self.good), "failed": dict(self.bad), "share_good": round(self.success, 4)},
            "faults": dict(self.faults),
            "seen": dict(self.seen),
            "violations": dict(self.violations),
            "violation_samples": self.samples,
            "failure_samples": self.failures,
        }
