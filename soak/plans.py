"""What a message asks for. The plan travels as the message's text; the scripted model reads it back from there."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from typing import Any

#: effect class -> tool
TOOLS = {"read": "look_up", "idempotent": "file_away", "reconcilable": "move_over", "unsafe": "send_off"}
FAULTS = ("status", "empty", "garbage", "half_json", "cut", "stall")


@dataclass(frozen=True)
class Call:
    """One tool call: its effect class, and how long the tool takes before and after its effect."""

    effect: str
    before_ms: int
    after_ms: int


@dataclass(frozen=True)
class Plan:
    """`steps` are the model's answers with tool calls; after them it answers in `words` words. `faults`: step -> kind, each once.

    The model waits `model_ms` before each answer and `word_ms` between pieces of it.
    """

    tag: str
    steps: tuple[tuple[Call, ...], ...]
    model_ms: int = 0
    word_ms: int = 0
    words: int = 5
    faults: dict[str, str] = field(default_factory=dict[str, str])

    def content(self) -> str:
        """The message's text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def answer(self) -> str:
        """What the model says at the end."""
        return " ".join([f"done-{self.tag}", *(f"w{number}" for number in range(self.words))])


def read(content: str) -> Plan:
    """The plan in a message. Raises `ValueError` for a text that is none."""
    raw: dict[str, Any] = json.loads(content)
    steps = tuple(tuple(Call(**call) for call in step) for step in raw["steps"])
    return Plan(raw["tag"], steps, raw["model_ms"], raw["word_ms"], raw["words"], raw["faults"])


def subject(tag: str, step: int, number: int) -> str:
    """What the call acts on: one thing in the whole run, so that doing it twice under two keys is seen."""
    return f"{tag}/{step}.{number}"


@dataclass(frozen=True)
class Pace:
    """How slow the world is. `fault_rate`: share of the model's answers that go wrong once."""

    model_ms: int = 40
    tool_ms: int = 60
    word_ms: int = 4
    fault_rate: float = 0.02
    weights: tuple[int, int, int, int] = (3, 4, 3, 1)  # read, idempotent, reconcilable, unsafe


def draw(rng: random.Random, tag: str, pace: Pace) -> Plan:
    """A plan at random: one or two steps of one or two calls, now and then none."""
    steps = tuple(
        tuple(
            Call(effect, rng.randrange(pace.tool_ms), rng.randrange(pace.tool_ms))
            for effect in rng.choices(tuple(TOOLS), pace.weights, k=rng.choice((1, 1, 2)))
        )
        for _ in range(rng.choice((0, 1, 1, 2, 2)))
    )
    faults = {str(step): rng.choice(FAULTS) for step in range(1, len(steps) + 2) if rng.random() < pace.fault_rate}
    return Plan(tag, steps, rng.randrange(pace.model_ms), rng.randrange(pace.word_ms + 1), rng.randrange(1, 20), faults)
