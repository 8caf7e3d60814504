"""What is answered where no model suits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from talon.domain.errors import NotFound
from talon.domain.models import ModelInfo, Task
from talon.gateway.api.models import estimate_cost, select_model
from talon.gateway.deps import GatewayDeps
from talon.manifest.catalogue import Catalogue


def serving(*models: ModelInfo) -> GatewayDeps:
    """Dependencies that know these models, and nothing else."""

    async def served() -> Catalogue:
        return Catalogue(models=models)

    async def read_shared(prefix: str) -> tuple[dict[str, bytes], int]:
        del prefix
        return {}, 0

    resources: Any = SimpleNamespace(served=served)
    store: Any = SimpleNamespace(read_shared=read_shared)
    return cast(GatewayDeps, SimpleNamespace(plane=SimpleNamespace(resources=resources), store=store))


async def test_of_many_models_that_are_out_some_are_named_and_the_rest_counted() -> None:
    deps = serving(*(ModelInfo("acme", f"m{number}", "mid", context_window=1000) for number in range(300)))
    for asking in (select_model(deps, Task(input_tokens=5000)), estimate_cost(deps, Task(input_tokens=5000))):
        with pytest.raises(NotFound) as caught:
            await asking
        assert "2 acme/m0 is out: 6024 tokens go over its window of 1000" in caught.value.detail
        assert caught.value.detail.endswith("; 296 more are out")
        assert len(caught.value.detail) < 500


async def test_where_no_model_is_known_that_is_why() -> None:
    with pytest.raises(NotFound, match="no running worker knows a model by name"):
        await select_model(serving(), Task())
    with pytest.raises(NotFound, match="write it as provider/name"):
        await estimate_cost(serving(), Task(), "gpt-4o")
    with pytest.raises(NotFound, match="talon model list"):
        await estimate_cost(serving(), Task(), "acme/gpt-4o")
