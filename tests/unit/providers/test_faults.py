"""From status, body and headers to an error class, a wait, and a text that is safe to show."""

from __future__ import annotations

import msgspec
import pytest

from talon.providers.faults import from_status, retry_after, safe_text


def body(message: str = "", kind: str | None = None, code: str | int | None = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "code": code}})


@pytest.mark.parametrize(
    ("status", "payload", "expected"),
    [
        (400, body("bad"), "bad_request"),
        (400, body("This model's maximum context length is 8192 tokens"), "context_overflow"),
        (400, body("x", "invalid_request_error", "context_length_exceeded"), "context_overflow"),
        (400, body("the request exceeds the available context size", "exceed_context_size_error", 400), "context_overflow"),
        (400, body("refused", code="content_filter"), "content_filter"),
        (401, body("no"), "authentication"),
        (402, body("pay"), "authentication"),
        (403, body("no"), "authentication"),
        (403, body("flagged by moderation"), "content_filter"),
        (404, body("no such model"), "bad_request"),
        (408, b"", "timeout"),
        (413, b"", "context_overflow"),
        (422, b'{"detail":[{"msg":"x"}]}', "bad_request"),
        (429, body("slow"), "rate_limit"),
        (429, body("the engine is overloaded"), "overloaded"),
        (429, body("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), "authentication"),
        (400, body("Your credit balance is too low to access the API"), "authentication"),
        (400, body("Output blocked by content filtering policy"), "content_filter"),
        (500, b"<html><h1>Oops</h1></html>", "server"),
        (502, b"", "server"),
        (503, b"", "server"),
        (503, body("Overloaded"), "overloaded"),
        (504, b"", "server"),
        (529, b"", "overloaded"),
        (301, b"", "bad_request"),
        (418, b"\xff\xfe\x00", "bad_request"),
    ],
)
def test_every_status_has_its_class(status: int, payload: bytes, expected: str) -> None:
    error = from_status("p", status, payload, {})
    assert (error.error, error.status) == (expected, status)
    assert str(status) in error.detail


@pytest.mark.parametrize(
    "payload",
    [
        b'{"error":{"message":"out of memory"}}',
        b'{"error":"out of memory"}',
        b'{"message":"out of memory"}',
        b'{"detail":"out of memory"}',
        b'[{"error":{"message":"out of memory"}}]',
        b"<p>out of memory</p>",
        b"out of memory",
    ],
)
def test_the_servers_words_are_found_in_every_shape_of_body(payload: bytes) -> None:
    assert "out of memory" in from_status("p", 500, payload, {}).detail


@pytest.mark.parametrize(
    "payload", [b"[]", b"null", b'{"error":null}', b'{"error":[1]}', b"0", b'"x"', b'{"error":{"message":{"a":1}}}', b"[[[["]
)
def test_a_strange_body_makes_no_second_error(payload: bytes) -> None:
    assert from_status("p", 500, payload, {}).error == "server"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "3"}, 0.25),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "99999999"}, 86_400.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),  # past
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),  # nothing to measure it against
        ({"x-ratelimit-reset-requests": "12ms"}, 0.012),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "100"}, None),  # that quota is in nobody's way
        ({"x-ratelimit-reset-tokens": "6m0s", "Retry-After": "1"}, 1.0),
        ({"x-ratelimit-reset-tokens": "45"}, 45.0),
        ({"x-ratelimit-reset": "1792567710000", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),  # a moment, in milliseconds
        ({"anthropic-ratelimit-tokens-reset": "2026-10-21T07:28:30Z", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"anthropic-ratelimit-tokens-reset": "soon", "x-ratelimit-reset-requests": ""}, None),
    ],
)
def test_the_wait_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_text_to_show_has_no_key_no_token_no_control_character_and_an_end() -> None:
    assert safe_text("next: https://x.example", "x") == "next: https://x.example", "a local server's key of a letter hides no word"
    text = safe_text("key sk-very-secret,\r\nAuthorization: Bearer abc.def \x1b[31m" + "x" * 3000, "sk-very-secret")
    assert "very-secret" not in text
    assert "abc.def" not in text
    assert text.isprintable()
    assert len(text) == 500
