"""Images in messages: from HTTP, gRPC and the command line, over both stores, to every vendor's documented form of a picture."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from support.pictures import GIF, image, png, text
from support.postgres import PostgresServer
from support.product import Api, Product, session_path
from support.recorder import Behaviour, Recorder, recording
from support.rpc import STUBS, refusal_of
from support.stage import talon
from support.vendors.base import Says, Vendor
from support.vendors.table import VENDORS
from talon.v1 import talon_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
#: Over 64 KiB: what no entry may hold itself.
LARGE = png(1, 160)
SMALL = png(2)
CATALOGUE = {"vendors": {"openai": {"models": {"blind": {"tier": "cheap"}}}}}
SEES, BLIND = {"provider": "openai", "name": "gpt-4o"}, {"provider": "openai", "name": "blind"}


def sees(vendor: Vendor) -> Behaviour:
    """The vendor's plain answer."""
    body = b"".join(vendor.fake.stream(Says(text="I see it.")))

    async def answer(number: int, request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": vendor.fake.content_type})

    return answer


@dataclass
class Gallery:
    """The booted product, who it asks, and its doors."""

    directory: Path
    vendors: Recorder
    api: Api
    channel: grpc.aio.Channel

    async def by_http(self, where: str, content: Any, **more: Any) -> dict[str, Any]:
        """Post, wait for the turn's end; -> the end."""
        receipt = await self.api.send(where, content, **more)
        return await self.api.end_of(where, receipt["turn_id"])

    async def by_grpc(self, where: str, *parts: pb.ContentPart, **more: Any) -> pb.SendResponse:
        """Post over gRPC; -> the receipt, once the turn has ended."""
        namespace, agent, session = where.split("/")
        ref = pb.SessionRef(namespace=namespace, agent=agent, session_id=session)
        stub: Any = STUBS.SessionsStub(self.channel)
        receipt = await stub.Send(pb.SendRequest(session=ref, parts=parts, **more))
        await self.api.end_of(where, receipt.turn_id)
        return receipt

    async def bytes_of(self, where: str, seq: int, number: int) -> tuple[int, str, bytes]:
        """-> (status, content type, body) of an image of a message."""
        url = f"{self.api.url}{session_path(where)}/messages/{seq}/images/{number}"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status, answer.content_type, await answer.read()

    async def received(self, where: str) -> list[dict[str, Any]]:
        """The messages of the journal, as entries."""
        return [entry for entry in await self.api.journal(where) if entry["type"] == "message.received"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def gallery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gallery]:
    directory = tmp_path_factory.mktemp(f"images-{request.param}")
    env: dict[str, str] = {}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        env = {"DATABASE_URL": server.create_database(), "TALON_SECRETS_KEY": base64.b64encode(bytes(range(32))).decode()}
    async with recording() as vendors:
        vendors.behaviours |= {vendor.kind: sees(vendor) for vendor in VENDORS}
        providers = {one.kind.replace("_", "-"): vendors.provider(one.kind, one.kind, one.path) for one in VENDORS}
        providers["bedrock"] |= {"region": "us-east-1", "api_key": "AKIDEXAMPLE:secret"}
        (directory / "catalogue.yaml").write_text(yaml.safe_dump({"currency": "USD", **CATALOGUE}))
        config = {"providers": providers, "models": {"catalogue": "catalogue.yaml"}, "gateway": {"image_max_bytes": 200_000}}
        (directory / "talon.yaml").write_text(yaml.safe_dump(config))
        async with (
            Product(directory, args=("--config", "talon.yaml"), env=env) as product,
            Api(product.url) as api,
            grpc.aio.insecure_channel(await product.grpc()) as channel,
        ):
            yield Gallery(directory, vendors, api, channel)
            assert "Traceback" not in product.log, product.log


@pytest.mark.parametrize("vendor", VENDORS, ids=[vendor.kind for vendor in VENDORS])
async def test_a_picture_from_every_door_reaches_every_vendor_in_its_own_form(gallery: Gallery, vendor: Vendor) -> None:
    provider = vendor.kind.replace("_", "-")
    agent = await gallery.api.agent(f"by-{provider}", {"provider": provider, "name": vendor.model})
    where = f"default/{agent}/s1"
    by_cli = png(3)
    (gallery.directory / "by-cli.png").write_bytes(by_cli)

    assert (await gallery.by_http(where, [text("What is"), image(LARGE), text("this?")]))["type"] == "turn.completed"
    picture = pb.ContentPart(image=pb.ContentImage(media_type="image/png", data=SMALL))
    await gallery.by_grpc(where, pb.ContentPart(text="And this?"), picture)
    if vendor is VENDORS[0]:  # the command line posts over HTTP: what follows is the same for all vendors
        send = ("session", "send", agent, "s1", "Or this?", "--image", "by-cli.png", "--wait")
        code, out, errors = await talon(*send, cwd=gallery.directory, env={"TALON_SERVER": gallery.api.url})
        assert (code, out) == (0, "I see it.\n"), errors

    sent = [LARGE, SMALL, by_cli] if vendor is VENDORS[0] else [LARGE, SMALL]
    bodies = gallery.vendors.calls[vendor.kind][-len(sent) :]
    for number, body in enumerate(bodies, 1):  # earlier pictures are part of the conversation
        whole = json.dumps(body)
        forms = [json.dumps(vendor.image("image/png", base64.b64encode(data).decode())) for data in sent[:number]]
        places = [whole.find(form.removesuffix("}")) for form in forms]
        assert -1 not in places, (vendor.kind, number, places)
        assert places == sorted(places)
        assert whole.index("What is") < places[0] < whole.index("this?")


async def test_the_journal_has_what_was_sent_and_its_bytes_come_back(gallery: Gallery) -> None:
    agent = await gallery.api.agent("journal", SEES)
    where = f"default/{agent}/s1"
    await gallery.by_http(where, [text("first"), image(LARGE), image(SMALL)])
    await gallery.by_http(where, [image(LARGE)])
    await gallery.by_http(where, "a text alone")
    one, two, three = await gallery.received(where)
    words, large, small = one["payload"]["content"]
    assert words == text("first")
    assert [(part["type"], part["media_type"], part["size"]) for part in (large, small)] == [
        ("image", "image/png", len(LARGE)),
        ("image", "image/png", len(SMALL)),
    ]
    assert two["payload"]["content"] == [large], "the same picture is kept once"
    assert three["payload"]["content"] == "a text alone"
    assert len(json.dumps(await gallery.api.journal(where))) < len(LARGE), "no entry holds the bytes of an image"
    for seq, number, data in ((one["seq"], 1, LARGE), (one["seq"], 2, SMALL), (two["seq"], 0, LARGE)):
        assert await gallery.bytes_of(where, seq, number) == (200, "image/png", data)
    for seq, number in ((one["seq"], 0), (one["seq"], 3), (three["seq"], 0), (one["seq"] + 1, 0), (9999, 0)):
        status, _, body = await gallery.bytes_of(where, seq, number)
        assert (status, json.loads(body)["code"]) == (404, "image_not_found")
    other = f"default/{agent}/other"
    await gallery.by_http(other, "nothing to see")
    assert (await gallery.bytes_of(other, one["seq"], 1))[0] == 404, "another session's picture"
    streamed = [event async for event in _until_end(gallery.api, where, three["turn_id"]) if event["type"] == "message.received"]
    assert [event["payload"]["content"] for event in streamed] == [entry["payload"]["content"] for entry in (one, two, three)]
    listed = await gallery.api.get(f"{session_path(where)}/messages")
    assert listed["items"][0]["content"] == one["payload"]["content"]
    code, out, _ = await talon("session", "journal", agent, "s1", cwd=gallery.directory, env={"TALON_SERVER": gallery.api.url})
    assert (code, f"user: first [image/png, {len(LARGE)} bytes]" in out) == (0, True), out
    ref = pb.SessionRef(namespace="default", agent=agent, session_id="s1")
    stub: Any = STUBS.SessionsStub(gallery.channel)
    found = await stub.GetImage(pb.ImageRef(session=ref, seq=one["seq"], number=1))
    assert (found.media_type, found.data) == ("image/png", LARGE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetImage(pb.ImageRef(session=ref, seq=one["seq"], number=-1))
    assert refusal_of(caught.value).code == "image_not_found"


async def _until_end(api: Api, where: str, turn_id: str) -> AsyncGenerator[dict[str, Any]]:
    async with asyncio.timeout(30):
        async for event in api.events(where):
            yield event
            if event["type"] == "turn.completed" and event["turn_id"] == turn_id:
                return


async def test_a_key_belongs_to_its_picture(gallery: Gallery) -> None:
    agent = await gallery.api.agent("keys", SEES)
    where = f"default/{agent}/s1"
    path = f"{session_path(where)}/message?create=true"
    first = await gallery.api.send(where, [image(SMALL)], key="k1")
    assert await gallery.api.send(where, [image(SMALL)], key="k1") == first
    _, refused = await gallery.api.call("POST", path, {"content": [image(png(9))]}, headers={"Idempotency-Key": "k1"}, expect=409)
    assert refused["code"] == "idempotency_conflict"
    again = pb.ContentPart(image=pb.ContentImage(media_type="image/png", data=SMALL))
    assert (await gallery.by_grpc(where, again, idempotency_key="k1")).replayed


async def test_a_model_that_sees_nothing_is_passed_over_and_alone_it_denies_the_turn(gallery: Gallery) -> None:
    both = await gallery.api.agent("both", BLIND, SEES)
    assert (await gallery.by_http(f"default/{both}/s1", [image(SMALL)]))["type"] == "turn.completed"
    asked = [e["payload"]["model"] for e in await gallery.api.journal(f"default/{both}/s1") if e["type"] == "model.started"]
    assert asked == ["gpt-4o"]
    await gallery.by_http(f"default/{both}/s1", "and now?")  # the picture is history, of which the blind one is told
    assert "this model takes none" in json.dumps(gallery.vendors.calls["openai"][-1])
    explained = await gallery.api.get(f"/v1/ns/default/agents/{both}/models")
    assert any(rule.startswith("7 ") and "p0" in rule for rule in explained["rules"]), explained["rules"]

    alone = await gallery.api.agent("alone", BLIND)
    before = len(gallery.vendors.calls["openai"])
    end = await gallery.by_http(f"default/{alone}/s1", [text("look"), image(GIF, "image/gif")])
    assert (end["type"], end["payload"]["reason"]) == ("turn.denied", "images_not_taken")
    assert len(gallery.vendors.calls["openai"]) == before, "nobody was asked"


async def test_a_wrong_picture_is_refused_by_every_door_and_nothing_is_written(gallery: Gallery) -> None:
    agent = await gallery.api.agent("wrong", SEES)
    where = f"default/{agent}/s1"
    path = f"{session_path(where)}/message?create=true"
    too_large = png(5, 300)
    for content, status, code, field in (
        ([image(SMALL, "image/jpeg")], 422, "invalid", "content[0].data"),
        ([text("a"), image(too_large)], 413, "too_large", "content[1].data"),
        ([image(SMALL)] * 9, 413, "too_large", "content"),
        ([{"type": "image", "url": "https://example.com/a.png"}], 422, "invalid", "content[0].url"),
    ):
        _, refused = await gallery.api.call("POST", path, {"content": content}, expect=status)
        assert (refused["code"], refused["errors"][0]["field"]) == (code, field)
    wrong = pb.ContentPart(image=pb.ContentImage(media_type="image/png", data=b"GIF89a"))
    for parts, more, field in (((wrong,), {}, "content[0].data"), ((pb.ContentPart(text="a"),), {"content": "b"}, "content")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gallery.by_grpc(where, *parts, create=True, **more)
        assert field in refusal_of(caught.value).fields
    (gallery.directory / "page.pdf").write_bytes(b"%PDF-1.7")
    for name, says in (("page.pdf", "is no image"), ("nothing.png", "cannot be read")):
        send = ("session", "send", agent, "s1", "look", "--image", name)
        code, _, errors = await talon(*send, cwd=gallery.directory, env={"TALON_SERVER": gallery.api.url})
        assert (code, says in errors, name in errors) == (2, True, True), errors
    await gallery.api.call("GET", session_path(where), expect=404)
