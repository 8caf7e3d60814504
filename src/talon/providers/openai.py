"""`OpenAIProvider`: OpenAI's chat completions, and every server that speaks them, on one pooled aiohttp session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
from yarl import URL

from talon import __version__
from talon.providers.call import WireCall, drain
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatRequest, ProviderError
from talon.providers.wire import encode_request


class OpenAIProvider:
    """A configured endpoint. Made anywhere; its pool is opened by the first call, on that call's event loop, and stays there.

    `base_url` ends before `/chat/completions` (`https://api.openai.com/v1`). An empty `api_key` sends no Authorization (local
    servers). `max_tokens_field` is the server's name for the output limit; empty: `max_completion_tokens` for api.openai.com,
    `max_tokens` elsewhere. Redirects are not followed, cookies not kept, proxies of the environment not used. The key appears in
    no error and no `repr`.
    """

    def __init__(
        self, name: str, base_url: str, api_key: str = "", *, limits: CallLimits | None = None, max_tokens_field: str = ""
    ) -> None:
        self._name = name
        self._url = URL(base_url.rstrip("/") + "/chat/completions")
        self._secret = api_key
        self._limits = limits or CallLimits()
        vendor = self._url.host == "api.openai.com"
        self._max_tokens_field = max_tokens_field or ("max_completion_tokens" if vendor else "max_tokens")
        self._session: aiohttp.ClientSession | None = None
        self._draining: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIProvider({self._name!r}, {str(self._url)!r})"

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """Make one call; see `Provider.chat`. An error carries the usage that the call had or probably had.

        Close the generator if you stop before `Finished`; after it there is nothing to wait for, and the connection is kept.
        """
        try:
            body = encode_request(request, self._max_tokens_field)
        except (UnicodeEncodeError, TypeError) as error:
            raise ProviderError("bad_request", f"the request cannot be written as JSON ({type(error).__name__})") from None
        session = self._pool()
        call = WireCall(self._name, self._secret, self._limits, request)
        response: aiohttp.ClientResponse | None = None
        answered = False
        try:
            response = await call.send(session, self._url, body)
            while events := await call.more(response):
                for event in events:
                    yield event
            finished = call.finish()
            answered = True
            yield finished
        except (aiohttp.ClientError, OSError) as error:
            raise call.failed(error, self._url) from None
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

    def _recycle(self, response: aiohttp.ClientResponse) -> None:
        """The answer is given, the body's own end may be a packet behind: wait for it aside, then the connection is used again."""
        task = asyncio.get_running_loop().create_task(drain(response))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _pool(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ProviderError("connection", f"providers.{self._name} is closed")
        if self._session is None:
            headers = {
                "Content-Type": "application/json",
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",  # a compressed stream is held back until a block is full
                "User-Agent": f"talon/{__version__}",
            }
            if self._secret:
                headers["Authorization"] = f"Bearer {self._secret}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the worker's concurrency is the bound; a second one would hide waits
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
