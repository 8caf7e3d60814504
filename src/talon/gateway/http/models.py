"""`/v1/models`: the models that workers can ask, which suits a task, what it would cost; and which an agent's turn would ask."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.models import Task
from talon.gateway.api import models
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import body_doc, doc
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.wire import page, reply

MODELS = "/v1/models"
DataTier = Annotated[
    int, Query(ge=0, le=models.DATA_TIER_MAX, description="The tier of the data: 0 public, 1 internal, 2 confidential.")
]


class TaskContext(Body):
    """What a model is wanted for."""

    type: Literal["chat", "orchestration", "subagent", "reasoning", "summarization"] = Field(
        default="chat", description="What kind of work it is."
    )
    complexity: Literal["low", "medium", "high"] = Field(default="medium", description="How hard it is.")
    inputTokens: int = Field(default=0, ge=0, le=models.TOKENS_MAX, description="Tokens that the model is given.")  # noqa: N815

    def task(self) -> Task:
        """As it is reckoned with."""
        return Task(self.type, self.complexity, self.inputTokens)


class EstimateFields(TaskContext):
    """What a model is wanted for, and which one; without `model` the one that suits."""

    model: str = Field(
        default="", max_length=models.NAME_LENGTH_MAX, description="`provider/name`; empty: the model that suits the task."
    )


def router(deps: GatewayDeps) -> APIRouter:
    """The routes of models."""
    api = APIRouter(tags=["models"])
    _reading(api, deps)
    _asking(api, deps)
    return api


def _reading(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get(
        MODELS,
        operation_id="listModels",
        summary="The models that live workers know of their providers, by id",
        responses=doc(models.ModelConfig, 200, listed=True),
    )
    async def listed(limit: Limit = 50, cursor: Cursor = "") -> Response:
        found, after = await models.list_models(deps, cursor, limit)
        return page(list(found), after)

    @api.get(
        MODELS + "/tiers",
        operation_id="getModelTiers",
        summary="All models that are known by name, by tier",
        responses=doc(models.ModelTiers, 200),
    )
    async def tiers() -> Response:
        return reply(await models.model_tiers(deps))

    @api.get(
        "/v1/ns/{ns}/agents/{agent}/models",
        operation_id="explainModels",
        summary="The models that a turn of the agent would ask, and why, rule by rule",
        responses=doc(models.Explanation, 200, refused=("agent_not_found", "session_not_found")),
    )
    async def explained(
        ns: str,
        agent: str,
        session: Annotated[str, Query(description="In this session; empty: in a new one.")] = "",
        data_tier: DataTier = 0,
    ) -> Response:
        return reply(await models.explain_models(deps, ns, agent, session, data_tier))


def _asking(api: APIRouter, deps: GatewayDeps) -> None:
    @api.post(
        MODELS + "/select",
        operation_id="selectModel",
        summary="The model that suits a task, and why, rule by rule",
        responses=doc(models.SelectedModel, 200, refused=("model_not_found",), body=True),
        openapi_extra=body_doc(TaskContext, required=False),
    )
    async def select(request: Request) -> Response:
        return reply(await models.select_model(deps, (await read_json(request, TaskContext)).task()))

    @api.post(
        MODELS + "/estimate",
        operation_id="estimateCost",
        summary="What a task would cost",
        responses=doc(models.CostEstimate, 200, refused=("model_not_found",), body=True),
        openapi_extra=body_doc(EstimateFields, required=False),
    )
    async def estimated(request: Request) -> Response:
        fields = await read_json(request, EstimateFields)
        return reply(await models.estimate_cost(deps, fields.task(), fields.model))
