"""A fake model vendor that looks at the key of every call; one that it does not know it sends back in every form there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from support.canary import forms
from support.tinyhttp import Tiny, serving

ANSWER = (
    'data: {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "fine"}, "finish_reason": null}]}\n\n'
    'data: {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    "data: [DONE]\n\n"
)


class Vendor:
    """`accepted` keys are answered; `keys` are those that came, in their order."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.keys: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One call."""
        await request.read()
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.keys.append(key)
        if key in self.accepted:
            return web.Response(text=ANSWER, content_type="text/event-stream")
        said = " ".join(form.decode("latin-1") for form in forms(key) if b"\0" not in form)
        return web.json_response({"error": {"message": f"wrong key {said}", "code": "invalid_api_key"}}, status=401)


@asynccontextmanager
async def vending() -> AsyncGenerator[Vendor]:
    """A vendor that serves."""
    vendor = Vendor()
    tiny: Tiny
    async with serving(vendor.answer) as tiny:
        vendor.url = f"{tiny.url}/v1"
        yield vendor
