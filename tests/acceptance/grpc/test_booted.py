"""gRPC of the booted product: its address, TLS with certificates that are renewed, and leaving in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.bootedgateway import TEMPLATE
from support.certificates import Authority
from support.product import Product
from support.rpc import STUBS, ref, refusal_of
from talon.v1 import talon_pb2 as pb


def product(directory: Path, *args: str) -> Product:
    return Product(directory / "up", args=("--data-dir", str(directory / "data"), *args))


async def test_a_stream_is_told_to_go_on_elsewhere_when_the_product_leaves_in_order(tmp_path: Path) -> None:
    async with product(tmp_path) as up, grpc.aio.insecure_channel(await up.grpc()) as channel:
        sessions: Any = STUBS.SessionsStub(channel)
        await STUBS.ResourcesStub(channel).Apply(pb.ApplyRequest(manifests=TEMPLATE))
        await sessions.Create(pb.CreateSessionRequest(namespace="acme", agent="helper", session_id="s1"))
        stream = sessions.Stream(pb.StreamRequest(session=ref(), after="0"))
        await stream.initial_metadata()
        assert await up.stop() == 0
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(stream.read(), 5)
        assert refusal_of(ended.value).code == "shutting_down"
        assert "Traceback" not in up.log


async def test_a_port_that_is_taken_ends_the_start_only_where_it_was_asked_for(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        asked = product(tmp_path, "--grpc-port", port)
        with pytest.raises(AssertionError):
            await asked.start()
        assert f"127.0.0.1:{port}" in asked.log
        assert "--grpc-port (0 picks one)" in asked.log


async def test_tls_with_certificates_of_clients_and_a_renewal_while_a_stream_is_open(tmp_path: Path) -> None:
    ours, others = Authority("ours"), Authority("others")
    cert, key = ours.files(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(ours.pem)
    files = (f"gateway.tls.{name}={path}" for name, path in (("cert", cert), ("key", key), ("client_ca", tmp_path / "ca.pem")))
    async with product(tmp_path, *(part for one in files for part in ("--set", one))) as up:
        address = await up.grpc()
        assert up.url.startswith("https://")
        async with grpc.aio.secure_channel(address, _client(ours, ours.issue("client"))) as opened:
            channel: Any = opened
            health = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            assert await asyncio.wait_for(health.read(), 10) == b"\x08\x01"
            for nobody in (_client(ours, None), _client(ours, others.issue("client")), _client(others, ours.issue("client"))):
                assert await _checked(address, nobody) is grpc.StatusCode.UNAVAILABLE
            for path, data in zip((cert, key), others.issue("server"), strict=True):
                path.write_bytes(data)
            renewed = _client(others, ours.issue("client"))
            async with asyncio.timeout(20):
                while await _checked(address, renewed) is not grpc.StatusCode.OK:  # noqa: ASYNC110  another process's doing
                    await asyncio.sleep(0.2)
            assert (await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")) == b"\x08\x01"  # as before, on its connection
            health.cancel()


def _client(trusted: Authority, shown: Sequence[bytes] | None) -> grpc.ChannelCredentials:
    cert, key = shown or (None, None)
    return grpc.ssl_channel_credentials(trusted.pem, key, cert)


async def _checked(address: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    """What a new connection with these gets."""
    async with grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
        channel: Any = opened
        try:
            await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK
