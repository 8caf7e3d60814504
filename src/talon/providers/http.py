"""`HttpProvider`: one endpoint of any vendor, on one pooled aiohttp session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
from msgspec.structs import replace

from talon import __version__
from talon.providers.call import WireCall, drain
from talon.providers.dialect import Dialect
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Key, ProviderError

_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressed stream is held back until a block is full
    "User-Agent": f"talon/{__version__}",
}


class HttpProvider:
    """A configured endpoint that speaks `dialect`. Made anywhere; its pool is opened by the first call, on that call's event loop,
    and stays there.

    `key` is asked for each call. Redirects are not followed, cookies not kept, proxies of the environment not used. The key appears
    in no error and no `repr`.
    """

    def __init__(self, name: str, dialect: Dialect, key: Key = "", *, limits: CallLimits | None = None) -> None:
        self._name = name
        self._dialect = dialect
        self._key = key
        self._limits = limits or CallLimits()
        self._session: aiohttp.ClientSession | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"HttpProvider({self._name!r}, {self._dialect!r})"

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """Make one call; see `Provider.chat`. An error carries the usage that the call had or probably had.

        Close the generator if you stop before `Finished`; after it there is nothing to wait for, and the connection is kept.
        """
        request = without_foreign(request, self._name)
        dialect = self._dialect
        try:
            body = dialect.body(request)
        except (UnicodeEncodeError, TypeError) as error:
            raise ProviderError("bad_request", f"the request cannot be written as JSON ({type(error).__name__})") from None
        url = dialect.url(request)
        key = self._key if isinstance(self._key, str) else await self._ask_key()
        session = self._pool()
        call = WireCall(self._name, key, self._limits, dialect, request)
        response: aiohttp.ClientResponse | None = None
        answered = False
        try:
            response = await call.send(session, url, dialect.headers(key, url, body), body)
            while events := await call.more(response):
                for event in events:
                    yield event
            finished = call.finish()
            answered = True
            yield finished
        except (aiohttp.ClientError, OSError) as error:
            raise call.failed(error, url) from None
        finally:
            call.over()
            if response is not None:
                if answered and not response.content.is_eof():
                    self._recycle(response)
                else:  # to the pool if the body came to its end; otherwise this closes the socket, also on cancellation
                    response.release()

    async def close(self) -> None:
        """Close the pool: calls under way and later ones fail as `connection`. Closing twice does nothing."""
        self._closed = True
        session, self._session = self._session, None
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        if session is not None:
            await session.close()

    async def _ask_key(self) -> str:
        """The key that is valid now; asking for it takes no longer than a connection may."""
        assert not isinstance(self._key, str)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                return await self._key()
        except TimeoutError:
            words = f"its key was not there within connect_timeout_s ({self._limits.connect_s:g} s)"
            raise ProviderError("timeout", f"providers.{self._name}: {words}") from None

    def _recycle(self, response: aiohttp.ClientResponse) -> None:
        """The answer is given, the body's own end may be a packet behind: wait for it aside, then the connection is used again."""
        task = asyncio.get_running_loop().create_task(drain(response))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _pool(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ProviderError("connection", f"providers.{self._name} is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the worker's concurrency is the bound; a second one would hide waits
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def without_foreign(request: ChatRequest, provider: str) -> ChatRequest:
    """`request` without what other vendors or models want back: signatures and encrypted reasoning are good for their own only."""

    def own(message: ChatMessage) -> ChatMessage:
        opaque = message.opaque
        if opaque is None:
            if not any(call.opaque for call in message.tool_calls):
                return message
        elif opaque.provider == provider and opaque.model == request.model:
            return message
        calls = tuple(replace(call, opaque="") for call in message.tool_calls)
        return replace(message, opaque=None, tool_calls=calls)

    if all(message.opaque is None and not message.tool_calls for message in request.messages):
        return request
    return replace(request, messages=tuple(map(own, request.messages)))
