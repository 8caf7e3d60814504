"""The connections of `http_request`: each goes to an address that was judged, and to no other."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from talon.tools.builtin.addresses import HostRule, Lookup, listed, literal, special_kind, system_lookup
from talon.tools.builtin.request import KEY_HEADER, Request
from talon.tools.builtin.response import Answer
from talon.tools.protocol import EffectUnknown, ToolError

CONNECT_TIMEOUT_S = 10.0
_CHUNK = 65_536


def judge(rules: Sequence[HostRule], host: str, port: int, address: str) -> None:
    """Raise `ToolError` if `address`, which `host` stands for, must not be connected to."""
    if listed(rules, host, port):
        return
    kind = special_kind(ipaddress.ip_address(address.partition("%")[0]))
    if kind:
        what = host if host == address else f"{host} ({address})"
        raise ToolError(
            f"{what} is refused: it is a {kind} address. Only the operator can allow it (tools.http_request.allow_hosts)"
        )


class _JudgingResolver(AbstractResolver):
    """Judges what a name resolves to at the moment of connecting, and gives the connection those very addresses: there is no
    second look-up in which a name could change its mind. One bad address among good ones is enough to refuse."""

    def __init__(self, rules: Sequence[HostRule], lookup: Lookup) -> None:
        self._rules = rules
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        results: list[ResolveResult] = []
        for address in dict.fromkeys(await self._lookup(host, port)):
            judge(self._rules, host.lower().removesuffix("."), port, address)
            found = socket.AF_INET6 if ":" in address else socket.AF_INET
            results.append(
                {"hostname": host, "host": address, "port": port, "family": found, "proto": 0, "flags": socket.AI_NUMERICHOST}
            )
        if not results:
            raise OSError(f"{host} has no address")
        return results

    async def close(self) -> None:
        return


class _Lost(Exception):
    """The connection broke after a request that may change something was sent."""


async def _never_resend(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a PUT or DELETE again by itself when the connection breaks: that is not ours to decide (K5)."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise  # nothing was sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost(str(error)) from error


class Wire:
    """Pooled connections for one event loop, without cookies, proxies or any other memory between requests."""

    def __init__(self, allowed: Sequence[HostRule], response_max: int, user_agent: str, lookup: Lookup = system_lookup) -> None:
        self._allowed = allowed
        self._response_max = response_max
        self._user_agent = user_agent
        self._lookup = lookup
        self._reads: aiohttp.ClientSession | None = None
        self._writes: aiohttp.ClientSession | None = None

    async def send(self, request: Request, key: str, timeout_s: float) -> Answer:
        """Send one request, follow nothing. `key` goes along with a request that may change something.

        Raises `ToolError` if it was refused or did not reach the server, `EffectUnknown` if it may change something and its answer
        was lost. An answer whose body breaks off, takes too long or is over the limit is an answer, with a note.
        """
        host, port = request.url.raw_host or "", request.url.port or 0
        if literal(host) is not None:  # aiohttp asks its resolver about names only
            judge(self._allowed, host, port, host)
        headers = dict(request.headers) if request.is_read else {**request.headers, KEY_HEADER: key}
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session(request.is_read).request(
                    request.method,
                    request.url,
                    headers=headers,
                    data=request.body,
                    allow_redirects=False,
                    skip_auto_headers=("Content-Type",),
                    middlewares=() if request.is_read else (_never_resend,),
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise ToolError(f"could not connect to {host}:{port}: {_short(error)}") from None
        except (aiohttp.ClientError, _Lost, TimeoutError, ValueError) as error:
            what = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else f"the answer broke: {_short(error)}"
            problem = ToolError if request.is_read else EffectUnknown
            raise problem(f"{request.method} {host}:{port}: {what}") from None
        try:
            body, notes = await self._read(response, deadline)
        finally:
            response.release() if response.content.at_eof() else response.close()
        return Answer(
            response.status,
            response.reason or "",
            {name.lower(): ", ".join(response.headers.getall(name)) for name in response.headers},
            body,
            notes=notes,
        )

    async def _read(self, response: aiohttp.ClientResponse, deadline: float) -> tuple[bytes, tuple[str, ...]]:
        body = bytearray()
        note = ""
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in response.content.iter_chunked(_CHUNK):
                    body += chunk
                    if len(body) > self._response_max:
                        note = f"body cut after {self._response_max} bytes"
                        break
        except TimeoutError:
            note = f"the body did not end in time; these are its first {len(body)} bytes"
        except (aiohttp.ClientError, OSError) as error:
            note = f"the body broke off after {len(body)} bytes: {_short(error)}"
        return bytes(body[: self._response_max]), (note,) if note else ()

    def _session(self, is_read: bool) -> aiohttp.ClientSession:
        """Reads share pooled connections. A request that may change something gets a fresh one: on a pooled connection that the
        server is just closing, its answer would look lost although it was never received."""
        if is_read:
            if self._reads is None:
                self._reads = self._open(force_close=False)
            return self._reads
        if self._writes is None:
            self._writes = self._open(force_close=True)
        return self._writes

    def _open(self, force_close: bool) -> aiohttp.ClientSession:
        options: dict[str, Any] = {"force_close": True} if force_close else {"keepalive_timeout": 15.0}
        connector = aiohttp.TCPConnector(
            resolver=_JudgingResolver(self._allowed, self._lookup), use_dns_cache=False, limit_per_host=16, **options
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent},
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        sessions, self._reads, self._writes = (self._reads, self._writes), None, None
        for session in sessions:
            if session is not None:
                await session.close()


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:300]
