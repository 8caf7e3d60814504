"""Errors as RFC 9457 problem documents: the one place where an error becomes a response."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from talon.access.secret import masked
from talon.domain.errors import CODES, Refused, TalonError, Unauthenticated

TYPE_BASE = "https://talon.dev/errors/"
MEDIA_TYPE = "application/problem+json"
VALUE_SHOWN_MAX = 200


class NoRoute(Refused):
    """The path is not one of ours."""

    http_status = 404


class NoMethod(Refused):
    """The path is ours, the method is not."""

    http_status = 405

    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__("method_not_allowed", f"{path} does not know {method}; it knows {allow or 'nothing'}")
        self.allow = allow


class WrongMedia(Refused):
    """A content type that this route does not read."""

    http_status = 415


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wrong field of a problem."""

    field: str
    message: str
    value: Any = None


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, with a stable `code`, every wrong field, and the id under which the server logged the request."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem]
    request_id: str


def render(error: TalonError, request_id: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """-> (status, body, headers) of `error`."""
    status = error.http_status
    problem = Problem(
        type=TYPE_BASE + error.code,
        title=CODES.get(error.code, error.code),
        status=status,
        detail=masked(error.detail),
        code=error.code,
        errors=[FieldProblem(masked(one.field), masked(one.message), _shown(one.value)) for one in error.errors],
        request_id=request_id,
    )
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after_s is not None or status in (429, 503):
        # Whole seconds, rounded up: trying earlier would only fail again.
        headers.append((b"retry-after", str(max(1, -int(-(error.retry_after_s or 1.0) // 1))).encode()))
    if isinstance(error, NoMethod):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", error.challenge.encode("latin-1", "replace")))
    return status, body, headers


def response(error: TalonError, request_id: str) -> Response:
    """The same as a Starlette response."""
    status, body, headers = render(error, request_id)
    answer = Response(body, status_code=status)
    answer.raw_headers = list(headers)
    return answer


def _shown(value: Any) -> Any:
    """A field's value as far as it is fit to be shown: short, and something JSON can say."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = masked(value if isinstance(value, str) else repr(value))
    return text if len(text) <= VALUE_SHOWN_MAX else text[:VALUE_SHOWN_MAX] + "…"
