"""Columns to structs and back. A struct's fields are its table's columns, in any order that the struct has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from talon.domain.session import ApprovalRow, SessionRow, TurnRow
from talon.store.model import WorkerRow
from talon.store.postgres.driver import Row
from talon.store.resources import ResourceRow, RevisionRow

#: The database's clock in Unix milliseconds: when the statement came in. Never `now()`, which is when its transaction began.
NOW_MS = "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint"


def columns(struct: type[msgspec.Struct], alias: str) -> str:
    """`alias.field, …` for all fields of a row struct."""
    return ", ".join(f"{alias}.{field}" for field in struct.__struct_fields__)


SESSION = columns(SessionRow, "s")
TURN = columns(TurnRow, "t")
APPROVAL = columns(ApprovalRow, "a")
RESOURCE = columns(ResourceRow, "r")
REVISION = columns(RevisionRow, "v")
WORKER = columns(WorkerRow, "w")
_SESSION_WIDTH = len(SessionRow.__struct_fields__)
_TURN_WIDTH = len(TurnRow.__struct_fields__)
_APPROVAL_WIDTH = len(ApprovalRow.__struct_fields__)


def session_row(row: Row, start: int = 0) -> SessionRow:
    """A session from the columns `SESSION`, the first of them at `start`."""
    return SessionRow(*tuple(row)[start : start + _SESSION_WIDTH])


def turn_row(row: Row, start: int = 0) -> TurnRow:
    """A turn from the columns `TURN`."""
    return TurnRow(*tuple(row)[start : start + _TURN_WIDTH])


def approval_row(row: Row, start: int = 0) -> ApprovalRow:
    """An approval from the columns `APPROVAL`."""
    return ApprovalRow(*tuple(row)[start : start + _APPROVAL_WIDTH])


def transpose(rows: Iterable[Sequence[object]], width: int) -> list[list[object]]:
    """Rows to arrays, one per column, for `unnest`; `width` of them also when there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
