"""Problem documents of a server, as the errors that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from talon.domain import errors as err

BY_STATUS: dict[int, type[err.TalonError]] = {
    400: err.Malformed,
    403: err.Forbidden,
    404: err.NotFound,
    409: err.Conflict,
    410: err.Gone,
    412: err.PreconditionFailed,
    413: err.TooLarge,
    416: err.AheadOfJournal,
    422: err.Invalid,
    429: err.Throttled,
    503: err.Unavailable,
}


def problem(status: int, body: Mapping[str, Any], retry_after: str | None = None) -> err.TalonError:
    """The error that a problem document tells of."""
    fields = tuple(
        err.FieldError(str(item.get("field", "")), str(item.get("message", "")), item.get("value"))
        for item in cast(list[dict[str, Any]], body.get("errors") or [])
    )
    cls = BY_STATUS.get(status) or (err.Defect if status >= 500 else err.Refused)
    code, detail = str(body["code"]), str(body.get("detail") or body.get("title") or f"HTTP {status}")
    seconds = float(retry_after) if retry_after and retry_after.replace(".", "", 1).isdigit() else None
    return cls(code, detail, fields, seconds)
