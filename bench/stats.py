"""The bench's arithmetic. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Two wall times that differ by less count as equal: a shared machine says no more.
NOISE = 1.3


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed (nearest rank). Raises `ValueError` without any."""
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones. Raises `ValueError` if empty."""
    if not values:
        raise ValueError("no values, no median")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_ratio(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """The median over rounds of ours / theirs; None without any. A round without either, or with theirs 0, is left out."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True) if mine is not None and other]
    return median(ratios) if ratios else None


def is_noise(ratio: float) -> bool:
    """Whether a ratio of wall times is no difference."""
    return 1 / NOISE < ratio < NOISE


def window(values: Sequence[float], turn: int) -> float:
    """What turn number `turn` (from 1) costs: the median over it and its neighbours, up to a twentieth of it to each side."""
    reach = turn // 20
    return median(values[max(0, turn - 1 - reach) : turn + reach])
