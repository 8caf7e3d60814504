"""What is known of models: windows, abilities, prices; what a call costs; which one suits a task (`seeds/003`, "Model Router").

Pure. Workers publish what they can ask as `ModelInfo`s; gateways answer from these. Money is a `Decimal` with its currency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from talon.domain.entries import Money, Usage

Tier = Literal["cheap", "mid", "premium"]
TIERS: tuple[Tier, ...] = ("cheap", "mid", "premium")
TaskType = Literal["chat", "orchestration", "subagent", "reasoning", "summarization"]
TASK_TYPES: tuple[TaskType, ...] = ("chat", "orchestration", "subagent", "reasoning", "summarization")
Complexity = Literal["low", "medium", "high"]
COMPLEXITIES: tuple[Complexity, ...] = ("low", "medium", "high")
MILLION = 1_000_000
THOUSANDTH = Decimal("0.001")
#: Tokens of an answer that a task is estimated with, where no model's limit is lower.
OUTPUT_TOKENS: dict[Complexity, int] = {"low": 256, "medium": 1024, "high": 4096}
#: The tier of a task by its complexity (low, medium, high).
TASK_TIERS: dict[TaskType, tuple[Tier, Tier, Tier]] = {
    "chat": ("cheap", "cheap", "mid"),
    "orchestration": ("mid", "mid", "premium"),
    "subagent": ("cheap", "cheap", "mid"),
    "reasoning": ("mid", "premium", "premium"),
    "summarization": ("cheap", "cheap", "cheap"),
}
#: Tasks that are no good to a model which calls no tools.
NEEDS_TOOLS: frozenset[TaskType] = frozenset({"orchestration", "subagent"})
#: Names of other models, whatever they begin with.
ANY_MODEL = "*"


class Prices(msgspec.Struct, frozen=True, omit_defaults=True):
    """Per million tokens, in `currency`, as of `date` (YYYY-MM-DD). Without a price of its own, what the vendor's prompt cache
    keeps or gives costs as other input."""

    input: Decimal
    output: Decimal
    currency: str = "USD"
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    date: str = ""


class ModelInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that can be asked. `provider` is a name of the configuration; `name` the vendor's, or `*` for every other model of
    the provider. `context_window` and `output_max` in tokens, 0: not known. `prefill`: given the beginning of its answer, it goes
    on with it. Without `prices` nobody knows what it costs."""

    provider: str
    name: str
    tier: Tier
    context_window: int = 0
    output_max: int = 0
    tools: bool = True
    vision: bool = False
    prices: Prices | None = None
    prefill: bool = False

    @property
    def id(self) -> str:
        """`provider/name`."""
        return f"{self.provider}/{self.name}"


class Task(msgspec.Struct, frozen=True):
    """What a model is wanted for (`TaskContext`)."""

    type: TaskType = "chat"
    complexity: Complexity = "medium"
    input_tokens: int = 0

    @property
    def tier(self) -> Tier:
        """The tier that suits it."""
        return TASK_TIERS[self.type][COMPLEXITIES.index(self.complexity)]


class Estimate(msgspec.Struct, frozen=True):
    """What a task would cost with a model (`CostEstimate`); no `cost` where its prices are not known."""

    model: ModelInfo
    input_tokens: int
    output_tokens: int
    cost: Money | None


class Pick(msgspec.Struct, frozen=True):
    """The model that suits a task, None if there is none; and why, rule by rule."""

    model: ModelInfo | None
    rules: tuple[str, ...]


def cost_of(usage: Usage, prices: Prices) -> Money:
    """What a call cost, exactly. What the cache gave or kept is part of the input and has prices of its own."""
    plain = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
    read = prices.input if prices.cache_read is None else prices.cache_read
    write = prices.input if prices.cache_write is None else prices.cache_write
    amount = (
        plain * prices.input + usage.cached_tokens * read + usage.cache_write_tokens * write + usage.output_tokens * prices.output
    ) / MILLION
    return Money(amount, prices.currency)


def estimate(model: ModelInfo, task: Task) -> Estimate:
    """What `task` would cost with `model`: its input, and an answer of the length that its complexity stands for."""
    expected = OUTPUT_TOKENS[task.complexity]
    output = min(expected, model.output_max) if model.output_max else expected
    cost = None if model.prices is None else cost_of(Usage(task.input_tokens, output), model.prices)
    return Estimate(model, task.input_tokens, output, cost)


_REGION = re.compile(r"^(?:us|us-gov|eu|apac|global|jp|au)\.")
_REVISION = re.compile(r"-v\d+(?::\d+)?$")
_DATE = re.compile(r"(?:[-@]\d{8}|-\d{4}-\d{2}-\d{2}|-\d{2}-\d{2}|-\d{4}|-\d{3})$")
_LATEST = re.compile(r"(?:-latest|:latest)$")
_TAG = re.compile(r":[^:/]+$")


