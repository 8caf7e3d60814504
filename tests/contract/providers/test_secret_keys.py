"""A key that is a secret: asked for at each call, and no call without it."""

from __future__ import annotations

import asyncio

import pytest

from support.rawserver import RawServer
from talon.domain.errors import Conflict, NotFound, TalonError, Unavailable
from talon.providers.http import HttpProvider
from talon.providers.keys import secret_key
from talon.providers.openai_chat import OpenAIChat
from talon.providers.protocol import ChatMessage, ChatRequest, ProviderError

REQUEST = ChatRequest("m", (ChatMessage("user", "hello"),))


class Said:
    """A reader of secrets that gives what it is told to, one thing after the other."""

    def __init__(self, *values: str | TalonError) -> None:
        self.values = list(values)
        self.asked: list[tuple[str, str, str, str]] = []

    async def read(self, namespace: str, name: str, used_by: str, purpose: str) -> str:
        self.asked.append((namespace, name, used_by, purpose))
        value = self.values.pop(0)
        if isinstance(value, TalonError):
            raise value
        return value


async def unauthorized(writer: asyncio.StreamWriter) -> None:
    body = b'{"error": {"message": "no"}}'
    writer.write(
        b"HTTP/1.1 401 No\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (len(body), body)
    )


def provider(reader: Said, server: RawServer) -> HttpProvider:
    return HttpProvider("far", OpenAIChat(server.base_url), secret_key(reader, "far", "acme", "openai", "worker/w"))


async def failed(one: HttpProvider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async for _ in one.chat(REQUEST):
            pass
    return caught.value


async def test_each_call_has_the_key_of_its_moment() -> None:
    reader = Said("sk-one", "sk-two")
    async with RawServer(unauthorized) as server:
        one = provider(reader, server)
        for _ in range(2):
            assert (await failed(one)).error == "authentication"
        await one.close()
    assert [b"Bearer sk-one" in server.requests[0], b"Bearer sk-two" in server.requests[1]] == [True, True]
    assert reader.asked == [("acme", "openai", "worker/w", "providers.far.api_key")] * 2
    assert "sk-" not in repr(one)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (NotFound("secret_not_found", "secret 'openai' is not there"), "unresolved", "secret 'openai' is not there"),
        (Conflict("secret_unreadable", "cannot be decrypted"), "unresolved", "cannot be decrypted"),
        ("sk-two\nlines", "unresolved", "has a character that no key has"),
        ("sk two", "unresolved", "has a character that no key has"),
        ("sk-\N{SNOWMAN}", "unresolved", "has a character that no key has"),
        (Unavailable("database_unavailable", "the database is away"), "connection", "the database is away"),
    ],
)
async def test_without_a_key_no_call_is_made(said: str | TalonError, error: str, words: str) -> None:
    async with RawServer(unauthorized) as server:
        one = provider(Said(said), server)
        found = await failed(one)
        await one.close()
    assert (found.error, found.retryable) == (error, error == "connection")
    assert found.detail.startswith("providers.far.api_key: ")
    assert words in found.detail
    assert "sk-" not in found.detail
    assert not server.requests
