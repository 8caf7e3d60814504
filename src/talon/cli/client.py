"""The HTTP client of all commands.

- A problem document becomes the `TalonError` of its status, with the server's own code and words.
- A server that never answered is reported at once. One that has answered before (it restarts, it fails over) is waited for:
  requests that may be repeated are repeated, and streams resume after the last event, until patience ends.
- Every POST carries an `Idempotency-Key`, so that repeating it is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from talon.cli.errors import Failed, WrongUse
from talon.cli.problems import problem
from talon.cli.sse import Event, Parser
from talon.cli.system import SystemClock, SystemIds
from talon.domain import errors as err
from talon.domain.ids import Clock

#: What a lost connection looks like, before or in the middle of an answer.
LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError, ConnectionError)
#: Somebody had taken the connection: that a server died is not that none is there.
CUT = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, ConnectionResetError)
#: The heartbeat comes every 15 s: three missed ones are a dead connection.
STREAM_IDLE_S = 50.0
#: As many items as the server gives at once.
PAGE_MAX = 500
JSON = "application/json"
#: A stream that lived this long was a good connection, also when nothing happened on it.
STEADY_S = 5.0


class Unreachable(Failed):
    """Nobody answers at the address. Exit code 1."""


def path_of(*segments: str) -> str:
    """`/v1/…` from its segments, each quoted: a name cannot leave its place."""
    return "/v1/" + "/".join(quote(segment, safe=":") for segment in segments)


class Client:
    """One server. Use as `async with Client(url) as client`.

    `authorization` is sent with every request, `tls` says whom to trust (None: whom the system does), and what to show of oneself;
    with `socket` the server is asked over that Unix socket, whatever the host of the URL.
    `patience_s` bounds how long a server that has answered before is waited for; `on_wait` is told when waiting begins.
    """

    def __init__(
        self,
        server: str,
        *,
        authorization: str = "",
        socket: Path | None = None,
        tls: ssl.SSLContext | None = None,
        patience_s: float = 30.0,
        clock: Clock | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise WrongUse(f"--server {server}: expected a URL like http://127.0.0.1:19789")
        self.server = server.rstrip("/")
        self._headers = {"Authorization": authorization} if authorization else {}
        self._socket, self._tls = socket, tls
        self._patience_s = patience_s
        self._clock = clock or SystemClock()
        self._ids = SystemIds()
        self._on_wait = on_wait
        self._answered = False
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # No bound on connections: a watch of all namespaces holds one for each.
        connector = (
            aiohttp.TCPConnector(limit=0, ssl=self._tls or True)
            if self._socket is None
            else aiohttp.UnixConnector(str(self._socket), limit=0)
        )
        timeout = aiohttp.ClientTimeout(total=60, connect=5)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """GET -> decoded body."""
        return await self.call("GET", path, params=params)

    async def items(self, path: str, params: Mapping[str, str] | None = None, limit: int | None = None) -> list[Any]:
        """All pages of a list; with `limit` only so many items."""
        return (await self.listing(path, params, limit))[0]

    async def listing(self, path: str, params: Mapping[str, str] | None = None, limit: int | None = None) -> tuple[list[Any], str]:
        """All pages of a list, and the version from which a watch goes on: that of the first page, so that what changed while the
        others were read is told again, not lost. "" for a list that is not watched."""
        found: list[Any] = []
        version = ""
        query = {"limit": "", **(params or {})}
        while True:
            query["limit"] = str(min(limit - len(found), PAGE_MAX) if limit else PAGE_MAX)
            page = await self.get(path, query)
            version = version or str(page.get("resource_version") or "")
            found += page["items"]
            if not page.get("next_cursor") or (limit and len(found) >= limit):
                return found, version
            query["cursor"] = page["next_cursor"]

    async def text(self, path: str, accept: str) -> bytes:
        """GET a body that is no JSON, as it is."""
        return await self.call("GET", path, accept=accept)

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        text: tuple[str, bytes] | None = None,
        params: Mapping[str, str] | None = None,
        key: str = "",
        if_match: str = "",
        accept: str = JSON,
    ) -> Any:
        """One request -> decoded body (None if empty; bytes if something else than JSON is accepted). `body` is sent as JSON,
        `text` as (content type, bytes). `if_match` is the version that the resource must still have.

        Repeated on a lost connection and while the server restarts. Raises `TalonError` for a problem, `Unreachable`, `Failed`.
        """
        headers = {"Accept": accept, **({"If-Match": f'"{if_match}"'} if if_match else {})}
        if method == "POST":
            headers["Idempotency-Key"] = key or self._ids.uuid7()
        data = None
        if text is not None:
            headers["Content-Type"], data = text
        elif body is not None:
            headers["Content-Type"], data = JSON, json.dumps(body).encode()
        waiting = _Patience(self._clock, self._patience_s)
        while True:
            try:
                async with self._open(method, path, params, headers, data) as response:
                    self._answered = True
                    return await self._decode(response, accept)
            except aiohttp.ClientResponseError:
                raise self._strange() from None
            except LOST as error:
                await self._wait(waiting, error)
            except err.Unavailable as error:
                if error.code != "shutting_down":
                    raise
                await self._wait(waiting, error)

    async def delete(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """DELETE what is at `path`; -> it as it was. Raises `NotFound` if nothing was there to begin with; that it is gone when a
        lost answer is asked for again (aiohttp asks again by itself, too) is success."""
        there = await self.get(path)
        with contextlib.suppress(err.NotFound):
            await self.call("DELETE", path, params=params)
        return there

    async def events(self, path: str, params: Mapping[str, str], last_id: str) -> AsyncGenerator[Event]:
        """The stream after `last_id`, for as long as the caller reads: a lost connection is taken up again after the last event
        that was seen, also on a server that was started anew. Raises as `call`; never ends by itself."""
        waiting = _Patience(self._clock, self._patience_s)
        timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=STREAM_IDLE_S)
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": last_id}
            opened_s: float | None = None
            try:
                async with self._open("GET", path, params, headers, None, timeout) as response:
                    if response.status != 200:
                        await self._decode(response)
                        raise Failed(f"{self.server} answered {response.status} where a stream was expected")
                    self._answered = True
                    opened_s = self._clock.monotonic_s()
                    async for event in _events(response):
                        last_id = event.id or last_id
                        waiting.over()
                        yield event
                raise aiohttp.ServerDisconnectedError("the stream ended")
            except aiohttp.ClientResponseError:
                raise self._strange() from None
            except LOST as error:
                if opened_s is not None and self._clock.monotonic_s() - opened_s > STEADY_S:
                    waiting.over()
                await self._wait(waiting, error)
            except err.Unavailable as error:
                await self._wait(waiting, error)

    def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        data: bytes | None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> Any:
        if self._session is None:
            raise RuntimeError("use `async with Client(…)`")
        url = URL(self.server + path, encoded=True)
        if params:
            url = url.with_query(dict(params))
        return self._session.request(
            method,
            url,
            headers=headers,
            data=data,
            skip_auto_headers=("Content-Type",),  # an empty body has none
            allow_redirects=False,
            timeout=timeout or self._session.timeout,
        )

    async def _decode(self, response: aiohttp.ClientResponse, accept: str = JSON) -> Any:
        raw = await response.read()
        if response.status < 300 and accept != JSON:
            return raw
        body: Any = None
        if "json" in response.content_type:
            try:
                body = json.loads(raw)
            except ValueError:
                raise Failed(f"{self.server} answered {response.status} with broken JSON") from None
        if response.status < 300:
            return body
        if isinstance(body, dict) and "code" in body:
            raise problem(response.status, cast(dict[str, Any], body), response.headers.get("Retry-After"))
        raise Failed(f"{self.server} answered {response.status} without a problem document: is it a Talon?")

    def _strange(self) -> Failed:
        return Failed(
            f"what answers at {self.server} speaks no HTTP: is it Talon's gRPC port? `talon up` says both when it is ready"
        )

    async def _wait(self, waiting: _Patience, error: Exception) -> None:
        # Over TLS that looks the same as a server which wants another certificate of us, and says so by hanging up.
        secure = self.server.startswith("https://")
        self._answered = self._answered or (isinstance(error, CUT) and not secure)
        if not self._answered:
            raise Unreachable(_unreachable(self.server, error)) from None
        if waiting.begins and self._on_wait:
            self._on_wait(f"connection to {self.server} lost, waiting for it to come back …")
        if not await waiting.pause():
            late = f"{self.server} did not come back within {self._patience_s:g} s ({_reason(error)})"
            hint = "\nit hangs up on who asks: if it has TLS, its address begins with https://"
            raise Unreachable(late + hint if isinstance(error, CUT) and not secure else late) from None


class _Patience:
    """Growing pauses, 0.05 s to 1 s, until a bound since the first."""

    def __init__(self, clock: Clock, bound_s: float) -> None:
        self._clock = clock
        self._bound_s = bound_s
        self.over()

    def over(self) -> None:
        """The connection is good again: the next loss begins anew."""
        self._until: float | None = None
        self._pause_s = 0.05

    @property
    def begins(self) -> bool:
        return self._until is None

    async def pause(self) -> bool:
        """Wait a little; False when the bound is reached."""
        now = self._clock.monotonic_s()
        self._until = now + self._bound_s if self._until is None else self._until
        if now >= self._until:
            return False
        await asyncio.sleep(min(self._pause_s, self._until - now))
        self._pause_s = min(self._pause_s * 2, 1.0)
        return True


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[Event]:
    parser = Parser()
    async for chunk in response.content.iter_any():
        for event in parser.feed(chunk):
            yield event


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientSSLError):
        return f"its certificate is not trusted, or it speaks no TLS: {error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        return os.strerror(number) if number > 0 else str(error.os_error)
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _unreachable(server: str, error: Exception) -> str:
    cut = isinstance(error, (aiohttp.ClientSSLError, *CUT)) or (isinstance(error, OSError) and error.errno == errno.ECONNRESET)
    if server.startswith("https://") and cut:
        return (
            f"{server} and this command do not trust each other ({_reason(error)})\n"
            "TALON_CA_FILE names whom to trust; TALON_CERT_FILE and TALON_KEY_FILE the certificate that a server may want to see"
        )
    return (
        f"no Talon answers at {server} ({_reason(error)})\n"
        "start one with `talon up`, or name another with --server URL (or TALON_SERVER)"
    )
