"""An HTTP answer as text, and a request before it is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from talon import ToolError
from talon.tools.builtin.request import Request, build, redirected
from talon.tools.builtin.response import Answer, decode, render

UMLAUTS = "Grüße, Zoë €"


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (UMLAUTS.encode(), "text/plain", UMLAUTS),
        (UMLAUTS.encode("cp1252"), "text/plain; charset=windows-1252", UMLAUTS),
        (UMLAUTS.encode("iso-8859-15"), 'text/plain; charset="ISO-8859-15"', UMLAUTS),
        (UMLAUTS.encode("cp1252"), "text/plain", UMLAUTS),
        (UMLAUTS.encode("utf-16"), "text/plain", UMLAUTS),
        (UMLAUTS.encode("utf-8-sig"), "application/json", UMLAUTS),
        ("日本".encode("shift_jis"), "text/html; charset=Shift_JIS", "日本"),
        (b'<meta charset="shift_jis">' + "日本".encode("shift_jis"), "text/html", '<meta charset="shift_jis">日本'),
        (UMLAUTS.encode(), "text/plain; charset=no-such-charset", UMLAUTS),
        (UMLAUTS.encode(), "text/plain; charset=hex", UMLAUTS),
        (b"a\\u0041", "text/plain; charset=unicode_escape", "a\\u0041"),
        (b'{"a":1}', "application/vnd.api+json; charset=utf-8", '{"a":1}'),
        (b"<svg/>", "image/svg+xml", "<svg/>"),
        (UMLAUTS.encode(), "", UMLAUTS),
        (UMLAUTS.encode()[:-1], "application/octet-stream", UMLAUTS[:-1] + "\ufffd"),
        (b"\x89PNG\r\n\x1a\n\0\0", "image/png", "(binary body, image/png, 10 bytes, not shown)"),
        (b"\0\1\2", "", "(binary body, type unknown, 3 bytes, not shown)"),
        (b"%PDF", "application/pdf", "(binary body, application/pdf, 4 bytes, not shown)"),
        (b"ok \xff", "text/plain; charset=utf-8", "ok \ufffd"),
    ],
)
def test_bodies_become_text_by_their_charset_and_binary_ones_are_said_to_be(body: bytes, content_type: str, text: str) -> None:
    assert decode(body, content_type) == text


@given(st.binary(max_size=300), st.sampled_from(["", "text/html", "text/plain; charset=utf-7", "application/json", "image/gif"]))
def test_any_bytes_can_be_shown(body: bytes, content_type: str) -> None:
    decode(body, content_type).encode("utf-8", "surrogatepass")


def test_an_answer_shows_status_useful_headers_body_and_notes_but_no_cookie() -> None:
    headers = {"content-type": "text/plain", "set-cookie": "session=secret", "etag": '"1"', "server": "x"}
    text = render(Answer(404, "Not Found", headers, b"gone", "https://a.example/b", ("body cut after 4 bytes",)))
    assert text == (
        'HTTP 404 Not Found\nurl: https://a.example/b\ncontent-type: text/plain\netag: "1"\n\ngone\n\n[body cut after 4 bytes]'
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"url": "ftp://a.example/"}, "only http and https"),
        ({"url": "file:///etc/passwd"}, "only http and https"),
        ({"url": "//a.example/"}, "only http and https"),
        ({"url": "http://"}, "not a host name"),
        ({"url": "http://user@a.example/"}, "user name or password is refused"),
        ({"url": "http://user:pw@a.example/"}, "user name or password is refused"),
        ({"url": "http://a.example:99999/"}, "is not a URL"),
        ({"url": "http://a.example/" + "x" * 9000}, "the URL has 9017 characters"),
        ({"url": "http://a.example/", "body": "x"}, "a GET request has no body"),
        ({"url": "http://a.example/", "headers": {"Host": "b.example"}}, "'Host' cannot be set"),
        ({"url": "http://a.example/", "headers": {"idempotency-key": "mine"}}, "'idempotency-key' cannot be set"),
        ({"url": "http://a.example/", "headers": {"Transfer-Encoding": "chunked"}}, "cannot be set"),
        ({"url": "http://a.example/", "headers": {"Connection": "close"}}, "cannot be set"),
        ({"url": "http://a.example/", "headers": {"Content-Length": "5"}}, "cannot be set"),
        ({"url": "http://a.example/", "headers": {"Proxy-Authorization": "x"}}, "cannot be set"),
        ({"url": "http://a.example/", "headers": {"X-A": "1\r\nHost: b.example"}}, "line break"),
        ({"url": "http://a.example/", "headers": {"X A": "1"}}, "cannot be the name of a header"),
        ({"url": "http://a.example/", "headers": {"X-A\r\nY": "1"}}, "cannot be the name of a header"),
        ({"url": "http://a.example/", "headers": {"X-A": "1", "x-a": "2"}}, "given twice"),
        ({"url": "http://a.example/", "headers": {"X-A": "1" * 20_000}}, "more than 16384 characters"),
    ],
)
def test_requests_that_are_refused_before_anything_is_sent(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        build(args)


def test_a_body_gets_the_content_type_that_it_is() -> None:
    def content_type(**more: Any) -> str:
        return build({"method": "POST", "url": "http://a.example/", **more}).headers.get("Content-Type", "")

    assert content_type(body='{"a":1}') == "application/json"
    assert content_type(body="a=1") == "text/plain; charset=utf-8"
    assert content_type(body="") == ""
    assert build({"method": "PUT", "url": "http://a.example/", "body": "x", "headers": {"content-type": "text/csv"}}).headers == {
        "content-type": "text/csv"
    }


SECRET = {"Authorization": "Bearer s", "X-Api-Key": "s", "Cookie": "s", "Accept": "text/html", "Content-Type": "application/json"}


def request(method: str = "POST", url: str = "https://a.example/x") -> Request:
    return Request(method, URL(url), dict(SECRET), None if method in ("GET", "HEAD") else b"{}")


@pytest.mark.parametrize(
    ("method", "status", "becomes", "body"),
    [
        ("POST", 301, "GET", None),
        ("POST", 302, "GET", None),
        ("POST", 303, "GET", None),
        ("PUT", 303, "GET", None),
        ("HEAD", 303, "HEAD", None),
        ("HEAD", 301, "HEAD", None),
        ("POST", 307, "POST", b"{}"),
        ("POST", 308, "POST", b"{}"),
        ("PUT", 302, "PUT", b"{}"),
        ("GET", 308, "GET", None),
    ],
)
def test_a_redirect_within_an_origin_keeps_headers_and_changes_the_method_as_browsers_do(
    method: str, status: int, becomes: str, body: bytes | None
) -> None:
    after = redirected(request(method), status, "/y?z=1")
    assert after is not None
    assert (after.method, str(after.url), after.body) == (becomes, "https://a.example/y?z=1", body)
    assert after.headers["Authorization"] == "Bearer s"
    assert ("Content-Type" in after.headers) == (becomes == method)


@pytest.mark.parametrize("location", ["https://b.example/", "http://a.example/", "https://a.example:8443/", "//b.example/"])
def test_no_credential_goes_to_another_origin(location: str) -> None:
    after = redirected(request("GET"), 302, location)
    assert after is not None
    assert set(after.headers) == {"Accept", "Content-Type"}


def test_a_change_is_not_repeated_at_another_origin() -> None:
    with pytest.raises(ToolError, match=r"a POST is not repeated at another origin \(https://b.example\)"):
        redirected(request(), 307, "https://b.example/")
    after = redirected(request(), 303, "https://b.example/")
    assert after is not None
    assert (after.method, after.body, set(after.headers)) == ("GET", None, {"Accept"})


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://a.example/", "https://u:p@b.example/", "http://[::1"])
def test_a_redirect_is_checked_like_a_request(location: str) -> None:
    with pytest.raises(ToolError):
        redirected(request("GET"), 302, location)


@pytest.mark.parametrize(("status", "location"), [(200, "/y"), (304, "/y"), (300, "/y"), (302, "")])
def test_other_answers_ask_for_no_redirect(status: int, location: str) -> None:
    assert redirected(request(), status, location) is None
