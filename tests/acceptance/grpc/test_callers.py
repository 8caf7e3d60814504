"""What becomes of calls whose callers leave, are slow, are nobody any more, or stay when the gateway goes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.bootedgateway import booted
from support.rpc import Client, ref, refusal_of, rpc
from support.waiting import until
from talon.access.protocol import KeyRequest
from talon.access.roles import LOCAL, Grant
from talon.v1 import talon_pb2 as pb


class SlowWriter:
    """A journal writer that holds deliveries back."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    @property
    def alive(self) -> bool:
        return self._inner.alive

    async def deliver(self, op: Any) -> Any:
        self.asked.set()
        await self.go.wait()
        return await self._inner.deliver(op)


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_a_message_whose_caller_leaves_in_the_middle_is_accepted_all_the_same(tmp_path: Path, how: str) -> None:
    async with booted(tmp_path) as gateway:
        await gateway.session()
        slow = SlowWriter(gateway.writer)
        object.__setattr__(gateway.deps, "writer", slow)
        async with rpc(gateway) as client:
            message = pb.SendRequest(session=ref(), content="hello", idempotency_key="k")
            call = client.sessions.Send(message, timeout=0.3 if how == "deadline" else None)
            await asyncio.wait_for(slow.asked.wait(), 5)
            if how == "cancelled":
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            else:
                with pytest.raises(grpc.aio.AioRpcError) as late:
                    await call
                assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            slow.go.set()
            again = await client.sessions.Send(message)
            assert (again.replayed, again.seq) == (True, 1)


async def test_what_was_begun_is_done_before_the_server_ends(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway:
        await gateway.session()
        slow = SlowWriter(gateway.writer)
        object.__setattr__(gateway.deps, "writer", slow)
        async with rpc(gateway) as client:
            call = client.sessions.Send(pb.SendRequest(session=ref(), content="hello"))
            await asyncio.wait_for(slow.asked.wait(), 5)
            call.cancel()
            stopping = asyncio.create_task(client.server.stop(0.1))
            await asyncio.sleep(0.3)  # well beyond the grace
            assert not stopping.done()
            slow.go.set()
            await asyncio.wait_for(stopping, 5)
        row = await gateway.store.get_session(("acme", "helper", "s1"))
        assert row is not None
        assert row.last_seq == 2


async def test_a_cancelled_stream_and_a_cancelled_watch_free_everything(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        await gateway.session()
        calls = [client.sessions.Stream(pb.StreamRequest(session=ref(), after="0")) for _ in range(50)]
        calls += [client.resources.Watch(pb.WatchRequest(namespace="acme", kind="Agent")) for _ in range(50)]
        await until(lambda: (gateway.hub.count, gateway.hub.watches) == (50, 50))
        for call in calls:
            call.cancel()
        await until(lambda: (gateway.hub.count, gateway.hub.watches) == (0, 0))
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() in ("grpc stream", "grpc watch")])


async def test_a_reader_that_takes_nothing_is_let_go_told_so_and_resumes(tmp_path: Path) -> None:
    async with booted(tmp_path, stream_buffer_max=65_536) as gateway, rpc(gateway) as client:
        await gateway.session()
        await client.sessions.Send(pb.SendRequest(session=ref(), content="hello"))
        held = await gateway.hand.claim()
        model = await gateway.hand.start(held)
        stream = client.sessions.Stream(pb.StreamRequest(session=ref(), after="0"))
        await stream.initial_metadata()
        await until(lambda: gateway.hub.count == 1)
        said, piece = 0, "x" * 60_000
        async with asyncio.timeout(30):
            while gateway.hub.count:
                await gateway.hand.say(held, model, said * len(piece), piece)
                said += 1
        texts: list[str] = []
        last = ""
        try:
            while (event := await asyncio.wait_for(stream.read(), 5)) is not grpc.aio.EOF:
                last = event.cursor
                texts += [json.loads(event.payload_json)["text"]] if event.type == "text.delta" else []
        except grpc.aio.AioRpcError as error:
            refused = refusal_of(error)
            assert (refused.status, refused.code, refused.retry_s) == ("UNAVAILABLE", "stream_too_slow", 1.0)
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        resumed = client.sessions.Stream(pb.StreamRequest(session=ref(), after=last))
        while sum(map(len, texts)) < said * len(piece):
            event = await asyncio.wait_for(resumed.read(), 5)
            texts.append(json.loads(event.payload_json)["text"])
        assert "".join(texts) == piece * said
        resumed.cancel()


async def test_streams_and_watches_end_with_the_key_and_say_so(tmp_path: Path) -> None:
    async with booted(tmp_path, keys=True) as gateway, rpc(gateway) as client:
        await gateway.session()
        keys = gateway.deps.access.keys
        made = await keys.create(LOCAL, KeyRequest("short", (Grant("viewer", "acme"),)))
        with pytest.raises(grpc.aio.AioRpcError) as nobody:
            await client.sessions.Get(ref())
        assert refusal_of(nobody.value).code == "unauthenticated"
        mine = (("authorization", f"Bearer {made.secret}"),)
        assert (await client.sessions.Get(ref(), metadata=mine)).id == "s1"
        with pytest.raises(grpc.aio.AioRpcError) as reader:
            await client.sessions.Send(pb.SendRequest(session=ref(), content="hello"), metadata=mine)
        refused = refusal_of(reader.value)
        assert (refused.status, refused.code) == ("PERMISSION_DENIED", "forbidden")
        assert "sessions.write" in refused.detail
        stream = client.sessions.Stream(pb.StreamRequest(session=ref(), after="0"), metadata=mine)
        watch = client.resources.Watch(pb.WatchRequest(namespace="acme", kind="Agent"), metadata=mine)
        await until(lambda: (gateway.hub.count, gateway.hub.watches) == (1, 1))
        assert (await watch.read()).type == "bookmark"
        await keys.revoke(LOCAL, made.row.id)
        for call in (stream, watch):
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await asyncio.wait_for(call.read(), 3)
            assert refusal_of(ended.value).code == "unauthenticated"


async def test_a_gateway_that_goes_tells_its_streams_to_go_on_elsewhere(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        await gateway.session()
        health = await watched_health(client)
        stream = client.sessions.Stream(pb.StreamRequest(session=ref(), after="0"))
        watch = client.resources.Watch(pb.WatchRequest(namespace="acme", kind="Agent"))
        assert (await watch.read()).type == "bookmark"
        await until(lambda: gateway.hub.count == 1)
        stopping = asyncio.create_task(client.server.stop(5))
        await gateway.hub.close()
        for call in (stream, watch):
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await asyncio.wait_for(call.read(), 5)
            refused = refusal_of(ended.value)
            assert (refused.status, refused.code, refused.retry_s) == ("UNAVAILABLE", "shutting_down", 1.0)
        assert await asyncio.wait_for(health.read(), 5) == b"\x08\x02"  # NOT_SERVING
        await asyncio.wait_for(stopping, 5)


async def watched_health(client: Client) -> Any:
    """A watch of health that has said SERVING."""
    channel: Any = client.channel
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    assert await asyncio.wait_for(watch.read(), 5) == b"\x08\x01"
    return watch


async def test_what_does_not_fit_into_a_status_is_said_as_far_as_it_fits(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        features = json.dumps({f"no {number} é": 1 for number in range(300)})
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await client.sessions.Create(pb.CreateSessionRequest(namespace="acme", agent="helper", features_json=features))
        refused = refusal_of(wrong.value)
        assert (refused.status, refused.code) == ("INVALID_ARGUMENT", "invalid")
        assert 10 < len(refused.fields) < 300
        assert refused.fields[""] == f"and {300 - len(refused.fields) + 1} more: what fits into a gRPC status is told"


async def test_a_message_over_the_limit_is_refused_with_its_limit(tmp_path: Path) -> None:
    async with booted(tmp_path, body_max=100_000) as gateway, rpc(gateway) as client:
        with pytest.raises(grpc.aio.AioRpcError) as large:
            await client.resources.Apply(pb.ApplyRequest(manifests="#" * 150_000))
        assert refusal_of(large.value).code == "too_large"
        with pytest.raises(grpc.aio.AioRpcError) as larger:
            await client.resources.Apply(pb.ApplyRequest(manifests="#" * 300_000))
        assert larger.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
