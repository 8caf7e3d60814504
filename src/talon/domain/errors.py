"""Every error that Talon shows to somebody, as a tree.

    TalonError
    ├── Refused          the request must change                4xx   exit 3 (2 where the CLI itself finds it)
    │   ├── Invalid          a field is wrong                   422
    │   ├── Malformed        the bytes cannot be read           400
    │   ├── TooLarge         over a named limit                 413
    │   ├── Unauthenticated  nobody was recognised              401
    │   ├── Forbidden        not allowed to this caller         403
    │   ├── NotFound         no such thing                      404
    │   ├── Gone             it was replaced or deleted         410
    │   ├── AheadOfJournal   a cursor nobody handed out         416
    │   ├── PreconditionFailed  not as the request wants it     412
    │   └── Conflict         it clashes with what is            409
    ├── Unavailable      the same request may succeed later     503 (Throttled: 429), Retry-After
    │   └── Throttled        a limit is full for now            429
    ├── Defect           a mistake of ours                      500
    └── FencedOut        the caller lost its session; never leaves the worker

Each error has a stable `code`; `docs/errors/CODE.md` explains it. `docs/errors` and `CODES` are compared by a test.
RFC 9457 is the form on HTTP, google.rpc.Status on gRPC; `http_status`, `grpc_status` and `exit_code` are the one table that says
how an error leaves the house.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: its path (`spec.features.customer_id`), what is wrong, and the offending value if it is safe to show."""

    field: str
    message: str
    value: Any = None


class TalonError(Exception):
    """Base of all. `code` is stable and documented, `detail` names the offending value and says what to do."""

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, detail: str, errors: tuple[FieldError, ...] = (), retry_after_s: float | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s


class Refused(TalonError):
    """Change the request: the same one will be refused again."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    exit_code = 3


class Invalid(Refused):
    """A field has a wrong value. `errors` names every wrong field, not only the first."""

    http_status = 422


class Malformed(Refused):
    """The bytes are not what the content type says."""

    http_status = 400


class TooLarge(Refused):
    """Over a limit that the message names."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class Unauthenticated(Refused):
    """Nobody was recognised. `challenge` is what `WWW-Authenticate` says."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"

    def __init__(self, code: str, detail: str, challenge: str = "Bearer") -> None:
        super().__init__(code, detail)
        self.challenge = challenge


class Forbidden(Refused):
    """Understood, and not allowed."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class NotFound(Refused):
    """No such thing, or not for you: both look the same."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class Conflict(Refused):
    """It clashes with the present state. gRPC has words of its own for two of these (`GRPC_STATUS`)."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class Gone(Refused):
    """It existed under this name and was replaced or deleted."""

    http_status = 410
    grpc_status = "OUT_OF_RANGE"


class AheadOfJournal(Refused):
    """A position that the journal has not reached."""

    http_status = 416
    grpc_status = "OUT_OF_RANGE"


class PreconditionFailed(Refused):
    """What the request means is not as the request wants it to be."""

    http_status = 412
    grpc_status = "ABORTED"


class Unavailable(TalonError):
    """Not now: the same request may succeed later. `retry_after_s` says when to try."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class Throttled(Unavailable):
    """A limit is full for now."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = 3


class Defect(TalonError):
    """A mistake of ours. The attempt stops; the turn can be resumed."""


class FencedOut(Exception):
    """The session was claimed by somebody else (its fence grew): stop working on it, write nothing more.

    Not a `TalonError`: it is the normal end of a worker that was taken over and is shown to nobody.
    """


class Behind(Exception):
    """An append guarded by `if_last_seq` met a journal that somebody else (an inbox entry) had made longer.

    Read what is new, decide again, append again. Nothing was written.
    """


#: Where a code says more to a gRPC client than its family does: ABORTED is worth another try from the start.
GRPC_STATUS: dict[str, str] = {"already_exists": "ALREADY_EXISTS", "conflict": "ABORTED"}

#: Every code that leaves the house, with the title that goes into the problem document.
CODES: dict[str, str] = {
    "agent_not_found": "No such agent",
    "already_exists": "It exists already and differs",
    "approval_closed": "The approval was already decided",
    "approval_not_found": "No such approval",
    "conflict": "The resource changed in the meantime",
    "cursor_ahead": "The cursor is ahead of the journal",
    "cursor_invalid": "The cursor cannot be read",
    "database_newer": "The database is newer than the program",
    "database_unavailable": "The database cannot be reached",
    "defect": "A mistake in Talon",
    "firing_superseded": "The schedule has moved on",
    "forbidden": "Your role does not reach so far",
    "forbidden_host": "The Host header is not allowed",
    "forbidden_origin": "The Origin is not allowed",
    "idempotency_conflict": "The key was used for another request",
    "identity_unavailable": "The identity provider cannot be reached",
    "image_not_found": "No such image",
    "in_use": "Others depend on it",
    "internal": "A mistake in Talon",
    "invalid": "A field is wrong",
    "key_not_found": "No such key",
    "kind_not_found": "No such kind",
    "knowledge_not_found": "No such knowledge",
    "malformed": "The request cannot be read",
    "mcp_binding_not_found": "No such MCP binding",
    "mcp_server_not_found": "No such MCP server",
    "method_not_allowed": "The route does not know this method",
    "model_not_found": "No such model",
    "namespace_not_found": "No such namespace",
    "precondition_failed": "It is not as the request wants it",
    "queue_full": "The session's queue is full",
    "revision_not_found": "No such revision",
    "route_not_found": "No such route",
    "schedule_not_found": "No such schedule",
    "secret_key_missing": "There is no key to encrypt secrets with",
    "secret_not_found": "No such secret",
    "secret_unreadable": "The secret's value cannot be decrypted",
    "session_busy": "The session is busy",
    "session_not_found": "No such session",
    "session_replaced": "The session was deleted and created again",
    "shutting_down": "The server is shutting down",
    "storage_full": "The disk is full",
    "stream_too_slow": "The stream was not read fast enough",
    "template_not_found": "No such template",
    "terminating": "It is being deleted",
    "too_large": "Over a size limit",
    "too_many_requests": "Too many requests",
    "too_many_streams": "Too many streams are open",
    "turn_ended": "The turn has ended",
    "turn_not_found": "No such turn",
    "unauthenticated": "Nobody was recognised",
    "unsupported_media_type": "The content type is not accepted",
    "version_ahead": "The version is ahead of the namespace",
    "version_gone": "The changes since then are no longer kept",
}
