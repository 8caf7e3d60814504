"""Sessions over gRPC, by generated stubs: a whole turn, its stream resumed inside the answer, and what is refused."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from support.bootedgateway import booted
from support.rpc import ref, refusal_of, rpc
from talon.v1 import talon_pb2 as pb


async def test_a_turn_is_driven_by_generated_stubs_with_a_reconnect_inside_its_answer(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        made = await client.sessions.Create(
            pb.CreateSessionRequest(
                namespace="acme", agent="helper", session_id="s1", metadata_json='{"order":12345678901234567890}'
            )
        )
        assert (made.id, made.state, made.metadata_json) == ("s1", "idle", '{"order":12345678901234567890}')
        sent = await client.sessions.Send(pb.SendRequest(session=ref(), content="hello", idempotency_key="k1"))
        again = await client.sessions.Send(pb.SendRequest(session=ref(), content="hello", idempotency_key="k1"))
        assert (sent.replayed, again.replayed, again.turn_id, again.seq) == (False, True, sent.turn_id, sent.seq)
        held = await gateway.hand.claim()
        model = await gateway.hand.start(held)
        await gateway.hand.say(held, model, 0, "Hel")
        seen: list[pb.StreamEvent] = []
        stream = client.sessions.Stream(pb.StreamRequest(session=ref(), after="0"))
        async for event in stream:
            seen.append(event)
            if event.type == "text.delta":
                break
        stream.cancel()
        assert [event.type for event in seen][-3:] == ["turn.started", "model.started", "text.delta"]
        await gateway.hand.say(held, model, 3, "lo ")
        state = await client.sessions.State(ref())
        assert (state.session.state, state.turn.turn_id, state.turn.loop.max_iterations) == ("running", sent.turn_id, 10)
        rest: list[pb.StreamEvent] = []
        resumed = client.sessions.Stream(pb.StreamRequest(session=ref(), after=seen[-1].cursor, turn_id=sent.turn_id))
        async for event in resumed:
            rest.append(event)
            if len(rest) == 1:
                await gateway.hand.finish(held, model, "Hello you")
        assert [event.payload_json for event in rest if event.type == "text.delta"] == [
            '{"offset":3,"text":"lo "}',
            '{"offset":6,"text":"you"}',
        ]
        assert rest[-1].type == "turn.completed"
        cursors = [event.cursor for event in (*seen, *rest)]
        assert len(set(cursors)) == len(cursors)
        assert (await client.sessions.Get(ref())).state == "idle"


async def test_what_is_refused_says_its_code_its_fields_and_its_request(tmp_path: Path) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await client.sessions.Get(ref("nobody"), metadata=(("x-request-id", "mine"),))
        refused = refusal_of(missing.value)
        assert (refused.status, refused.code, refused.request_id) == ("NOT_FOUND", "session_not_found", "mine")
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await client.sessions.Create(
                pb.CreateSessionRequest(namespace="acme", agent="helper", session_id="No!", profile="third")
            )
        refused = refusal_of(wrong.value)
        assert (refused.status, refused.code, set(refused.fields)) == ("INVALID_ARGUMENT", "invalid", {"id", "profile"})
        with pytest.raises(grpc.aio.AioRpcError) as malformed:
            await client.channel.unary_unary("/talon.v1.Sessions/Get")(b"\xff\xff\xff")
        refused = refusal_of(malformed.value)
        assert (refused.status, refused.code) == ("INVALID_ARGUMENT", "malformed")
