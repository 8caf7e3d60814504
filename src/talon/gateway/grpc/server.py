"""Serving gRPC: the services, their limits, TLS, and an end that loses no call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection_pb2

from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc.call import Method
from talon.gateway.grpc.front import Front
from talon.gateway.grpc.health import SERVICE as HEALTH
from talon.gateway.grpc.health import Health
from talon.gateway.grpc.models import models
from talon.gateway.grpc.reflection import ALPHA, V1, Reflection
from talon.gateway.grpc.resources import namespaces, resources
from talon.gateway.grpc.schedules import schedules
from talon.gateway.grpc.sessions import approvals, sessions
from talon.gateway.tls import Pem, TlsFiles

#: A client that does not answer a ping for so long is gone.
PING_EVERY_MS, PING_TIMEOUT_MS = 30_000, 20_000
#: Clients may ping an idle connection as often as this.
PINGED_EVERY_MIN_MS = 5_000


def services(deps: GatewayDeps) -> dict[str, Mapping[str, Method]]:
    """The services of Talon by their full names: one function each. A new service is a new line here."""
    return {
        "talon.v1.Namespaces": namespaces(deps),
        "talon.v1.Resources": resources(deps),
        "talon.v1.Sessions": sessions(deps),
        "talon.v1.Approvals": approvals(deps),
        "talon.v1.Schedules": schedules(deps),
        "talon.v1.Models": models(deps),
    }


class Server:
    """One gRPC server. Made, started and stopped on one event loop."""

    def __init__(self, deps: GatewayDeps, tls: TlsFiles | None = None) -> None:
        self._front, self._tls = Front(deps), tls
        served = services(deps)
        self._health = Health(deps, served)
        reflection = Reflection([*served, HEALTH])
        self._server = grpc.aio.server(options=_options(deps))
        handlers = {name: self._handlers(name, methods) for name, methods in {**served, HEALTH: self._health.methods}.items()}
        for name in (ALPHA, V1):
            method = "ServerReflectionInfo"
            question = reflection_pb2.ServerReflectionRequest
            handlers[name] = {method: self._front.dialogue(f"/{name}/{method}", question, reflection.answer)}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, methods) for name, methods in handlers.items()]
        )

    async def start(self, host: str, port: int) -> int | None:
        """Listen; -> the port (0 picks one); None if the address cannot be had."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None:
                got = self._server.add_insecure_port(address)
            else:
                got = self._server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError:
            got = 0
        if got == 0:
            return None
        await self._server.start()
        return got

    async def stop(self, grace_s: float) -> None:
        """Not ready any more and no new calls; those under way get `grace_s` and are cancelled then. Changes that were begun are
        done when this returns. Streams are ended by `StreamHub.close`."""
        self._health.close()
        await self._server.stop(grace_s)
        await self._front.finish()

    def _handlers(self, service: str, methods: Mapping[str, Method]) -> dict[str, grpc.RpcMethodHandler[object, object]]:
        return {
            name: (self._front.streaming if method.streams else self._front.unary)(f"/{service}/{name}", method)
            for name, method in methods.items()
        }


def _options(deps: GatewayDeps) -> list[tuple[str, int]]:
    settings = deps.settings
    return [
        ("grpc.so_reuseport", 0),  # two servers on one port would share its calls in silence
        # The front refuses what is larger than `body_max` with a reason; what is larger still is not even read.
        ("grpc.max_receive_message_length", 2 * settings.body_max),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.headers_max),
        ("grpc.absolute_max_metadata_size", settings.headers_max),
        ("grpc.max_concurrent_streams", settings.streams_max),
        ("grpc.keepalive_time_ms", PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", PINGED_EVERY_MIN_MS),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """The newest certificate for each new connection."""
    served = [tls.pem]

    def fetch() -> Any:
        if tls.pem is served[0]:
            return None  # as before
        served[0] = tls.pem
        return _configuration(tls.pem)

    asks = tls.pem.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(_configuration(tls.pem), fetch, require_client_authentication=asks)


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.client_ca)
