"""Whether what was measured on stores of growing sizes is flat. Pure: readings in, ratios and verdicts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from bench.stats import median, median_ratio
from bench.table import grid, number

#: question -> world -> what was measured, for one request; of CPU in each round. The worlds go from the smallest, which comes
#: twice, to the largest.
Readings = Mapping[str, Mapping[str, Mapping[str, float | Sequence[float]]]]
#: What is read when nobody asks, each second.
AT_REST = "at rest, each second"
#: The largest store may cost so many times what the smallest does; CPU as much as two stores of one size differ, if that is more.
FLAT_MAX = 1.3
#: An index of pages with a hundred entries and more grows by two levels from ten entries to 100,000: pages of each way down.
LEVELS = 2


def judged(readings: Readings) -> dict[str, Any]:
    """The readings (of CPU the medians) with ratios, noise and verdicts.

    What was read is compared with the lower of the two smallest stores. CPU is compared in each round with what those two took in
    it, since a shared machine is as slow for all of them then, and the median of these ratios counts; how far the two are
    apart, taken alike, is the noise.
    """
    questions: dict[str, Any] = {}
    for name, found in readings.items():
        shown = {world: {key: _median(value) for key, value in each.items()} for world, each in found.items()}
        one, other, *_, last = found.values()
        ratios, noise, over = dict[str, float](), dict[str, float](), list[str]()
        for key, value in last.items():
            if isinstance(value, Sequence):
                small, again = cast(Sequence[float], one[key]), cast(Sequence[float], other[key])
                apart = median_ratio(small, again) or 1.0
                noise[key] = max(apart, 1 / apart)
                ratios[key] = median_ratio(value, [sum(pair) / 2 for pair in zip(small, again, strict=True)]) or 1.0
                allowed = max(FLAT_MAX, noise[key])
            else:
                first = min(_median(one[key]), _median(other[key]))
                ratios[key] = value / first
                allowed = FLAT_MAX + (LEVELS * _median(last["descents"]) / first if key == "pages" else 0)
            if ratios[key] > allowed:
                over.append(key)
        questions[name] = {
            "worlds": {world: _rounded(each, 3) for world, each in shown.items()},
            "ratios": _rounded(ratios, 2),
            "noise": _rounded(noise, 2),
            "not_flat": over,
        }
    return {"flat": not any(one["not_flat"] for one in questions.values()), "questions": questions}


def _median(value: float | Sequence[float]) -> float:
    return median(value) if isinstance(value, Sequence) else value


def _rounded(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {key: round(value, digits) for key, value in values.items()}


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
