"""One call over the wire: its deadlines, how its body is read, and how its failures are named.

    status ≠ 200 ──> ProviderError by status and body
    200 ──> events until the reader has seen the last one, or the end of the body;
            where the frames sniff: first byte `{` is one JSON document (the server ignored `stream`),
            a field of an event stream are events, anything else is malformed

The content type is not believed: servers send streams as `text/plain` and JSON as `text/event-stream`.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import NoReturn

import aiohttp
from yarl import URL

from talon.providers.answer import Answer
from talon.providers.decoding import Unreadable
from talon.providers.dialect import Dialect, FrameError
from talon.providers.faults import from_status, safe_text
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatRequest, ErrorClass, Finished, ProviderError
from talon.providers.watchdog import Watchdog

_ERROR_BODY_MAX = 65_536
_ERROR_BODY_S = 5.0
#: After the answer, how long to wait for the body's own end, which makes the connection reusable.
_DRAIN_S = 1.0
#: From here on aiohttp wants a file-like body, so that writing one large request does not hold the loop.
_LARGE_BODY = 1_048_576
_SHOWN_MAX = 2000
_FIELDS = frozenset({b"data", b"event", b"id", b"retry", b""})


class WireCall:
    """One call of provider `provider`, made on the running loop: `send`, then `more` until it gives nothing, then `finish`; `over`
    however it ends."""

    def __init__(self, provider: str, secret: str, limits: CallLimits, dialect: Dialect, request: ChatRequest) -> None:
        self._provider = provider
        self._secret = secret
        self._limits = limits
        self._now = asyncio.get_running_loop().time
        now = self._now()
        self._total_at = now + limits.total_s
        self._first_at = now + limits.first_token_s
        self._answer = Answer(provider, request, limits, secret)
        self._reader = dialect.reader(self._answer)
        self._frames = dialect.frames(limits)
        self._watchdog: Watchdog | None = None  # of the reading, once there is something to read
        self._head = b""
        self._accepted = False  # status 200 came: tokens are being spent
        self._begun = False  # the first event came
        self._ended = False
        self._later: ProviderError | None = None

    async def send(
        self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        """-> the response with status 200, its body unread; the caller releases it. Raises `ProviderError` for any other status
        and for a deadline, and what aiohttp raises when the connection fails (`failed` names it)."""
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        try:
            async with asyncio.timeout_at(min(self._first_at, self._total_at)):
                response = await session.post(url, data=data, headers=headers, allow_redirects=False)
        except aiohttp.ConnectionTimeoutError:
            detail = f"no connection to {url.host}:{url.port} within connect_timeout_s ({self._limits.connect_s:g} s)"
            raise self._error("timeout", detail) from None
        except TimeoutError:
            self._timed_out()
        if response.status != 200:
            try:
                raise from_status(self._provider, response.status, await _error_body(response), response.headers, self._secret)
            finally:
                response.close()
        self._accepted = True
        return response

    async def more(self, response: aiohttp.ClientResponse) -> list[ChatEvent]:
        """The next events; none at the end of the answer. What arrived before a failure is given before the failure is raised."""
        if self._later is not None:
            raise self._later
        events: list[ChatEvent] = []
        while not events and not self._ended:
            data = await self._read(response.content)
            try:
                if not self._head:
                    await self._first(response.content, data, events)
                else:
                    self._feed(data, events)
                self._answer.flush(events)
            except ProviderError as error:
                self._answer.flush(events)
                if not events:
                    raise
                self._later = error
        return events

    def finish(self) -> Finished:
        """The end of the answer, after `more` gave nothing. Raises `ProviderError`."""
        return self._answer.finish()

    def over(self) -> None:
        """Nothing is read any more."""
        if self._watchdog is not None:
            self._watchdog.stop()

    async def _first(self, content: aiohttp.StreamReader, data: bytes, events: list[ChatEvent]) -> None:
        """The first bytes say what the body is. Blank ones are a server keeping the line alive."""
        if not data:
            self._fail("empty", "status 200 with an empty body")
        if not self._frames.sniffs:
            self._head = data
            self._feed(data, events)
            return
        self._head = data.lstrip()
        first = self._head[:1]
        if first == b"{":
            self._begun = True
            await self._whole(content, events)
        elif first in b'<["0123456789\0':
            if first:
                self._garbage()
        else:
            self._feed(self._head, events)

    async def _whole(self, content: aiohttp.StreamReader, events: list[ChatEvent]) -> None:
        body = bytearray(self._head)
        while more := await self._read(content):
            body += more
            if len(body) > self._limits.whole_max:
                self._fail("malformed", f"the answer is longer than answer_max ({self._limits.answer_max} characters)")
        try:
            self._reader.whole(bytes(body), events)
        except Unreadable as error:
            self._unreadable(error)
        self._ended = True

    def _feed(self, data: bytes, events: list[ChatEvent]) -> None:
        try:
            arrived = self._frames.feed(data) if data else (self._frames.rest(),)
        except FrameError as error:
            self._fail("malformed", str(error))
        if not self._begun:
            self._begun = any(event.strip() for event in arrived)
        if arrived:
            try:
                self._ended = self._reader.take(arrived, events)
            except Unreadable as error:
                self._unreadable(error)
        if not data and not self._ended:
            self._closed()

    def _closed(self) -> None:
        """The body ended without its end mark; good enough once the model has said why it stopped."""
        self._ended = True
        if self._answer.stop:
            return
        if self._begun:
            self._fail("connection", "the stream was closed before the model said why it stopped")
        if not self._frames.sniffs or self._head.splitlines()[0].partition(b":")[0].strip() in _FIELDS:
            self._fail("empty", "the stream ended without one event")
        self._garbage()

    def _garbage(self) -> NoReturn:
        self._fail("malformed", f"neither a stream nor a completion came, but {self._beginning(self._head)!r}")

    def _unreadable(self, error: Unreadable) -> NoReturn:
        self._fail("malformed", f"{self._beginning(error.event)!r} cannot be read: {error}")

    def _beginning(self, data: bytes) -> str:
        """The first words of what came: cut only where no key can be cut in two."""
        return safe_text(data[:_SHOWN_MAX].decode("utf-8", "replace"), self._secret)[:80]

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        """What has arrived; `b""` at the end."""
        due_s = self._now() + self._limits.idle_s if self._begun else self._first_at
        watchdog = self._watchdog
        if watchdog is None:
            watchdog = self._watchdog = Watchdog(lambda: content.set_exception(TimeoutError()))
        watchdog.watch(min(due_s, self._total_at))
        try:
            return await content.readany()
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            if self._answer.stop:
                return b""  # only the end mark, perhaps the usage, is lost
            if isinstance(error, TimeoutError):
                self._timed_out()
            raise
        finally:
            watchdog.rest()

    def _timed_out(self) -> NoReturn:
        limits = self._limits
        if self._now() >= self._total_at:
            self._fail("timeout", f"the call took longer than total_timeout_s ({limits.total_s:g} s)")
        if not self._begun:
            self._fail("timeout", f"no answer began within first_token_timeout_s ({limits.first_token_s:g} s)")
        self._fail("timeout", f"nothing arrived for idle_timeout_s ({limits.idle_s:g} s) in the middle of the answer")

    def _fail(self, error: ErrorClass, detail: str) -> NoReturn:
        raise self._answer.error(error, detail)

    def failed(self, error: aiohttp.ClientError | OSError, url: URL) -> ProviderError:
        """The name of what aiohttp raised. Tokens count only if the server had accepted the call."""
        kind, words = _named(error, f"{url.host}:{url.port}")
        return self._answer.error(kind, words) if self._accepted else self._error(kind, words)

    def _error(self, kind: ErrorClass, words: str) -> ProviderError:
        """An error of a call that cost nothing."""
        return ProviderError(kind, safe_text(f"providers.{self._provider}: {words}", self._secret))


def _named(error: aiohttp.ClientError | OSError, peer: str) -> tuple[ErrorClass, str]:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            words = f"the certificate of {peer} is not trusted: {error.certificate_error}"
            return "connection", f"{words}; a CA of your own goes into the file that SSL_CERT_FILE names"
        case aiohttp.ClientSSLError():
            return "connection", f"no TLS with {peer}: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientConnectorDNSError():
            return "connection", f"the name of {peer} cannot be resolved"
        case aiohttp.ClientConnectorError():
            return "connection", f"cannot connect to {peer}: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientResponseError():
            return "malformed", f"{peer} does not answer in HTTP"
        case aiohttp.InvalidURL():
            return "bad_request", f"base_url is not a URL that can be called: {peer}"
        case _:
            return "connection", f"{peer} closed the connection ({type(error).__name__})"


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read what is left of an answered call's body and release the connection; one that does not end soon is closed."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass
    finally:
        response.release()


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error's body; what does not come soon is left out, the status says enough."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_BODY_S):
            while len(body) < _ERROR_BODY_MAX and (more := await response.content.readany()):
                body += more
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass
    return bytes(body[:_ERROR_BODY_MAX])
