"""Rows as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from talon.domain.session import ApprovalRow, LoopState, SessionConfig, SessionRow, TurnRow
from talon.gateway.api import shapes
from talon.manifest.diff import FieldChange
from talon.manifest.state import Result
from talon.v1 import talon_pb2 as pb

_decode_config = msgspec.json.Decoder(SessionConfig).decode


def timestamp(unix_ms: int | None) -> Timestamp | None:
    """Unix milliseconds as a message; None for a time that has not come yet."""
    if unix_ms is None:
        return None
    seconds, ms = divmod(unix_ms, 1000)
    return Timestamp(seconds=seconds, nanos=ms * 1_000_000)


def session(row: SessionRow) -> pb.Session:
    """A row as it is shown."""
    shown = shapes.session(row)
    return pb.Session(
        id=shown.id,
        uid=shown.uid,
        namespace=shown.namespace,
        agent=shown.agent,
        status=shown.status,
        state=shown.state,
        turn_id=shown.turn_id or "",
        queued=shown.queued,
        last_seq=shown.last_seq,
        metadata_json=bytes(shown.metadata).decode(),
        features_json=bytes(shown.features).decode(),
        profile=shown.profile,
        config=_config(row.config),
        created_at=timestamp(row.created_at_ms),
        updated_at=timestamp(row.updated_at_ms),
    )


def _config(data: bytes) -> pb.SessionConfig:
    given = _decode_config(data or b"{}")
    return pb.SessionConfig(model=given.model, thinking_level=given.thinking_level, verbose_level=given.verbose_level)


def turn(row: TurnRow, session_id: str) -> pb.Turn:
    """A row as it is shown."""
    return pb.Turn(
        turn_id=row.turn_id,
        session_id=session_id,
        state=row.state,
        strategy=row.strategy,
        source=row.source,
        seq=row.seq,
        revision=row.revision,
        attempts=row.attempts,
        reason=row.reason,
        waiting_for=row.waiting_for,
        loop=_loop(shapes.loop_state(row)),
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        created_at=timestamp(row.created_at_ms),
        started_at=timestamp(row.started_at_ms),
        ended_at=timestamp(row.ended_at_ms),
    )


def _loop(state: LoopState) -> pb.LoopState:
    return pb.LoopState(
        phase=state.phase,
        iteration=state.iteration,
        max_iterations=state.max_iterations,
        goal=state.goal,
        pending=state.pending,
        completed=state.completed,
        total_tokens_used=state.total_tokens_used,
        total_cost=state.total_cost,
    )


def approval(row: ApprovalRow, owner: SessionRow) -> pb.Approval:
    """A row, with the session that asks, as it is shown."""
    shown = shapes.approval(row, owner)
    return pb.Approval(
        id=shown.id,
        namespace=shown.namespace,
        agent=shown.agent,
        session_id=shown.session_id,
        turn_id=shown.turn_id,
        kind=shown.kind,
        state=shown.state,
        name=shown.name,
        call=shown.call,
        arguments=shown.arguments,
        arguments_sha256=shown.arguments_sha256,
        outcome=shown.outcome,
        resolved_by=shown.resolved_by,
        created_at=timestamp(row.created_at_ms),
        resolved_at=timestamp(row.resolved_at_ms),
    )


def resource(manifest: Mapping[str, Any], text: bytes | None = None) -> pb.Resource:
    """A shown manifest; `text` is it as JSON, if that is there already."""
    metadata = manifest["metadata"]
    return pb.Resource(
        kind=manifest["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        manifest_json=(msgspec.json.encode(manifest) if text is None else text).decode(),
    )


def applied(result: Result) -> pb.AppliedItem:
    """What an apply does to one resource."""
    return pb.AppliedItem(
        document=result.document,
        kind=result.kind,
        namespace=result.namespace,
        name=result.name,
        action=result.action,
        changes=[_change(one) for one in result.changes],
        cause=result.cause,
        fires=[pb.FireTime(at=one.at, local=one.local) for one in result.fires],
    )


def _change(change: FieldChange) -> pb.FieldChange:
    return pb.FieldChange(field=change.field, before_json=_json(change.before), after_json=_json(change.after))


def _json(value: Any) -> str:
    return "" if value is msgspec.UNSET else msgspec.json.encode(value).decode()
