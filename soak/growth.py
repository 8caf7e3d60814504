"""Memory and file descriptors of processes that live long enough to be compared with themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from soak.fleet import Fleet
from soak.report import Report

EVERY_S = 1.0
#: Between the second and the last third of the calm, under the same load: more than this is growth.
MEMORY_SHARE, MEMORY_MB, DESCRIPTORS = 0.15, 16.0, 24
SAMPLES_MIN = 15


@dataclass
class Growth:
    """Samples of one calm stretch; a process that was started anew in it is not judged."""

    fleet: Fleet
    report: Report
    samples: dict[str, list[tuple[int, float, int]]] = field(default_factory=dict[str, list[tuple[int, float, int]]])

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            for node in self.fleet.nodes:
                with contextlib.suppress(OSError, ValueError):
                    self.samples.setdefault(node.name, []).append((node.pid, *sample(node.pid)))
            await asyncio.sleep(EVERY_S)

    def judge(self) -> dict[str, Any]:
        """-> what each process used; more than is allowed is a violation."""
        judged: dict[str, Any] = {}
        for name, samples in self.samples.items():
            own = [one for one in samples if one[0] == samples[-1][0]]
            third = len(own) // 3
            if len(own) < SAMPLES_MIN:
                judged[name] = "not long enough alive"
                continue
            memory = [median(one[1] for one in part) for part in (own[third : 2 * third], own[2 * third :])]
            files = [median(one[2] for one in part) for part in (own[third : 2 * third], own[2 * third :])]
            judged[name] = {"memory_mb": [round(one, 1) for one in memory], "descriptors": files, "seconds": len(own)}
            if memory[1] - memory[0] > max(MEMORY_MB, MEMORY_SHARE * memory[0]):
                self.report.violation("memory growth", f"{name}: {judged[name]}")
            if files[1] - files[0] > DESCRIPTORS:
                self.report.violation("descriptor growth", f"{name}: {judged[name]}")
        return judged


def sample(pid: int) -> tuple[float, int]:
    """-> (resident memory in MB, open file descriptors). Raises `OSError` for a process that is gone."""
    status = Path(f"/proc/{pid}/statm").read_text().split()
    return int(status[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))
