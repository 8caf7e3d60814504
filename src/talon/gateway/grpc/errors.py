"""Errors as google.rpc.Status: the one place where an exception becomes a gRPC status."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from talon.access.secret import masked
from talon.domain.errors import GRPC_STATUS, FieldError, TalonError, Unavailable

DOMAIN = "talon"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
#: Clients read 8 KiB of metadata by default, all of it together. A message is percent-encoded there and stands once more in the
#: details, which become base64: with these two bounds it fits.
MESSAGE_BYTES_MAX = 1_000
DETAILS_BYTES_MAX = 4_000

Metadata = tuple[tuple[str, str | bytes], ...]


def status_of(error: TalonError) -> grpc.StatusCode:
    """The status that `error` leaves with."""
    return grpc.StatusCode[GRPC_STATUS.get(error.code, error.grpc_status)]


def render(error: TalonError, request_id: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """-> (status, message, trailing metadata) of `error`. The details are ErrorInfo with the stable code, RequestInfo, RetryInfo
    where trying again may help, and BadRequest with the wrong fields: all of them, or as many as fit."""
    code, message = status_of(error), _cut(masked(error.detail), MESSAGE_BYTES_MAX)
    status = Status(code=code.value[0], message=message)
    _add(status, ErrorInfo(reason=error.code, domain=DOMAIN))
    _add(status, RequestInfo(request_id=request_id))
    if error.retry_after_s is not None or isinstance(error, Unavailable):
        delay = Duration()
        delay.FromMilliseconds(round((error.retry_after_s or 1.0) * 1000))
        _add(status, RetryInfo(retry_delay=delay))
    if error.errors:
        _add(status, _bad_request(error.errors, DETAILS_BYTES_MAX - status.ByteSize()))
    return code, message, ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))


def _bad_request(errors: Sequence[FieldError], most: int) -> BadRequest:
    found = BadRequest()
    for count, one in enumerate(errors):
        field = BadRequest.FieldViolation(field=_cut(masked(one.field), 200), description=_cut(masked(one.message), 400))
        if found.ByteSize() + field.ByteSize() > most - 200:
            rest = len(errors) - count
            found.field_violations.add(field="", description=f"and {rest} more: what fits into a gRPC status is told")
            break
        found.field_violations.append(field)
    return found


def _add(status: Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _cut(text: str, most: int) -> str:
    """`text`, shortened until its percent-encoded form has at most `most` bytes."""
    while len(quote(text)) > most:
        text = text[: max(1, len(text) * most // len(quote(text)) - 1)] + "…" if len(text) > 2 else ""
    return text
