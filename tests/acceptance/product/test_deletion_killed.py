"""A namespace that is being deleted when its process is killed is deleted all the same, once somebody is there again."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from support.postgres import PostgresServer
from support.product import Api, Product
from support.waiting import until

SESSIONS, RESOURCES = 150, 450
PROFILES = {"modelPolicy": {"profiles": [{"name": "p", "model": {"provider": "model", "name": "m"}}]}}


async def fill(api: Api, namespace: str) -> None:
    """A namespace with an agent, its sessions, and many other things."""
    head = {"apiVersion": "talon.dev/v1alpha1"}
    metadata = {"namespace": namespace}
    agent: dict[str, Any] = {**head, "kind": "Agent", "metadata": {**metadata, "name": "bot"}, "spec": PROFILES}
    secrets = [{**head, "kind": "Secret", "metadata": {**metadata, "name": f"s{n}"}} for n in range(RESOURCES)]
    await api.call("POST", "/v1/apply", [{**head, "kind": "Namespace", "metadata": {"name": namespace}}, agent], expect=200)
    await api.call("POST", "/v1/apply", secrets, expect=200)
    path = f"/v1/ns/{namespace}/agents/bot/sessions"
    for start in range(0, SESSIONS, 25):
        await asyncio.gather(*(api.call("POST", path, {"id": f"s{n}"}, expect=201) for n in range(start, start + 25)))


async def left(api: Api, namespace: str) -> tuple[bool, int]:
    """(whether the namespace is there, how many things are in it)."""
    status, row = await api.call("GET", f"/v1/namespaces/{namespace}")
    if status == 404:
        return False, 0
    assert row["status"]["phase"] == "Terminating"
    count = 0
    for path in ("secrets", "agents/bot/sessions"):
        status, page = await api.call("GET", f"/v1/ns/{namespace}/{path}?limit=500")
        count += len(page["items"]) if status == 200 else 0
    return True, count


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_deletion_that_is_killed_in_the_middle_is_finished_by_the_next_gateway(
    store: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    env = {}
    if store == "postgres":
        key = base64.b64encode(bytes(range(32))).decode()
        env = {"DATABASE_URL": postgres.create_database(), "TALON_SECRETS_KEY": key}
    role = "up" if store == "sqlite" else "gateway"
    args = ("--data-dir", str(tmp_path / "data")) if store == "sqlite" else ("--name", "one")
    one = await Product(tmp_path / "one", role, args, env).start()
    async with Api(one.url) as api:
        await api.call("POST", "/v1/namespaces", {"name": "big"}, expect=201)
        await api.call("POST", "/v1/namespaces", {"name": "big:child"}, expect=201)
        await fill(api, "big:child")
        await fill(api, "big")
        marked = (await api.call("DELETE", "/v1/namespaces/big?cascade=true", expect=202))[1]
        assert marked["status"]["phase"] == "Terminating"
        _, refused = await api.call("PUT", "/v1/ns/big/secrets/late", {}, expect=409)
        assert refused["code"] == "terminating"
    await one.kill()
    assert "Traceback" not in one.log
    async with Product(tmp_path / "two", role, args, env) as two, Api(two.url) as api:
        there, count = await left(api, "big")
        assert there, "the deletion was over before the kill: nothing is shown"
        assert 0 < count <= SESSIONS + RESOURCES
        await until(lambda: _is_gone(api), 60)
        assert await left(api, "big:child") == (False, 0)
        await api.call("POST", "/v1/namespaces", {"name": "big"}, expect=201)
        assert (await api.get("/v1/ns/big/secrets"))["items"] == []
        assert "Traceback" not in two.log, two.log


async def _is_gone(api: Api) -> bool:
    return (await left(api, "big"))[0] is False
