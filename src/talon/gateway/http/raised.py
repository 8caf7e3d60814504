"""What routes of FastAPI raise, as problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.errors import FieldError, Invalid, Malformed, TalonError
from talon.gateway.http.front import internal, path_pattern
from talon.gateway.http.problems import NoMethod, NoRoute, response
from talon.gateway.http.visit import visit_of

#: What `on_error` is for.
RAISED = (TalonError, RequestValidationError, ValidationError, HTTPException, Exception)

#: Pydantic's kinds of mistakes that users make often, in our words.
WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "is missing",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
}


async def on_error(request: Request, exc: Exception) -> Response:
    """Any exception of a route as a problem. What nobody foresaw is raised on to the front, which logs it."""
    visit = visit_of(request.scope)
    error = _as_error(exc, request) or internal(visit.request_id)
    if isinstance(error, NoMethod):
        error = NoMethod(request.method, request.url.path, _methods(request.app, request.url.path))
    visit.outcome = error.code
    return response(error, visit.request_id)


def _methods(api: FastAPI, path: str) -> str:
    """The methods that `path` knows. Starlette names only those of the first route of that path."""
    found = {
        method.upper()
        for template, operations in api.openapi()["paths"].items()
        if path_pattern(template).fullmatch(path)
        for method in operations
    }
    return ", ".join(sorted(found)) or "GET"  # what is not in the document is the page: read only


def _as_error(exc: Exception, request: Request) -> TalonError | None:
    """`exc` as an error of ours, or None if it is a mistake of ours that nobody may see."""
    if isinstance(exc, TalonError):
        return exc
    if isinstance(exc, RequestValidationError | ValidationError):
        return _from_pydantic(exc.errors())
    if isinstance(exc, HTTPException):
        path = request.url.path
        if exc.status_code == 405:
            return NoMethod(request.method, path, (exc.headers or {}).get("Allow", ""))
        if exc.status_code == 404:
            return NoRoute("route_not_found", f"no route {path}; /openapi.json lists them all")
        if exc.status_code < 500:
            return Malformed("malformed", str(exc.detail))
    return None


def _from_pydantic(errors: Sequence[Mapping[str, Any]], where: str = "request") -> TalonError:
    """Pydantic's (and so FastAPI's) findings as one error of ours."""
    if any(one["type"] == "json_invalid" for one in errors):
        return Malformed("malformed", "the body is not JSON")
    fields: list[FieldError] = []
    for one in errors:
        location = [str(part) for part in one["loc"] if part not in ("body", "query", "path", "header")]
        message = WORDS.get(one["type"], str(one["msg"]))
        value = one.get("input")
        fields.append(FieldError(".".join(location) or where, message, value if isinstance(value, str | int | float) else None))
    named = "; ".join(f"{one.field}: {one.message}" for one in fields[:3])
    more = f" (and {len(fields) - 3} more)" if len(fields) > 3 else ""
    return Invalid("invalid", f"{named}{more}", tuple(fields))
