"""`http_request` against real servers on loopback: which connections it makes, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from talon import EffectUnknown, ToolContext, ToolError
from talon.domain.errors import Invalid
from talon.tools import gate
from talon.tools.builtin import builtin_toolset
from talon.tools.builtin.addresses import system_lookup
from talon.tools.builtin.http_request import HttpRequest, HttpRequestSettings

CONTEXT = ToolContext(key="tk_abc", namespace="acme", agent="support", session="s1", turn_id="t1", call=1)
BOUND_S = 20.0
BIG = 10_000_000
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A real HTTP server on loopback that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.connections: set[Any] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport.get_extra_info("peername") if request.transport else None)
        entry = {"method": request.method, "path": request.path_qs, "headers": dict(request.headers), "body": await request.text()}
        self.asked.append(entry)
        match request.path:
            case "/redirect":
                return web.Response(status=int(request.query.get("status", 302)), headers={"Location": request.query["to"]})
            case "/loop":
                return web.Response(status=302, headers={"Location": f"/loop?n={int(request.query.get('n', 0)) + 1}"})
            case "/big":
                return web.Response(body=b"x" * BIG, content_type="text/plain")
            case "/bomb":
                body = gzip.compress(b"0" * 50_000_000)
                return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"})
            case "/hang":
                await asyncio.Event().wait()  # until the client hangs up
                return web.Response()
            case "/drip":
                response = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await response.prepare(request)
                await response.write(b"first")
                await asyncio.Event().wait()
                return response
            case "/cookie":
                return web.Response(text="ok", headers={"Set-Cookie": "session=secret"})
            case _:
                return web.json_response(entry)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    runner = web.AppRunner(web.Application(handler_args={"handler_cancellation": True}), shutdown_timeout=0.1)
    app = runner.app
    app.router.add_route("*", "/{tail:.*}", made.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., HttpRequest]]:
    tools: list[HttpRequest] = []

    def one(lookup: Any = system_lookup, **settings: Any) -> HttpRequest:
        tools.append(HttpRequest(HttpRequestSettings(**settings), lookup))
        return tools[-1]

    yield one
    for tool in tools:
        await tool.close()


async def raw_server(serve: Serve) -> asyncio.Server:
    return await asyncio.start_server(serve, "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


def echoed(text: str) -> dict[str, Any]:
    head, _, body = text.partition("\n\n")
    assert head.startswith("HTTP 200 OK"), text
    return json.loads(body)


async def ask(tool: HttpRequest, url: str, method: str = "GET", **more: Any) -> str:
    return await asyncio.wait_for(tool.call({"url": url, "method": method, **more}, CONTEXT), BOUND_S)


# What may be reached.


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "１２７.０.０.１",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
    ],
)
async def test_private_addresses_are_refused_in_every_spelling(server: Server, make: Callable[..., HttpRequest], host: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(ToolError, match=r"is refused: it is a .* address") as caught:
            await ask(make(), f"http://{host}:{server.port}/", method)
        assert not isinstance(caught.value, EffectUnknown)
    assert server.asked == []


async def test_a_name_is_judged_by_every_address_that_it_has(server: Server, make: Callable[..., HttpRequest]) -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", "127.0.0.1"]

    with pytest.raises(ToolError, match=r"rebind.example \(127.0.0.1\) is refused: it is a loopback address"):
        await ask(make(lookup), f"http://rebind.example:{server.port}/")
    assert server.asked == []


async def test_the_connection_goes_to_the_address_that_was_judged_with_one_look_up(
    server: Server, make: Callable[..., HttpRequest]
) -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    tool = make(lookup, allow_hosts=(f"shop.example:{server.port}",))
    text = await ask(tool, f"http://shop.example:{server.port}/a")
    assert echoed(text)["headers"]["Host"] == f"shop.example:{server.port}"
    assert asked == ["shop.example"]


async def test_a_host_may_be_allowed_with_or_without_its_port(server: Server, make: Callable[..., HttpRequest]) -> None:
    for entry in ("127.0.0.1", f"127.0.0.1:{server.port}", "localhost"):
        host = entry.partition(":")[0]
        assert echoed(await ask(make(allow_hosts=(entry,)), f"http://{host}:{server.port}/"))["path"] == "/"
    with pytest.raises(ToolError, match="is refused"):
        await ask(make(allow_hosts=(f"127.0.0.1:{server.port + 1}",)), server.url)
    with pytest.raises(ToolError, match="is refused"):
        await ask(make(allow_hosts=("localhost",)), server.url)


async def test_an_allowed_address_is_allowed_in_every_spelling(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(allow_hosts=("127.0.0.1",))
    answer = echoed(await ask(tool, f"http://2130706433:{server.port}/"))
    assert answer["headers"]["Host"] == f"127.0.0.1:{server.port}"


def test_wrong_settings_are_refused_when_the_toolset_is_made() -> None:
    class Clock:
        def now_ms(self) -> int:
            return 0

        def monotonic_s(self) -> float:
            return 0.0

    with pytest.raises(Invalid, match="'http://x' is not `host` or `host:port`"):
        builtin_toolset(Clock(), allow_hosts=["http://x"])
    with pytest.raises(Invalid):
        builtin_toolset(Clock(), idempotent_hosts=["*"])


# Redirects.


@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/secret", "http://2130706433:{port}/secret", "http://[::1]:{port}/secret"]
)
async def test_a_redirect_to_a_private_address_is_not_followed(
    server: Server, make: Callable[..., HttpRequest], target: str
) -> None:
    tool = make(allow_hosts=("redirector.example",), lookup=_to_loopback)
    to = target.format(port=server.port)
    text = await ask(tool, f"http://redirector.example:{server.port}/redirect?to={to}")
    assert text.startswith("HTTP 302 Found")
    assert "[redirect not followed: " in text
    assert "loopback address" in text
    assert [entry["path"].partition("?")[0] for entry in server.asked] == ["/redirect"]


async def _to_loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_redirects_are_followed_and_the_final_address_is_told(server: Server, make: Callable[..., HttpRequest]) -> None:
    text = await ask(make(allow_hosts=("127.0.0.1",)), f"{server.url}/redirect?to=/there")
    assert f"\nurl: {server.url}/there\n" in text
    assert echoed(text)["path"] == "/there"


async def test_at_most_five_redirects_are_followed(server: Server, make: Callable[..., HttpRequest]) -> None:
    text = await ask(make(allow_hosts=("127.0.0.1",)), f"{server.url}/loop")
    assert [entry["path"] for entry in server.asked] == ["/loop", *[f"/loop?n={n}" for n in range(1, 6)]]
    assert "[redirect not followed: these were 5 already]" in text


async def test_a_redirect_to_another_host_loses_the_authorization(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(lookup=_to_loopback, allow_hosts=("a.example", "b.example"))
    to = f"http://b.example:{server.port}/end"
    headers = {"Authorization": "Bearer s", "X-Token": "s", "Accept": "text/plain"}
    answer = echoed(await ask(tool, f"http://a.example:{server.port}/redirect?to={to}", headers=headers))
    assert server.asked[0]["headers"]["Authorization"] == "Bearer s"
    assert {"Authorization", "X-Token"}.isdisjoint(answer["headers"])
    assert answer["headers"]["Accept"] == "text/plain"


async def test_a_change_is_repeated_at_its_own_origin_only(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(lookup=_to_loopback, allow_hosts=("a.example", "b.example"))
    base = f"http://a.example:{server.port}/redirect?status=307&to="
    stayed = echoed(await ask(tool, base + "/here", "POST", body="{}"))
    assert (stayed["method"], stayed["body"], stayed["headers"]["Idempotency-Key"]) == ("POST", "{}", "tk_abc")
    text = await ask(tool, base + f"http://b.example:{server.port}/there", "POST", body="{}")
    assert text.startswith("HTTP 307")
    assert "[redirect not followed: a POST is not repeated at another origin" in text
    assert [entry["path"].partition("?")[0] for entry in server.asked] == ["/redirect", "/here", "/redirect"]


# Effects and keys.


async def test_changes_carry_the_key_and_reads_do_not(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(allow_hosts=("127.0.0.1",))
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = echoed(await ask(tool, server.url, method))
        assert answer["method"] == method
        assert answer["headers"].get("Idempotency-Key") == (None if method == "GET" else "tk_abc")
    assert (await ask(tool, server.url, "HEAD")).startswith("HTTP 200 OK")
    assert "Idempotency-Key" not in server.asked[-1]["headers"]


def test_the_effect_depends_on_method_and_host() -> None:
    tool = HttpRequest(HttpRequestSettings(idempotent_hosts=("api.stripe.com", "pay.example:8443")))

    def effect(method: str, url: str) -> str:
        return tool.effect_of({"method": method, "url": url})

    assert tool.spec.effect == "unsafe"
    assert effect("GET", "https://x.example/") == effect("HEAD", "https://x.example/") == "read"
    assert tool.effect_of({"url": "https://x.example/"}) == "read"
    assert effect("POST", "https://API.stripe.com./v1") == "idempotent"
    assert effect("DELETE", "https://pay.example:8443/") == "idempotent"
    assert effect("POST", "https://pay.example/") == "unsafe"
    assert effect("POST", "https://api.stripe.com.evil.example/") == "unsafe"
    assert effect("POST", "https://api.stripe.com@evil.example/") == "unsafe"
    assert effect("POST", "nonsense") == "unsafe"


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_change_whose_answer_is_lost_is_sent_once_and_said_to_be_unknown(
    make: Callable[..., HttpRequest], method: str
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await _hang_up(reader, writer)

    async with await raw_server(serve) as raw:
        tool = make(allow_hosts=("127.0.0.1",))
        args = {"url": f"http://127.0.0.1:{port_of(raw)}/", "method": method}
        result = await asyncio.wait_for(gate.run(tool, args, CONTEXT), BOUND_S)
        assert (result.error, result.uncertain) == ("exception", True)
        assert "the answer broke" in result.message
        assert connections == 1


async def test_a_lost_answer_of_an_idempotent_host_or_a_read_is_a_plain_failure(make: Callable[..., HttpRequest]) -> None:
    async with await raw_server(_hang_up) as raw:
        host = f"127.0.0.1:{port_of(raw)}"
        tool = make(allow_hosts=(host,), idempotent_hosts=(host,))
        for method in ("POST", "GET"):
            result = await asyncio.wait_for(gate.run(tool, {"url": f"http://{host}/", "method": method}, CONTEXT), BOUND_S)
            assert (result.error, result.uncertain) == ("exception", False)


async def test_a_server_that_is_not_there_was_not_changed(make: Callable[..., HttpRequest]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        args = {"url": f"http://127.0.0.1:{port}/", "method": "POST"}
        result = await asyncio.wait_for(gate.run(make(allow_hosts=("127.0.0.1",)), args, CONTEXT), BOUND_S)
    assert (result.error, result.uncertain) == ("exception", False)
    assert f"could not connect to 127.0.0.1:{port}" in result.message


async def test_a_name_that_does_not_exist_is_told(make: Callable[..., HttpRequest]) -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ToolError, match=r"could not connect to nowhere.example:80: .*Name or service not known"):
        await ask(make(lookup), "http://nowhere.example/")


# Limits and answers.


async def test_a_big_body_is_cut_at_the_limit(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(allow_hosts=("127.0.0.1",), response_max=100_000)
    text = await ask(tool, f"{server.url}/big")
    assert text.endswith("[body cut after 100000 bytes]")
    assert 100_000 < len(text) < 101_000
    result = await gate.run(tool, {"url": f"{server.url}/big"}, CONTEXT)
    assert result.truncated
    assert len(result.output) <= tool.spec.output_max


async def test_a_body_that_grows_when_it_is_unpacked_is_cut_at_the_limit(server: Server, make: Callable[..., HttpRequest]) -> None:
    text = await ask(make(allow_hosts=("127.0.0.1",), response_max=100_000), f"{server.url}/bomb")
    assert text.endswith("[body cut after 100000 bytes]")
    assert len(text) < 101_000


async def test_a_server_that_does_not_answer_in_time_is_given_up(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(allow_hosts=("127.0.0.1",), timeout_s=0.2)
    with pytest.raises(ToolError, match="no answer within") as caught:
        await ask(tool, f"{server.url}/hang")
    assert not isinstance(caught.value, EffectUnknown)
    with pytest.raises(EffectUnknown, match="no answer within"):
        await ask(tool, f"{server.url}/hang", "POST")


async def test_a_body_that_does_not_end_in_time_is_shown_as_far_as_it_came(
    server: Server, make: Callable[..., HttpRequest]
) -> None:
    text = await ask(make(allow_hosts=("127.0.0.1",), timeout_s=0.3), f"{server.url}/drip", "POST")
    assert text.startswith("HTTP 200 OK")
    assert "first\n\n[the body did not end in time; these are its first 5 bytes]" in text


async def test_a_body_that_breaks_off_is_shown_as_far_as_it_came(make: Callable[..., HttpRequest]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    async with await raw_server(serve) as raw:
        text = await ask(make(allow_hosts=("127.0.0.1",)), f"http://127.0.0.1:{port_of(raw)}/", "POST")
    assert text.startswith("HTTP 201 Created")
    assert "half\n\n[the body broke off after 4 bytes" in text


async def test_an_answer_that_is_not_http_is_an_error(make: Callable[..., HttpRequest]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await raw_server(serve) as raw:
        with pytest.raises(ToolError, match="the answer broke"):
            await ask(make(allow_hosts=("127.0.0.1",)), f"http://127.0.0.1:{port_of(raw)}/")


async def test_reads_share_a_connection_and_nothing_else(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(allow_hosts=("127.0.0.1",))
    text = await ask(tool, f"{server.url}/cookie")
    assert "secret" not in text
    for _ in range(3):
        assert "Cookie" not in echoed(await ask(tool, server.url))["headers"]
    assert len(server.connections) == 1
    await ask(tool, server.url, "POST")
    await ask(tool, server.url, "POST")
    assert len(server.connections) == 3


async def test_proxies_of_the_environment_are_not_used(
    server: Server, make: Callable[..., HttpRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"{server.url}/")
    monkeypatch.setenv("HTTP_PROXY", f"{server.url}/")
    tool = make(lookup=_to_loopback, allow_hosts=("nobody.example",))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://nobody.example:{taken.getsockname()[1]}/"
        with pytest.raises(ToolError, match="could not connect"):
            await ask(tool, url)
    assert server.asked == []


async def test_the_toolset_can_be_used_again_after_it_was_closed(server: Server, make: Callable[..., HttpRequest]) -> None:
    tool = make(allow_hosts=("127.0.0.1",))
    await ask(tool, server.url)
    await tool.close()
    assert echoed(await ask(tool, server.url))["method"] == "GET"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("{}", "'url' is a required property"),
        ('{"url":"http://a.example/","method":"get"}', "method: 'get' is not one of"),
        ('{"url":"http://a.example/","headers":{"a":1}}', "headers.a: 1 is not of type 'string'"),
        ('{"url":"http://a.example/","verify":false}', "'verify' was unexpected"),
    ],
)
def test_its_arguments_are_checked_by_its_schema(arguments: str, reason: str) -> None:
    spec = HttpRequest(HttpRequestSettings()).spec
    verdict = gate.check({"http_request": spec}, "http_request", arguments)
    assert isinstance(verdict, gate.Denied)
    assert reason in verdict.message
