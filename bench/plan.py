"""What is measured of whom, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["closed", "burst", "serial"]
#: The turns of one session whose cost is reported.
TURNS = (1, 10, 50, 200)


@dataclass(frozen=True)
class Measure:
    """One job of the load generator. `mode`: of the model; `of`: the subjects, all by default."""

    name: str
    kind: Kind
    mode: str
    sessions: int
    turns: int = 0
    of: tuple[str, ...] = ()


def measures(small: bool) -> tuple[Measure, ...]:
    """The measurements of one round, in their order. `small`: tiny counts, to see that everything works."""
    crowd = 50 if small else 1000
    repeats, turns = (1, 10) if small else (3, max(TURNS))
    on_postgres = ("talon", "bare", "steps", "langgraph", "dbos")
    return (
        Measure("1 session", "closed", "plain", 1, of=on_postgres),
        Measure("16 sessions", "closed", "plain", 16),
        Measure("64 sessions", "closed", "plain", 64, of=on_postgres),
        Measure("model of 300 ms", "closed", "slow", 64, of=("talon", "bare")),
        Measure("tokens, 1 session", "closed", "tokens", 1, of=on_postgres),
        Measure("tokens, 64 sessions", "closed", "tokens", 64, of=on_postgres),
        Measure("one long session", "serial", "plain", repeats, turns, of=("talon", "langgraph")),
        Measure("crowd", "burst", "chat", crowd, of=("talon", "bare")),
    )


@dataclass(frozen=True)
class Scale:
    """How much of everything. `seconds`: of a closed measurement; `held`: sizes of the crowds on one CPU; `idle`: idle sessions."""

    rounds: int
    seconds: float
    warm_s: float
    held: tuple[int, int]
    idle: int
    small: bool


FULL = Scale(rounds=3, seconds=4.0, warm_s=2.0, held=(1000, 5000), idle=10_000, small=False)
SMALL = Scale(rounds=1, seconds=0.5, warm_s=0.3, held=(20, 50), idle=50, small=True)
HELD_MIB = 512
