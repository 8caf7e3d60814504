"""From what a model server answers in place of an answer to a `ProviderError`: class, wait, and a text that is safe to show."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from talon.observe.logs import SECRET_MIN, forms, parts
from talon.providers.protocol import ErrorClass, ProviderError

DETAIL_MAX = 500
#: A server that asks for a longer pause than a day is taken at a day.
RETRY_AFTER_MAX_S = 86_400.0

_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (?:length|window|size)|prompt is too long"
    r"|too many tokens|input is too long|max_tokens must be at least 1|exceeds the maximum number of tokens",
    re.IGNORECASE,
)
_UNPAID = re.compile(r"insufficient_quota|credit balance|billing", re.IGNORECASE)
_FILTERED = re.compile(
    r"content.?(?:filter|policy|management policy)|moderation|ResponsibleAIPolicy|usage polic(?:y|ies)", re.IGNORECASE
)
_OVERLOADED = re.compile(r"overloaded|at capacity|over capacity|no capacity|server busy", re.IGNORECASE)
_KEYLESS = re.compile(r"API[ _]key (?:not valid|expired|not found)", re.IGNORECASE)  # of a vendor that says 400 for it
#: `x-ratelimit-reset-tokens`, `x-ratelimit-reset`; `anthropic-ratelimit-tokens-reset`.
_RESET = re.compile(r"x-ratelimit-reset(?:-[\w-]+)?|anthropic-ratelimit-[\w-]+-reset")
_SPAN = re.compile(r"(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
_SCALES = (86_400.0, 3600.0, 60.0, 1.0, 0.001)
#: From here on a number is a moment (Unix time), not a wait; and from here on one in milliseconds.
_UNIX, _MILLIS = 1e8, 1e11
#: Google's wait stands in the body.
_DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,9}(?:\.\d{1,9})?)s"')
_BEARER = re.compile(r"(?i)bearer\s+\S+")
_TYPES: tuple[tuple[str, ErrorClass], ...] = (  # an error inside a 200 stream often has a type and no status
    ("overloaded", "overloaded"),
    ("rate_limit", "rate_limit"),
    ("authentication", "authentication"),
    ("permission", "authentication"),
    ("timeout", "timeout"),
    ("invalid_request", "bad_request"),
    ("not_found", "bad_request"),
)


def safe_text(text: str, secret: str = "") -> str:
    """`text` as one line of at most 500 characters, without `secret` or a long part of it between colons (in any of their usual
    forms), bearer tokens and control characters. As in logs, what is shorter than `SECRET_MIN` is no secret: local servers take any
    key, and without each `x` no line could be read."""
    if len(secret) >= SECRET_MIN:
        for part in parts(secret):
            for form in forms(part):
                text = text.replace(form, "***")
    text = _BEARER.sub("Bearer ***", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: DETAIL_MAX * 4]).split())
    return text if len(text) <= DETAIL_MAX else text[: DETAIL_MAX - 1] + "…"


def from_status(provider: str, status: int, body: bytes, headers: Mapping[str, str], secret: str = "") -> ProviderError:
    """The error of an answer whose status is not 200. `body` may be cut, empty, or no JSON at all."""
    words, code = _said(body)
    wait = retry_after(headers, quota=status == 429)
    delay = _DELAY.search(body) if wait is None else None
    if delay is not None:
        wait = min(float(delay[1]), RETRY_AFTER_MAX_S)
    error = class_of(status, f"{code} {words}")
    if status == 429 and delay is not None and error == "authentication":
        error = "rate_limit"  # its words name the bill too, but who names a wait expects one to help
    detail = f"providers.{provider} answered {status}"
    if error == "authentication":
        detail += f"; check providers.{provider}.api_key"
    if status == 404:
        detail += f"; check providers.{provider}.base_url and the model's name"
    if 300 <= status < 400:
        detail += f"; it redirects, which is not followed: set providers.{provider}.base_url to the final address"
    return ProviderError(
        error,
        safe_text(f"{detail}: {words}" if words else detail, secret),
        status=status,
        retry_after_s=wait,
    )


def from_event(provider: str, error: object, secret: str = "") -> ProviderError:
    """The error of an `error` object inside a stream that began well."""
    words, code = _fields({"error": error})
    status = int(code) if code.isdecimal() and 400 <= int(code) <= 599 else None
    kind: ErrorClass
    if status is not None:
        kind = class_of(status, words)
    else:
        kind = class_of(400, f"{code} {words}")
        if kind == "bad_request":
            kind = _class_of_type(code.lower())
        if kind == "server" and _OVERLOADED.search(words):
            kind = "overloaded"
    return ProviderError(kind, safe_text(f"providers.{provider} broke off its answer: {words or code}", secret), status=status)


def _class_of_type(code: str) -> ErrorClass:
    for part, found in _TYPES:
        if part in code:
            return found
    return "server"


def class_of(status: int, words: str) -> ErrorClass:
    """The class of an HTTP status, refined by the words of the error (code, type, message)."""
    if 200 < status < 300:
        return "empty"
    if status == 529 or (status in (429, 500, 502, 503) and _OVERLOADED.search(words)):
        return "overloaded"
    if status >= 500 or status == 424:  # a dependency of the server: its model
        return "server"
    if status == 429:
        return "authentication" if _UNPAID.search(words) else "rate_limit"  # waiting pays no bill
    if status == 408:
        return "timeout"
    if _FILTERED.search(words):
        return "content_filter"
    if status in (401, 402, 403, 407) or _KEYLESS.search(words) or _UNPAID.search(words):
        return "authentication"
    if status == 413 or _OVERFLOW.search(words):
        return "context_overflow"
    return "bad_request"


def retry_after(headers: Mapping[str, str], *, quota: bool = True) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, `Retry-After` as seconds or as a date, or, where a `quota` is used
    up, the latest reset of those that have nothing left (`x-ratelimit-reset-*`, `anthropic-ratelimit-*-reset`).

    A date is measured against the answer's own `Date` header, so the two clocks need not agree; without that header it is ignored.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return min(millis / 1000, RETRY_AFTER_MAX_S)
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is None and value:
        seconds = _until(value, headers)
    if seconds is None and quota:
        seconds = max((wait for wait in _resets(headers) if wait is not None), default=None)
    return None if seconds is None else min(seconds, RETRY_AFTER_MAX_S)


def _until(moment: str, headers: Mapping[str, str]) -> float | None:
    """Seconds from the answer's `Date` to a moment: an HTTP date, RFC 3339, or Unix time in seconds or milliseconds."""
    try:
        now = parsedate_to_datetime(headers.get("Date") or "").timestamp()
        unix = _number(moment)
        if unix is not None:
            then = unix / 1000 if unix > _MILLIS else unix
        elif moment[:1].isdigit():
            then = datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
        else:
            then = parsedate_to_datetime(moment).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(then - now, 0.0)


