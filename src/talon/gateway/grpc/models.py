"""`talon.v1.Models`."""

from __future__ import annotations

from collections.abc import Mapping

from talon.domain.models import COMPLEXITIES, TASK_TYPES, Task
from talon.gateway.api import models as api
from talon.gateway.api.asked import wrong
from talon.gateway.api.permits import At
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc.call import Call, Method, limit_of
from talon.v1 import talon_pb2 as pb


def models(deps: GatewayDeps) -> Mapping[str, Method]:
    """The methods of `Models`."""
    served = Models(deps)
    return {
        "List": Method(("listModels",), pb.ListModelsRequest, _nowhere, served.list),
        "Tiers": Method(("getModelTiers",), pb.ModelTiersRequest, _nowhere, served.tiers),
        "Select": Method(("selectModel",), pb.TaskContext, _nowhere, served.select),
        "Estimate": Method(("estimateCost",), pb.EstimateRequest, _nowhere, served.estimate),
        "Explain": Method(("explainModels",), pb.ExplainModelsRequest, _at_agent, served.explain),
    }


def task_of(message: pb.TaskContext) -> Task:
    """Raises `Invalid` for what is no task; what is empty is as over HTTP."""
    type_, complexity = message.type or "chat", message.complexity or "medium"
    if type_ not in TASK_TYPES:
        raise wrong("type", f"must be one of {', '.join(TASK_TYPES)}", type_[:80])
    if complexity not in COMPLEXITIES:
        raise wrong("complexity", f"must be one of {', '.join(COMPLEXITIES)}", complexity[:80])
    if not 0 <= message.input_tokens <= api.TOKENS_MAX:
        raise wrong("input_tokens", f"must be 0 to {api.TOKENS_MAX}", str(message.input_tokens))
    return Task(type_, complexity, message.input_tokens)


def _nowhere(_: object) -> At:
    return At()


def _at_agent(message: pb.ExplainModelsRequest) -> At:
    return At(message.namespace, message.agent)


class Models:
    """What is answered."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps = deps

    async def list(self, call: Call, message: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """`listModels`."""
        limit = limit_of(message.limit, self._deps.settings.page_max)
        found, after = await api.list_models(self._deps, message.cursor, limit)
        return pb.ListModelsResponse(items=[_config(one) for one in found], next_cursor=after)

    async def tiers(self, call: Call, message: pb.ModelTiersRequest) -> pb.ModelTiers:
        """`getModelTiers`."""
        tiers = await api.model_tiers(self._deps)
        return pb.ModelTiers(
            cheap=[_config(one) for one in tiers.cheap],
            mid=[_config(one) for one in tiers.mid],
            premium=[_config(one) for one in tiers.premium],
        )

    async def select(self, call: Call, message: pb.TaskContext) -> pb.SelectedModel:
        """`selectModel`."""
        found = await api.select_model(self._deps, task_of(message))
        return pb.SelectedModel(model=_config(found.model), rules=found.rules)

    async def estimate(self, call: Call, message: pb.EstimateRequest) -> pb.CostEstimate:
        """`estimateCost`."""
        if len(message.model) > api.NAME_LENGTH_MAX:
            raise wrong("model", f"has {len(message.model)} characters, it may have {api.NAME_LENGTH_MAX}")
        found = await api.estimate_cost(self._deps, task_of(message.task), message.model)
        return pb.CostEstimate(
            input_tokens=found.input_tokens,
            output_tokens=found.output_tokens,
            estimated_cost=found.estimated_cost,
            model=found.model,
            amount=found.amount or "",
            currency=found.currency or "",
        )

    async def explain(self, call: Call, message: pb.ExplainModelsRequest) -> pb.ModelExplanation:
        """`explainModels`."""
        if not 0 <= message.data_tier <= api.DATA_TIER_MAX:
            raise wrong("data_tier", f"must be 0 to {api.DATA_TIER_MAX}", str(message.data_tier))
        found = await api.explain_models(self._deps, message.namespace, message.agent, message.session_id, message.data_tier)
        return pb.ModelExplanation(
            candidates=[_candidate(one) for one in found.candidates],
            rules=found.rules,
            problem=found.problem,
        )


def _candidate(one: api.Candidate) -> pb.ModelCandidate:
    known = None if one.known is None else _config(one.known)
    return pb.ModelCandidate(profile=one.profile, provider=one.provider, name=one.name, known=known)


def _config(one: api.ModelConfig) -> pb.ModelConfig:
    return pb.ModelConfig(
        id=one.id,
        provider=one.provider,
        tier=one.tier,
        context_window=one.context_window,
        supports_tools=one.supports_tools,
        supports_vision=one.supports_vision,
        cost_per_1k_input=one.cost_per_1k_input,
        cost_per_1k_output=one.cost_per_1k_output,
        output_max=one.output_max,
        prices=None if one.prices is None else _prices(one.prices),
        resting_ms=one.resting_ms,
        prefill=one.prefill,
    )


def _prices(one: api.ModelPrices) -> pb.ModelPrices:
    return pb.ModelPrices(
        input=one.input,
        output=one.output,
        cache_read=one.cache_read,
        cache_write=one.cache_write,
        currency=one.currency,
        date=one.date,
    )
