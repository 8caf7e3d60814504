"""Whether what was measured on stores of growing sizes is flat. Pure: readings in, ratios and verdicts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.table import grid, number

#: question -> world -> what was measured, for one request. The worlds go from the smallest, which comes twice, to the largest.
Readings = Mapping[str, Mapping[str, Mapping[str, float]]]
#: What is read when nobody asks, each second.
AT_REST = "at rest, each second"
#: The largest store may cost so many times what the smallest does; CPU as much as two stores of one size differ, if that is more.
FLAT_MAX = 1.3
#: An index of pages with a hundred entries and more grows by two levels from ten entries to 100,000: pages of each way down.
LEVELS = 2
CPU = ("talon_ms", "database_ms")


def judged(readings: Readings) -> dict[str, Any]:
    """The readings with ratios (largest store : smallest) and verdicts."""
    worlds = list(next(iter(readings.values())))
    measured = {key for found in readings.values() for key in found[worlds[0]]}
    noise = {key: _noise(readings, worlds, key) for key in CPU if key in measured}
    questions: dict[str, Any] = {}
    for name, found in readings.items():
        first, last = found[worlds[0]], found[worlds[-1]]
        ratios = {key: last[key] / value for key, value in first.items() if value > 0}
        allowed = {key: max(FLAT_MAX, noise.get(key, 0)) * value for key, value in first.items()}
        if "pages" in allowed:
            allowed["pages"] += LEVELS * last["descents"]
        over = [key for key in ratios if last[key] > allowed[key]]
        questions[name] = {
            "worlds": {world: {key: round(value, 3) for key, value in one.items()} for world, one in found.items()},
            "ratios": {key: round(ratio, 2) for key, ratio in ratios.items()},
            "not_flat": over,
        }
    return {
        "cpu_noise": {key: round(value, 2) for key, value in noise.items()},
        "flat": not any(one["not_flat"] for one in questions.values()),
        "questions": questions,
    }


def _noise(readings: Readings, worlds: list[str], key: str) -> float:
    """How far two stores of the same size are apart at most, as a ratio of at least 1."""
    pairs = [(found[worlds[0]].get(key, 0), found[worlds[1]].get(key, 0)) for found in readings.values()]
    return max((max(pair) / min(pair) for pair in pairs if min(pair) > 0), default=1.0)


def text(document: Mapping[str, Any]) -> str:
    """A readable table of each store."""
    parts: list[str] = []
    for store, found in document["stores"].items():
        parts.append(f"{store}: {'flat' if found['flat'] else 'NOT FLAT'}; two stores of one size differ by {found['cpu_noise']}")
        for name, one in found["questions"].items():
            keys = list(next(iter(one["worlds"].values())))
            rows = [
                (key, *(number(world[key]) for world in one["worlds"].values()), str(one["ratios"].get(key, "–"))) for key in keys
            ]
            parts.append(grid((name, *one["worlds"], "ratio"), rows))
    return "\n\n".join(parts)
