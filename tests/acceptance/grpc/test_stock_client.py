"""A client that has no copy of the contract, and the guide's own program: each drives a whole turn."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2

from support.bootedgateway import TEMPLATE, Booted, booted
from support.markdown import page
from support.rpc import rpc
from support.waiting import until


class Reflected:
    """Knows what the server says of itself, and nothing else. Messages go in and out as the JSON of their fields."""

    def __init__(self, channel: Any, version: str) -> None:
        self._channel, self._pool = channel, descriptor_pool.DescriptorPool()
        self._ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    async def services(self) -> list[str]:
        """Their names; their files and what these import are learnt."""
        answer = await self._asked(list_services="*")
        names = [one.name for one in answer.list_services_response.service]
        for name in names:
            for data in (await self._asked(file_containing_symbol=name)).file_descriptor_response.file_descriptor_proto:
                await self._learn(FileDescriptorProto.FromString(data))
        return names

    async def _asked(self, **question: str) -> reflection_pb2.ServerReflectionResponse:
        call = self._ask(iter([reflection_pb2.ServerReflectionRequest(**question)]))  # type: ignore[arg-type]
        answer = await call.read()
        assert await call.read() is grpc.aio.EOF
        assert not answer.HasField("error_response"), answer
        return answer

    async def _learn(self, file: FileDescriptorProto) -> None:
        try:
            self._pool.FindFileByName(file.name)
        except KeyError:
            for name in file.dependency:
                found = await self._asked(file_by_filename=name)
                for data in found.file_descriptor_response.file_descriptor_proto:
                    await self._learn(FileDescriptorProto.FromString(data))
            self._pool.AddSerializedFile(file.SerializeToString())

    def call(self, service: str, name: str, request: dict[str, Any]) -> Any:
        """One call."""
        method: Any = self._pool.FindServiceByName(service).methods_by_name[name]
        question, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        kind = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary

        def write(fields: dict[str, Any]) -> bytes:
            return ParseDict(fields, question()).SerializeToString()

        def read(data: bytes) -> dict[str, Any]:
            return MessageToDict(answer.FromString(data), preserving_proto_field_name=True)

        return kind(f"/{service}/{name}", request_serializer=write, response_deserializer=read)(request)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_a_client_that_knows_only_reflection_drives_a_turn_and_reconnects_inside_its_answer(
    tmp_path: Path, version: str
) -> None:
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        stock = Reflected(client.channel, version)
        assert await stock.services() == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "talon.v1.Approvals",
            "talon.v1.Models",
            "talon.v1.Namespaces",
            "talon.v1.Resources",
            "talon.v1.Schedules",
            "talon.v1.Sessions",
        ]
        assert await stock.call("grpc.health.v1.Health", "Check", {"service": "talon.v1.Sessions"}) == {"status": "SERVING"}
        session = {"namespace": "acme", "agent": "helper", "session_id": "s1"}
        sent = await stock.call("talon.v1.Sessions", "Send", {"session": session, "content": "hello", "create": True})
        held = await gateway.hand.claim()
        model = await gateway.hand.start(held)
        await gateway.hand.say(held, model, 0, "Hel")
        first = stock.call("talon.v1.Sessions", "Stream", {"session": session, "after": "0"})
        seen = [await first.read() for _ in range(5)]
        first.cancel()
        assert json.loads(seen[-1]["payload_json"]) == {"offset": 0, "text": "Hel"}
        wanted = {"session": session, "after": seen[-1]["cursor"], "turn_id": sent["turn_id"]}
        again = stock.call("talon.v1.Sessions", "Stream", wanted)
        await gateway.hand.say(held, model, 3, "lo ")
        assert json.loads((await again.read())["payload_json"]) == {"offset": 3, "text": "lo "}
        await gateway.hand.finish(held, model, "Hello you")
        types: list[str] = []
        while (event := await again.read()) is not grpc.aio.EOF:
            types.append(event["type"])
        assert types == ["model.finished", "text.delta", "message.completed", "turn.completed"]
        state = await stock.call("talon.v1.Sessions", "State", session)
        assert (state["session"]["state"], state["turn"]["state"]) == ("idle", "completed")


async def test_the_guides_program_follows_a_turn(tmp_path: Path) -> None:
    """Its stubs are those of the blocking library: a thread of its own."""
    (block,) = [one for one in page("docs/guides/grpc.md").blocks() if one.info[:1] == ("python",)]
    names: dict[str, Any] = {}
    exec(compile(block.text, "docs/guides/grpc.md", "exec"), names)
    async with booted(tmp_path) as gateway, rpc(gateway) as client:
        text = TEMPLATE.replace("namespace: acme", "namespace: default").replace("helper", "assistant")
        applied = await gateway.call("POST", "/v1/apply", data=text.encode(), Content_Type="application/yaml")
        assert applied.status == 200, applied
        asking = asyncio.create_task(asyncio.to_thread(names["ask"], f"127.0.0.1:{client.port}", "hello"))
        await _play(gateway)
        assert (await asyncio.wait_for(asking, 20))[-1] == "turn.completed"


async def _play(gateway: Booted) -> None:
    """The worker's side of one turn."""
    await until(lambda: bool(gateway.published), 20)
    held = await gateway.hand.claim()
    model = await gateway.hand.start(held)
    await gateway.hand.finish(held, model, "Hello you")
