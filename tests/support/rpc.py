"""A gRPC side for a booted gateway, and reading what its errors say."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from support.bootedgateway import Booted
from talon.gateway.grpc.server import Server
from talon.v1 import talon_pb2 as pb
from talon.v1 import talon_pb2_grpc

STUBS: Any = talon_pb2_grpc
Ref = pb.SessionRef


@dataclass
class Client:
    """Generated stubs over one channel."""

    channel: grpc.aio.Channel
    server: Server
    port: int

    def __post_init__(self) -> None:
        self.sessions: Any = STUBS.SessionsStub(self.channel)
        self.approvals: Any = STUBS.ApprovalsStub(self.channel)
        self.resources: Any = STUBS.ResourcesStub(self.channel)
        self.namespaces: Any = STUBS.NamespacesStub(self.channel)
        self.schedules: Any = STUBS.SchedulesStub(self.channel)
        self.models: Any = STUBS.ModelsStub(self.channel)


def ref(session: str = "s1", agent: str = "helper", namespace: str = "acme") -> Ref:
    """A session of the booted gateway."""
    return Ref(namespace=namespace, agent=agent, session_id=session)


@contextlib.asynccontextmanager
async def rpc(gateway: Booted) -> AsyncGenerator[Client]:
    """Serve gRPC beside a booted gateway's HTTP."""
    server = Server(gateway.deps)
    port = await server.start("127.0.0.1", 0)
    assert port is not None
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Client(channel, server, port)
    finally:
        await server.stop(2)


@dataclass
class Refusal:
    """What a failed call said."""

    status: str
    detail: str
    code: str
    fields: dict[str, str]
    retry_s: float | None
    request_id: str


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """An error with its details; each must be there once at most, and the message must be the same in both places."""
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])  # type: ignore[arg-type]
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found: dict[type[Message], Message] = {}
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.RequestInfo,
    ):
        for detail in status.details:
            one = kind()
            if detail.Unpack(one):
                assert kind not in found
                found[kind] = one
    info: Any = found[error_details_pb2.ErrorInfo]
    assert info.domain == "talon"
    bad: Any = found.get(error_details_pb2.BadRequest, error_details_pb2.BadRequest())
    retry: Any = found.get(error_details_pb2.RetryInfo)
    request: Any = found[error_details_pb2.RequestInfo]
    return Refusal(
        error.code().name,
        error.details() or "",
        info.reason,
        {one.field: one.description for one in bad.field_violations},
        None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9,
        request.request_id,
    )
