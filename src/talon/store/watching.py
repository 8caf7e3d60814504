"""How a read of a namespace's changes is answered, the same for both stores."""

from __future__ import annotations

from talon.domain.errors import FieldError, Gone, Invalid
from talon.store.resources import ResourceEvent


def told(
    namespace: str, events: list[ResourceEvent], after: int, limit: int, newest: int, forgotten: int
) -> tuple[list[ResourceEvent], int]:
    """`events` are those of one snapshot with a version > `after`, at most `limit`; -> (them, the version up to which these are
    all).

    Raises `Gone("version_gone")`, `Invalid("version_ahead")`.
    """
    where = f"namespace {namespace!r}" if namespace else "the namespaces"
    if after > newest:
        message = f"is ahead: the newest version of {where} is {newest}"
        raise Invalid(
            "version_ahead",
            f"resource_version {after} {message}; list again, and watch from what the list says",
            (FieldError("resource_version", message, after),),
        )
    if after < forgotten:
        raise Gone(
            "version_gone",
            f"the changes of {where} up to version {forgotten} are no longer kept; list again, and watch from what the list says",
            (FieldError("resource_version", f"must be {forgotten} at least, or list again", after),),
        )
    return events, events[-1].row.version if len(events) >= limit else newest
