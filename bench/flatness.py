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
    """The readings with ratios (the largest store : the lower of the two smallest), how far those two are apart, and verdicts."""
    questions: dict[str, Any] = {}
    for name, found in readings.items():
        one, other, *_, last = found.values()
        first = {key: min(value, other[key]) for key, value in one.items()}
        noise = {key: max(one[key], other[key]) / value for key, value in first.items() if value > 0}
        allowed = {key: value * max(FLAT_MAX, noise.get(key, 0) if key in CPU else 0) for key, value in first.items()}
        if "pages" in allowed:
            allowed["pages"] += LEVELS * last["descents"]
        questions[name] = {
            "worlds": {world: {key: round(value, 3) for key, value in each.items()} for world, each in found.items()},
            "ratios": {key: round(last[key] / first[key], 2) for key in noise},
            "noise": {key: round(ratio, 2) for key, ratio in noise.items()},
            "not_flat": [key for key in noise if last[key] > allowed[key]],
        }
    return {"flat": not any(one["not_flat"] for one in questions.values()), "questions": questions}


def text(document: Mapping[str, Any]) -> str:
    """A readable table of each store."""
    parts: list[str] = []
    for store, found in document["stores"].items():
        grown = ", ".join(name for name, one in found["questions"].items() if one["not_flat"])
        parts.append(f"{store}: {f'NOT FLAT: {grown}' if grown else 'flat'}")
        for name, one in found["questions"].items():
            keys = list(next(iter(one["worlds"].values())))
            rows = [
                (
                    key,
                    *(number(world[key]) for world in one["worlds"].values()),
                    *(str(one[of].get(key, "–")) for of in ("ratios", "noise")),
                )
                for key in keys
            ]
            parts.append(grid((name, *one["worlds"], "ratio", "noise"), rows))
    return "\n\n".join(parts)
