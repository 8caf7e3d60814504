"""Reading request bodies: bounded, typed, and refused with every wrong field named."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect, Request

from talon.domain.errors import Malformed
from talon.gateway.http.problems import WrongMedia

JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
PATCH_TYPES = ("application/merge-patch+json", "application/json")


class Body(BaseModel):
    """Base of request bodies: unknown fields are refused, nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


BodyT = TypeVar("BodyT", bound=Body)


def media_type(content_type: str, allowed: tuple[str, ...]) -> str:
    """The media type without parameters. Nothing said counts as JSON. Raises 415 unless `allowed` has it."""
    media = content_type.partition(";")[0].strip().lower() or JSON_TYPES[0]
    if media not in allowed:
        raise WrongMedia("unsupported_media_type", f"content type {media!r} is not read here; send {' or '.join(allowed)}")
    return media


async def read_bytes(request: Request, allowed: tuple[str, ...] = JSON_TYPES) -> tuple[bytes, str]:
    """-> (body, media type). The size is bounded by the front, which raises `TooLarge` while reading. Raises `Malformed` for a body
    whose client left before its end."""
    try:
        data = await request.body()
    except ClientDisconnect:
        raise Malformed("malformed", "the client left in the middle of the body") from None
    # Clients name a type also where they send nothing.
    return data, media_type(request.headers.get("content-type", "") if data else "", allowed)


async def read_json(request: Request, kind: type[BodyT]) -> BodyT:
    """The body as `kind`; an empty one is an empty object. Raises `Malformed` | `Invalid` | 415."""
    data, _ = await read_bytes(request)
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        raise Malformed("malformed", f"the body is not UTF-8: byte {exc.start}") from None
    return kind.model_validate_json(data or b"{}")
