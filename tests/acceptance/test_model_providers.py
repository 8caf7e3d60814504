"""Every kind of provider, by its configuration alone, through the booted product: a turn with tools at an independent server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from support.aimockserver import Aimock
from support.product import Api, Product
from support.vendors.table import VENDORS


async def test_a_turn_with_tools_through_every_kind_of_provider(tmp_path: Path, aimock: Aimock) -> None:
    providers = {vendor.kind.replace("_", "-"): vendor for vendor in VENDORS}
    config: dict[str, Any] = {
        "providers": {name: {"base_url": aimock.url + vendor.path, "api_key": "sk-e2e"} for name, vendor in providers.items()}
    }
    config["providers"]["bedrock"] |= {"api_key": "AKID:sk-e2e", "region": "eu-central-1"}  # signed, not shown
    (tmp_path / "talon.yaml").write_text(json.dumps(config))  # the kind follows from the name
    async with Product(tmp_path, args=("--config", "talon.yaml")) as product, Api(product.url) as api:
        for name, vendor in providers.items():
            model = {"provider": name, "name": vendor.model}
            await api.agent(f"by-{name}", model, capabilities={"allowed_tools": ["current_time"]})

        async def turn(name: str) -> list[dict[str, Any]]:
            where = f"default/by-{name}/s1"
            receipt = await api.send(where, "what time is it?")
            await api.end_of(where, receipt["turn_id"])
            return await api.journal(where)

        journals = dict(zip(providers, await asyncio.gather(*(turn(name) for name in providers)), strict=True))
    for name, journal in journals.items():
        payloads: dict[str, list[dict[str, Any]]] = {}
        for entry in journal:
            payloads.setdefault(entry["type"], []).append(entry["payload"])
        assert "turn.completed" in payloads, (name, journal[-3:])
        first, second = payloads["model.finished"]
        assert (first["stop_reason"], first["content"], first["calls"]) == ("tool_calls", "Let me look.", 2), name
        reasoning = "" if "reasoning" in providers[name].aimock_wrong else "I have no clock, but a tool."
        assert first.get("reasoning", "") == reasoning, name
        assert min(finished["usage"]["output_tokens"] for finished in (first, second)) > 0, name
        assert [p["name"] for p in payloads["tool.requested"]] == ["current_time", "no_such_tool"], name
        assert [p["reason"] for p in payloads["tool.denied"]] == ["unknown_tool"], name
        assert payloads["message.completed"][0]["content"] == "It is late.", name
        assert "sk-e2e" not in json.dumps(journal)
    kept = next(e["payload"] for e in journals["anthropic"] if e["type"] == "model.finished")["opaque"]
    assert (kept["provider"], json.loads(kept["items"][0])["type"]) == ("anthropic", "thinking")