def _resets(headers: Mapping[str, str]) -> Iterator[float | None]:
    """The waits that the quotas' headers name; a quota that says it has something left is in nobody's way."""
    for name, value in headers.items():
        name, value = name.lower(), value.strip()
        if _RESET.fullmatch(name) is None or not value or _number(headers.get(name.replace("reset", "remaining"))):
            continue
        span, number = _SPAN.fullmatch(value), _number(value)
        if span is not None:
            yield sum(float(part) * scale for part, scale in zip(span.groups("0"), _SCALES, strict=True))
        else:
            yield number if number is not None and number < _UNIX else _until(value, headers)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _said(body: bytes) -> tuple[str, str]:
    """(message, code and type) of an error body in any of the usual shapes; a web page or plain text gives its first words."""
    try:
        return _fields(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeError):
        return re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace")).strip()[:DETAIL_MAX], ""


def _fields(value: object) -> tuple[str, str]:
    if isinstance(value, list) and value:  # one compatible server wraps its error in a list
        value = cast("list[object]", value)[0]
    if not isinstance(value, dict):
        return str(cast("object", value)) if value else "", ""
    outer = cast("dict[str, Any]", value)
    inner = outer.get("error", outer)
    if not isinstance(inner, dict):
        return str(inner or ""), ""
    fields = cast("dict[str, Any]", inner)
    message = fields.get("message") or fields.get("Message") or fields.get("detail") or ""
    meta = fields.get("metadata")
    if isinstance(meta, dict) and "raw" in meta:  # a router passes on what its provider said
        passed = cast("dict[str, Any]", meta)
        message = f"{message}: {passed.get('provider_name') or 'its provider'} said {passed['raw']}"
    code = " ".join(str(fields[key]) for key in ("code", "type") if fields.get(key))
    return str(message), code if not str(fields.get("code", "")).isdecimal() else str(fields["code"])
