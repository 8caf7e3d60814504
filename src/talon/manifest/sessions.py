"""Sessions in manifests: whether one fits its agent, what is created for it, and what differs from the one that exists."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from talon.domain.entries import MessageCompleted, MessageReceived, NewEntry, new_entry
from talon.domain.session import SessionConfig as Config
from talon.domain.session import SessionRow
from talon.manifest.agents import HistoryMessage, SessionSpec
from talon.manifest.diff import changes
from talon.manifest.document import Complaint
from talon.manifest.effective import Effective
from talon.manifest.features import check_session_features
from talon.manifest.resolve import unknown_profile
from talon.manifest.state import PlannedSession

#: `metadata` and `features` of a session, as JSON bytes, each.
DATA_MAX: Final = 64 * 1024


def wrong_session(spec: SessionSpec, effective: Effective) -> list[Complaint]:
    """What keeps a session from being one of the agent: features, profile, sizes. Paths are those of `spec`."""
    wrong: list[Complaint] = [
        (("features", name), text, value) for name, text, value in check_session_features(effective, spec.features)
    ]
    if spec.profile and (reason := unknown_profile(effective.profiles, spec.profile)):
        wrong.append((("profile",), reason, spec.profile))
    for field in ("metadata", "features"):
        size = len(msgspec.json.encode(getattr(spec, field)))
        if size > DATA_MAX:
            wrong.append(((field,), f"takes {size} bytes as JSON; at most {DATA_MAX}", None))
    return wrong


def planned_session(spec: SessionSpec, namespace: str, name: str) -> PlannedSession:
    """The session to create."""
    return PlannedSession(
        namespace,
        spec.agent,
        name,
        msgspec.json.encode(spec.metadata),
        msgspec.json.encode(spec.features),
        spec.profile or "",
        tuple(_imported(message) for message in spec.messages),
        msgspec.json.encode(_config(spec)),
    )


def _config(spec: SessionSpec) -> Config:
    written = spec.config
    if written is None:
        return Config()
    return Config(written.model or "", written.thinking_level or "", written.verbose_level)


def differs(spec: SessionSpec, row: SessionRow) -> list[Complaint]:
    """Where the manifest of a session that exists says something else than the session is: an apply creates, it does not change.

    Messages are not compared: the session has had others since.
    """
    route = f"PATCH /v1/ns/{row.namespace}/agents/{row.agent}/sessions/{row.id}"
    stored: dict[str, Any] = {
        "metadata": msgspec.json.decode(row.metadata),
        "features": msgspec.json.decode(row.features),
        "profile": row.profile,
        "config": msgspec.json.decode(row.config),
    }
    wanted: dict[str, Any] = {
        "metadata": spec.metadata,
        "features": spec.features,
        "profile": spec.profile or "",
        "config": msgspec.to_builtins(_config(spec)),
    }
    wrong: list[Complaint] = []
    for field, now in wanted.items():
        differing = [change.field or field for change in changes(stored[field], now)]
        if differing:
            which = ", ".join(differing)
            message = f"differs from that of the session, which exists ({which}); apply creates sessions, {route} changes them"
            wrong.append(((field,), message, None))
    return wrong


def _imported(message: HistoryMessage) -> NewEntry:
    if message.role == "user":
        return new_entry(MessageReceived(content=message.content, source="import", imported=True))
    return new_entry(MessageCompleted(content=message.content, imported=True))