def spellings(name: str) -> tuple[str, ...]:
    """The names under which a model is looked up, the exact one first; each is the one before with one suffix less.

    The rule, in this order: as written · without a region before it (`us.`, `eu.`, `apac.`, `global.`) · without a revision
    (`-v1:0`) · without `-latest` · without a date (`-20250514`, `@20250514`, `-2024-08-06`, `-05-20`) or a number of three or four
    digits (`-001`, `-0613`) · without a tag (`:8b`). Nothing else is guessed: `gpt-4o-audio` is not `gpt-4o`.
    """
    found = [name]
    for pattern in (_REGION, _REVISION, _LATEST, _DATE, _TAG):
        shorter = pattern.sub("", found[-1])
        if shorter and shorter != found[-1]:
            found.append(shorter)
    return tuple(found)


class Models:
    """All that is known, by provider and name. Where two say the same of a model, the first one counts."""

    def __init__(self, models: Iterable[ModelInfo] = ()) -> None:
        self._known: dict[tuple[str, str], ModelInfo] = {}
        for model in models:
            self._known.setdefault((model.provider, model.name), model)

    def __iter__(self) -> Iterator[ModelInfo]:
        return iter(self._known.values())

    def find(self, provider: str, name: str) -> ModelInfo | None:
        """What is known of a model, under the name that it was asked for; see `spellings`."""
        for spelling in (*spellings(name), ANY_MODEL):
            known = self._known.get((provider, spelling))
            if known is not None:
                return msgspec.structs.replace(known, name=name)
        return None

    def is_blind(self, provider: str, name: str) -> bool:
        """Whether a model is known to take no images. What stands there for every other model says nothing of that."""
        known = next((found for one in spellings(name) if (found := self._known.get((provider, one))) is not None), None)
        return known is not None and not known.vision

    def providers_of(self, name: str, providers: Iterable[str]) -> tuple[str, ...]:
        """Those of `providers` that are known to have a model of that name."""
        return tuple(one for one in providers if any((one, spelling) in self._known for spelling in spellings(name)))

    def tiers(self) -> dict[Tier, tuple[ModelInfo, ...]]:
        """All named models by tier, by id."""
        named = sorted((one for one in self._known.values() if one.name != ANY_MODEL), key=lambda one: one.id)
        return {tier: tuple(one for one in named if one.tier == tier) for tier in TIERS}


def select(task: Task, models: Sequence[ModelInfo]) -> Pick:
    """The model of `models` that suits `task`.

    The rules: 1 the task's type and complexity give a tier · 2 what calls no tools, where the task needs them, or has a window too
    small for the input and the answer, is out · 3 of the tier's models the one that the task costs least; those whose prices are
    not known come last · 4 where the tier has none left: the next higher tiers, then the lower ones.
    """
    rules = [f"1 a {task.type} task of {task.complexity} complexity wants tier {task.tier}"]
    fits: list[ModelInfo] = []
    for model in models:
        reason = _unfit(model, task)
        if reason:
            rules.append(f"2 {model.id} is out: {reason}")
        else:
            fits.append(model)
    at = TIERS.index(task.tier)
    for tier in (*TIERS[at:], *reversed(TIERS[:at])):
        of_tier = cheapest_first([one for one in fits if one.tier == tier], task)
        if not of_tier:
            rules.append(f"4 tier {tier} has no model that can do it")
            continue
        best = estimate(of_tier[0], task)
        price = f"it would cost {best.cost}" if best.cost else "its price is not known"
        rules.append(f"3 {best.model.id} is the cheapest of tier {tier}: {price}")
        return Pick(best.model, tuple(rules))
    return Pick(None, (*rules, "no model that is known can do it"))


def cheapest_first(models: Sequence[ModelInfo], task: Task) -> list[ModelInfo]:
    """`models` by what `task` would cost with each; those whose prices are not known come last."""
    return sorted(models, key=lambda one: _dearness(one, task))


def _unfit(model: ModelInfo, task: Task) -> str:
    if task.type in NEEDS_TOOLS and not model.tools:
        return "it calls no tools"
    needed = task.input_tokens + estimate(model, task).output_tokens
    if model.context_window and needed > model.context_window:
        return f"{needed} tokens go over its window of {model.context_window}"
    return ""


def _dearness(model: ModelInfo, task: Task) -> tuple[bool, Decimal, str]:
    cost = estimate(model, task).cost
    return cost is None, cost.amount if cost else Decimal(0), model.id
