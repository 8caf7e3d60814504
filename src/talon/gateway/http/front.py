"""The door: every request passes here once, before FastAPI or a bare endpoint sees it.

Gives the request an id, checks Host and Origin, bounds the body, rewrites the `/v1/namespaces/…` alias, hands the hot routes to
their bare ASGI endpoints, and turns whatever still comes out as an exception into a problem. Pure ASGI, because a wrapper class
of Starlette costs more than all of these checks together.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talon.domain.errors import Defect, Forbidden, TalonError, TooLarge
from talon.domain.ids import Ids
from talon.gateway.deps import GatewaySettings
from talon.gateway.http.problems import NoMethod, render

log = logging.getLogger("talon.gateway")
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Sub-resources only: `/v1/namespaces` and `/v1/namespaces/{ns}` are routes of their own.
ALIAS = re.compile(r"/v1/namespaces/([^/]+)/(.+)", re.DOTALL)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COMMON_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]

#: A bare endpoint: ASGI plus the path's parameters.
BareEndpoint = Callable[[Scope, Receive, Send, dict[str, str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BareRoute:
    """A hot route served beside FastAPI. `checks_origin`: refuse pages of other sites also for reading (streams)."""

    method: str
    path: str  # with {name} places, as in OpenAPI
    endpoint: BareEndpoint
    checks_origin: bool = False


def path_pattern(template: str) -> re.Pattern[str]:
    """A path with {name} places as a regular expression; a place is one segment."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)))


class Front:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, bare: Sequence[BareRoute], settings: GatewaySettings, ids: Ids) -> None:
        self._app = app
        self._bare = [(path_pattern(route.path), route) for route in bare]
        self._settings = settings
        self._ids = ids
        self._hosts = {host.lower() for host in (*settings.allowed_hosts, settings.host)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # lifespan
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else self._ids.uuid7()
        scope["talon.request_id"] = request_id
        scope["talon.send"] = send
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                extra = [*COMMON_HEADERS, (b"x-request-id", request_id.encode())]
                if not any(name == b"cache-control" for name, _ in message["headers"]):
                    extra.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            await self._handle(scope, headers, receive, answer)
        except TalonError as exc:
            await _refuse(exc, request_id, answer)
        except Exception:  # the last stop: whatever it is, the client gets an id, and the log the rest
            log.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
            if not started:
                await _refuse(internal(request_id), request_id, answer)

    async def _handle(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        self._check_host(headers)
        alias = ALIAS.fullmatch(scope["path"])
        if alias is not None:
            scope["path"] = f"/v1/ns/{alias[1]}/{alias[2]}"
        if scope["method"] not in SAFE_METHODS:
            self._check_origin(headers)
            receive = self._bounded(headers, receive)
        path = scope["path"]
        known: list[str] = []
        for pattern, route in self._bare:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method != scope["method"]:
                known.append(route.method)
                continue
            if route.checks_origin:
                self._check_origin(headers)
            await route.endpoint(scope, receive, send, match.groupdict())
            return
        if known:
            raise NoMethod(scope["method"], path, ", ".join(known))
        await self._app(scope, receive, send)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """Refuse a Host that is not ours: a web page whose name was rebound to a loopback address sends its own."""
        given = headers.get(b"host", b"").decode("latin-1")
        name = host_name(given)
        if not ("*" in self._hosts or name in self._hosts or is_loopback(name)):
            raise Forbidden("forbidden_host", f"Host {given[:200]!r} is neither loopback nor among the allowed hosts")

    def _check_origin(self, headers: dict[bytes, bytes]) -> None:
        """Refuse pages of other sites. Programs send no Origin and are not meant here."""
        raw = headers.get(b"origin")
        if raw is None:
            return
        origin = raw.decode("latin-1").lower()
        same = urlsplit(origin).netloc if "://" in origin else ""
        if origin in self._origins or (same and same == headers.get(b"host", b"").decode("latin-1").lower()):
            return
        raise Forbidden("forbidden_origin", f"Origin {origin[:200]!r} is not allowed to use this gateway")

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """`receive`, refusing more than `body_max` bytes, announced or not."""
        most = self._settings.body_max
        error = TooLarge("too_large", f"the body is larger than {most} bytes, the most that is read")
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > most:
            raise error
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > most:
                    raise error
            return message

        return bounded


async def _refuse(error: TalonError, request_id: str, send: Send) -> None:
    status, body, headers = render(error, request_id)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def internal(request_id: str) -> Defect:
    """What a client may know of a mistake of ours."""
    return Defect("internal", f"the gateway made a mistake; its log has it under request {request_id}")


def host_name(host: str) -> str:
    """The name or address in a Host header, lower case, without port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def is_loopback(name: str) -> bool:
    """Whether `name` can only mean this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
