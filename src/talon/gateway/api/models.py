"""Models as the live workers know them: which there are, which suits a task and what it would cost, and which a turn would ask.

The structs have the fields of `seeds/003` ("Model Router") under their own names, and more.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from talon.domain import circuit as c
from talon.domain.errors import NotFound
from talon.domain.models import THOUSANDTH, Estimate, ModelInfo, Models, Pick, Task, estimate, select
from talon.domain.session import SessionConfig, SessionRow
from talon.gateway.api.lookup import require_agent, require_session
from talon.gateway.deps import GatewayDeps
from talon.manifest.catalogue import Catalogue
from talon.manifest.choosing import Choice, Wanted, choose, task_of
from talon.manifest.effective import Profile

CIRCUITS = "circuit/"
#: The most that may be asked for: tokens of a task, characters of a model's name, and the highest tier of data.
TOKENS_MAX, NAME_LENGTH_MAX, DATA_TIER_MAX = 10**12, 512, 2
#: So many of the rules by which no model suits a task are said with the refusal.
RULES_SHOWN = 4
_CONFIG = msgspec.json.Decoder(SessionConfig)


class ModelPrices(msgspec.Struct, frozen=True, rename="camel"):
    """Per million tokens, exact, as decimal strings. `date` is the day on which they were so."""

    input: str
    output: str
    cache_read: str
    cache_write: str
    currency: str
    date: str


class ModelConfig(msgspec.Struct, frozen=True, rename="camel"):
    """A model that workers can ask. `contextWindow` and `outputMax` in tokens, 0: not known. `costPer1kInput` and `costPer1kOutput`
    are null, as `prices`, where nobody knows them. `restingMs`: its circuit is open, and it is left alone so long. `prefill`: an
    answer of it that breaks off is gone on with."""

    id: str
    provider: str
    tier: str
    context_window: int
    supports_tools: bool
    supports_vision: bool
    cost_per_1k_input: float | None = msgspec.field(name="costPer1kInput")
    cost_per_1k_output: float | None = msgspec.field(name="costPer1kOutput")
    output_max: int = 0
    prices: ModelPrices | None = None
    resting_ms: int = 0
    prefill: bool = False


class ModelTiers(msgspec.Struct, frozen=True):
    """All models that are known by name, by tier."""

    cheap: list[ModelConfig]
    mid: list[ModelConfig]
    premium: list[ModelConfig]


class SelectedModel(msgspec.Struct, frozen=True, rename="camel"):
    """The model that suits a task, and why, rule by rule."""

    model: ModelConfig
    rules: tuple[str, ...]


class CostEstimate(msgspec.Struct, frozen=True, rename="camel"):
    """What a task would cost. `estimatedCost` is a number for people, `amount` the same exactly, as a decimal string; both are
    null, as `currency`, where the model's price is not known."""

    input_tokens: int
    output_tokens: int
    estimated_cost: float | None
    model: str
    amount: str | None
    currency: str | None


class Candidate(msgspec.Struct, frozen=True):
    """A model that a turn would ask, in its place. `known` is what workers know of it, null if nothing."""

    profile: str
    provider: str
    name: str
    known: ModelConfig | None


class Explanation(msgspec.Struct, frozen=True):
    """The models that a turn would ask, the first one first, and why, rule by rule. `problem`: why it would ask none."""

    candidates: list[Candidate]
    rules: tuple[str, ...]
    problem: str


async def _served(deps: GatewayDeps) -> tuple[Catalogue, dict[str, int]]:
    """What the live workers serve, and how long models are left alone, by id."""
    catalogue = await deps.plane.resources.served() or Catalogue()
    states, now_ms = await deps.store.read_shared(CIRCUITS)
    waits = {name.removeprefix(CIRCUITS): c.resting_ms(c.decode(state), now_ms) for name, state in states.items()}
    return catalogue, {name: wait for name, wait in waits.items() if wait}


async def list_models(deps: GatewayDeps, cursor: str, limit: int) -> tuple[list[ModelConfig], str]:
    """-> (models by id, the cursor behind them, "" at the end)."""
    catalogue, waits = await _served(deps)
    found = sorted((one for one in catalogue.models if one.id > cursor), key=lambda one: one.id)
    return [_shown(one, waits) for one in found[:limit]], found[limit - 1].id if len(found) > limit else ""


async def model_tiers(deps: GatewayDeps) -> ModelTiers:
    """`getModelTiers`."""
    catalogue, waits = await _served(deps)
    tiers = Models(catalogue.models).tiers()
    return ModelTiers(*([_shown(one, waits) for one in tiers[tier]] for tier in ("cheap", "mid", "premium")))


async def select_model(deps: GatewayDeps, task: Task) -> SelectedModel:
    """`selectModel`. Raises `NotFound` where no model that is known can do it."""
    catalogue, waits = await _served(deps)
    picked = _picked(catalogue, task)
    if picked.model is None:
        raise _unsuited(picked)
    return SelectedModel(_shown(picked.model, waits), picked.rules)


async def estimate_cost(deps: GatewayDeps, task: Task, model: str = "") -> CostEstimate:
    """`estimateCost`: with `model` (`provider/name`), or with that which suits the task. Raises `NotFound`."""
    catalogue, _ = await _served(deps)
    found: ModelInfo | None
    if model:
        provider, _, name = model.partition("/")
        found = Models(catalogue.models).find(provider, name) if name else None
        if found is None:
            where = "write it as provider/name" if not name else "see `talon model list`, or describe it in a catalogue of your own"
            raise NotFound("model_not_found", f"no worker knows the model {model[:200]!r}; {where}")
    else:
        picked = _picked(catalogue, task)
        found = picked.model
        if found is None:
            raise _unsuited(picked)
    return _estimated(estimate(found, task))


async def explain_models(deps: GatewayDeps, namespace: str, agent: str, session: str, data_tier: int) -> Explanation:
    """Which models a turn of the agent would ask now, in the session if one is named. Raises `NotFound`."""
    _, effective = await require_agent(deps.store, namespace, agent)
    row: SessionRow | None = await require_session(deps.store, (namespace, agent, session)) if session else None
    catalogue, waits = await _served(deps)
    config = _CONFIG.decode(row.config) if row else SessionConfig()
    wanted = Wanted(row.profile if row else "", config, task_of(effective), data_tier)
    models = Models(catalogue.models)
    choice = choose(effective, wanted, catalogue.providers, models)
    return Explanation([_candidate(one, models, waits) for one in choice.profiles], _rules(choice, waits), choice.problem)


def _rules(choice: Choice, waits: dict[str, int]) -> tuple[str, ...]:
    resting = [one for one in choice.profiles if f"{one.provider}/{one.model}" in waits]
    said = (f"{one.name} is passed over now: the circuit of {one.provider}/{one.model} is open" for one in resting)
    return (*choice.rules, *said)


def _picked(catalogue: Catalogue, task: Task) -> Pick:
    return select(task, [one for tier in Models(catalogue.models).tiers().values() for one in tier])


def _unsuited(picked: Pick) -> NotFound:
    """Each model that is out has a rule of its own, which may be hundreds: the first ones are said, and how many there are."""
    out = [rule for rule in picked.rules if rule.startswith("2 ")]
    more = f"; {len(out) - RULES_SHOWN} more are out" if len(out) > RULES_SHOWN else ""
    why = "; ".join((picked.rules[0], *out[:RULES_SHOWN])) if out else f"{picked.rules[0]}; no running worker knows a model by name"
    return NotFound("model_not_found", f"no model suits the task: {why}{more}")


def _candidate(profile: Profile, models: Models, waits: dict[str, int]) -> Candidate:
    known = models.find(profile.provider, profile.model)
    return Candidate(profile.name, profile.provider, profile.model, None if known is None else _shown(known, waits))


def _shown(model: ModelInfo, waits: dict[str, int]) -> ModelConfig:
    prices = model.prices
    costs: dict[str, Any] = {"cost_per_1k_input": None, "cost_per_1k_output": None}
    if prices is not None:
        costs = {
            "cost_per_1k_input": float(prices.input * THOUSANDTH),
            "cost_per_1k_output": float(prices.output * THOUSANDTH),
            "prices": ModelPrices(
                _text(prices.input),
                _text(prices.output),
                _text(prices.input if prices.cache_read is None else prices.cache_read),
                _text(prices.input if prices.cache_write is None else prices.cache_write),
                prices.currency,
                prices.date,
            ),
        }
    return ModelConfig(
        id=model.id,
        provider=model.provider,
        tier=model.tier,
        context_window=model.context_window,
        supports_tools=model.tools,
        supports_vision=model.vision,
        output_max=model.output_max,
        resting_ms=waits.get(model.id, 0),
        prefill=model.prefill,
        **costs,
    )


def _text(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _estimated(found: Estimate) -> CostEstimate:
    cost = found.cost
    return CostEstimate(
        input_tokens=found.input_tokens,
        output_tokens=found.output_tokens,
        estimated_cost=float(cost.amount) if cost else None,
        model=found.model.id,
        amount=_text(cost.amount) if cost else None,
        currency=cost.currency if cost else None,
    )
