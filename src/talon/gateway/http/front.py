"""The door: every request passes here once, before FastAPI or a bare endpoint sees it.

Gives the request an id, checks Host and Origin, answers CORS preflights, refuses keys in URLs, bounds the body, rewrites the
`/v1/namespaces/…` alias, has the guard look at the hot routes and hands them to their bare ASGI endpoints, turns whatever still
comes out as an exception into a problem, and tells the access log how it went. Pure ASGI, because a wrapper class of Starlette
costs more than all of these checks together.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talon.access.secret import FORM
from talon.domain.errors import Defect, Forbidden, Malformed, TalonError, TooLarge
from talon.domain.ids import Clock, Ids
from talon.gateway.api.request_ids import request_id_of
from talon.gateway.deps import GatewaySettings
from talon.gateway.http.guard import SAFE_METHODS, Guard
from talon.gateway.http.problems import NoMethod, render
from talon.gateway.http.visit import Visit, visit_of
from talon.store.sight import NOTHING, seeing

log = logging.getLogger("talon.gateway")
#: Sub-resources only: `/v1/namespaces` and `/v1/namespaces/{ns}` are routes of their own.
ALIAS = re.compile(r"/v1/namespaces/([^/]+)/(.+)", re.DOTALL)
#: Query parameters under which some clients put their key. A URL is kept by histories, proxies and logs.
KEYS_IN_URLS = frozenset(("access_token", "id_token", "refresh_token", "token", "jwt", "api_key", "api-key", "apikey", "key"))
COMMON_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]
#: Beside what a response says itself. The page brings a policy of its own.
DEFAULT_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
HSTS = (b"strict-transport-security", b"max-age=31536000")
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, if-match, if-none-match, idempotency-key, last-event-id, talon-csrf, traceparent, "
        b"x-request-id",
    ),
    (b"access-control-max-age", b"600"),
]
EXPOSED = b"etag, idempotent-replayed, location, retry-after, www-authenticate, x-request-id"

#: A bare endpoint: ASGI plus the path's parameters.
BareEndpoint = Callable[[Scope, Receive, Send, dict[str, str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BareRoute:
    """A hot route served beside FastAPI. `checks_origin`: refuse pages of other sites also for reading (streams). `guarded` is
    False where the endpoint recognises its callers by itself."""

    operation: str
    method: str
    path: str  # with {name} places, as in OpenAPI
    endpoint: BareEndpoint
    checks_origin: bool = False
    guarded: bool = True


def path_pattern(template: str) -> re.Pattern[str]:
    """A path with {name} places as a regular expression; a place is one segment."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)))


class Front:
    """The outermost ASGI application. `told` gets each visit once its answer begins. `walled`: nothing is seen behind the wall of
    the store before the guard has said by whom."""

    def __init__(
        self,
        app: ASGIApp,
        bare: Sequence[BareRoute],
        settings: GatewaySettings,
        ids: Ids,
        clock: Clock,
        guard: Guard,
        told: Callable[[Visit], None] | None = None,
        *,
        walled: bool = False,
    ) -> None:
        self._app = app
        self._bare = [(path_pattern(route.path), route) for route in bare]
        self._settings = settings
        self._ids, self._clock, self._guard, self._told = ids, clock, guard, told
        self._first_sight = NOTHING if walled else None
        self._hosts = {host.lower() for host in (*settings.allowed_hosts, settings.host)}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # lifespan
            return
        if scope["method"] == "HEAD":
            scope, receive, send = _head_of(scope, send)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = request_id_of(given, self._ids)
        visit = Visit(scope, headers, request_id, self._clock.now_ms())
        scope["talon.send"] = send
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = self._headers(scope, visit, message["headers"])
                if self._told is not None:
                    self._told(visit)
            await send(message)

        try:
            with seeing(self._first_sight):
                await self._handle(scope, headers, receive, answer)
        except TalonError as exc:
            await _refuse(exc, visit, answer)
        except Exception:  # the last stop: whatever it is, the client gets an id, and the log the rest
            log.exception("request %s: %s %s failed", request_id, scope["method"], visit.object)
            if not started:
                await _refuse(internal(request_id), visit, answer)

    def _headers(self, scope: Scope, visit: Visit, given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers of an answer: its own, and those of all."""
        names = {name for name, _ in given}
        headers = [*given, *COMMON_HEADERS, (b"x-request-id", visit.request_id.encode())]
        headers += [one for one in DEFAULT_HEADERS if one[0] not in names]
        if scope.get("scheme") == "https":
            headers.append(HSTS)
        if self._origins:
            headers.append((b"vary", b"origin"))
            origin = visit.headers.get(b"origin", b"")
            if origin.decode("latin-1").lower() in self._origins:
                headers += [
                    (b"access-control-allow-origin", origin),
                    (b"access-control-allow-credentials", b"true"),
                    (b"access-control-expose-headers", EXPOSED),
                ]
        return headers

    async def _handle(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        self._check_size(scope)
        self._check_host(headers)
        _no_key_in_url(scope)
        alias = ALIAS.fullmatch(scope["path"])
        if alias is not None:
            scope["path"] = f"/v1/ns/{alias[1]}/{alias[2]}"
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            self._check_origin(headers)
            await send({"type": "http.response.start", "status": 204, "headers": PREFLIGHT})
            await send({"type": "http.response.body", "body": b""})
            return
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
            places = match.groupdict()
            if route.guarded:
                await self._guard.admit(scope, route.operation, places)
            await route.endpoint(scope, receive, send, places)
            return
        if known:
            raise NoMethod(scope["method"], path, ", ".join(known))
        await self._app(scope, receive, send)

    def _check_size(self, scope: Scope) -> None:
        """Refuse more headers than anybody needs."""
        most = self._settings.headers_max
        size = len(scope["path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in scope["headers"])
        if size > most:
            raise TooLarge("too_large", f"URL and headers have {size} bytes, they may have {most} (gateway.headers_max_bytes)")

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


def _head_of(scope: Scope, send: Send) -> tuple[Scope, Receive, Send]:
    """A HEAD as the GET of which only the head is answered (RFC 9110, 9.3.2). A stream ends when it has begun, as if its client had
    left."""
    asked = answered = False
    over = asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def head(message: Message) -> None:
        nonlocal answered
        if answered:
            return
        answered = True
        await send(message)
        await send({"type": "http.response.body", "body": b""})
        over.set()

    return {**scope, "method": "GET"}, receive, head


async def _refuse(error: TalonError, visit: Visit, send: Send) -> None:
    visit.outcome = error.code
    status, body, headers = render(error, visit.request_id)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _no_key_in_url(scope: Scope) -> None:
    """Refuse a URL with a key or token in it, without repeating it anywhere."""
    query: bytes = scope["query_string"]
    named = query and any(name.lower() in KEYS_IN_URLS for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if named or FORM.search(scope["path"]) or (query and FORM.search(query.decode("latin-1"))):
        visit_of(scope).object = "a URL with a key in it"
        raise Malformed(
            "malformed",
            "a key or token does not belong in a URL, which histories, proxies and logs keep: send it as `Authorization: Bearer …`",
        )


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
