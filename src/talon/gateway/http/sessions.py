"""`…/sessions`: the durable threads around an agent, and what their journals hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from talon.domain.content import IMAGE_TYPES
from talon.domain.errors import AheadOfJournal, Gone
from talon.domain.session import SessionConfig, SessionRow
from talon.gateway.api import shapes
from talon.gateway.api.images import SEQ_MAX, image_of
from talon.gateway.api.lookup import require_session
from talon.gateway.api.parts import PARTS_MAX
from talon.gateway.api.sessions import (
    SessionUpdate,
    SessionWanted,
    change_session,
    create_session,
    delete_session,
    id_of_key,
    list_sessions,
)
from talon.gateway.deps import GatewayDeps
from talon.gateway.events import parse_cursor
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import body_doc, doc
from talon.gateway.http.message import asked_by
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.wire import page, reply

SESSIONS = "/v1/ns/{ns}/agents/{agent}/sessions"
SESSION = SESSIONS + "/{session_id}"
_IMAGES = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES}
Seq = Annotated[int, Path(ge=1, le=SEQ_MAX, description="The message's entry.")]
Number = Annotated[int, Path(ge=0, lt=PARTS_MAX, description="The part of the message, counted from 0.")]


class ConfigFields(Body):
    """What the session wants otherwise than its agent says. A field that is absent is as the agent says."""

    model: str = Field(
        default="", max_length=256, description="The model to ask first: `provider/model`, or a profile's or model's name."
    )
    thinkingLevel: Literal["off", "low", "medium", "high"] | None = Field(  # noqa: N815  as the documents print it
        default=None, description="How much the model thinks before it answers."
    )
    verboseLevel: bool | None = Field(  # noqa: N815  as the documents print it
        default=None, description="Whether the model's visible thoughts are streamed and kept in the journal; absent: they are."
    )

    def config(self) -> SessionConfig:
        """As it is kept."""
        return SessionConfig(self.model, self.thinkingLevel or "", self.verboseLevel)


class SessionFields(Body):
    """A session to create. Without `id` it gets a fresh one."""

    id: str | None = Field(default=None, description="Its name; `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 characters.")
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any], description="Yours; Talon keeps it and reads nothing from it.")
    features: dict[str, Any] = Field(default_factory=dict[str, Any], description="Parameters that the agent's template declares.")
    profile: str = Field(default="", description="Name of the model profile to begin with; empty: the agent's choice.")
    config: ConfigFields = Field(default=ConfigFields(), description="What the session wants otherwise than its agent says.")


class SessionChange(Body):
    """New values of a session's own fields; a field that is absent stays as it is."""

    metadata: dict[str, Any] | None = Field(None, description="Replaces the metadata as a whole.")
    features: dict[str, Any] | None = Field(None, description="Replaces the features as a whole.")
    profile: str | None = Field(None, description="Another model profile, from the next turn on; empty: the agent's choice.")
    config: ConfigFields | None = Field(None, description="Replaces the config as a whole, from the next turn on.")


def router(deps: GatewayDeps) -> APIRouter:
    """The session routes, without the two hot ones (message, stream)."""
    api = APIRouter(tags=["sessions"])
    _collection(api, deps)
    _one(api, deps)
    _read(api, deps)
    _images(api, deps)
    return api


def _collection(api: APIRouter, deps: GatewayDeps) -> None:
    @api.post(
        SESSIONS,
        operation_id="createSession",
        status_code=201,
        summary="Create a session, or get the one of that name",
        responses=doc(
            shapes.Session,
            201,
            200,
            refused=("namespace_not_found", "agent_not_found", "terminating", "invalid", "too_large"),
            links="session",
        ),
        openapi_extra=body_doc(SessionFields, required=False, key=True),
    )
    async def create(ns: str, agent: str, request: Request) -> Response:
        fields = await read_json(request, SessionFields)
        asked = asked_by(request.scope, deps.ids)
        session_id = id_of_key(asked, ns, agent) if fields.id is None else fields.id
        wanted = SessionWanted(session_id, fields.metadata, fields.features, fields.profile, fields.config.config())
        row, created = await create_session(deps, ns, agent, wanted)
        return reply(shapes.session(row), 201 if created else 200, {"Location": _path(row)} if created else None)

    @api.get(
        SESSIONS,
        operation_id="listSessions",
        summary="The sessions of an agent, newest first",
        responses=doc(shapes.Session, 200, listed=True, refused=("agent_not_found", "cursor_invalid")),
    )
    async def sessions(ns: str, agent: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        rows, after = await list_sessions(deps, ns, agent, cursor, limit)
        return page([shapes.session(row) for row in rows], after)


def _one(api: APIRouter, deps: GatewayDeps) -> None:
    store = deps.store

    @api.get(
        SESSION,
        operation_id="getSession",
        summary="One session",
        responses=doc(shapes.Session, 200, refused=("session_not_found",), links="session"),
    )
    async def get(ns: str, agent: str, session_id: str) -> Response:
        return reply(shapes.session(await require_session(store, (ns, agent, session_id))))

    @api.patch(
        SESSION,
        operation_id="changeSession",
        summary="Change metadata, features, profile or config",
        responses=doc(shapes.Session, 200, refused=("session_not_found", "invalid", "too_large"), body=True),
        openapi_extra=body_doc(SessionChange),
    )
    async def change(ns: str, agent: str, session_id: str, request: Request) -> Response:
        fields = await read_json(request, SessionChange)
        config = fields.config.config() if fields.config else None
        wanted = SessionUpdate(fields.metadata, fields.features, fields.profile, config)
        changed = await change_session(deps, (ns, agent, session_id), wanted)
        return reply(shapes.session(changed))

    @api.delete(
        SESSION,
        operation_id="deleteSession",
        status_code=204,
        summary="Cancel its turns and delete a session; its journal is kept as evidence",
        responses=doc(None, 204, refused=("session_not_found",)),
    )
    async def delete(ns: str, agent: str, session_id: str, request: Request) -> Response:
        await delete_session(deps, (ns, agent, session_id), asked_by(request.scope, deps.ids))
        return Response(status_code=204)


def _read(api: APIRouter, deps: GatewayDeps) -> None:
    store = deps.store

    @api.get(
        SESSION + "/journal",
        operation_id="listEntries",
        summary="The journal, oldest first; here an entry's seq is a cursor",
        responses=doc(
            shapes.JournalEntry,
            200,
            listed=True,
            refused=("session_not_found", "session_replaced", "cursor_invalid", "cursor_ahead"),
        ),
    )
    async def journal(ns: str, agent: str, session_id: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        row = await require_session(store, (ns, agent, session_id))
        found = await store.read_entries(row.sid, _after(row, cursor), limit)
        return page([shapes.entry(one) for one in found], str(found[-1].seq) if len(found) == limit else "")

    @api.get(
        SESSION + "/messages",
        operation_id="listMessages",
        summary="What was said, oldest first; here an entry's seq is a cursor",
        responses=doc(
            shapes.ChatMessage,
            200,
            listed=True,
            refused=("session_not_found", "session_replaced", "cursor_invalid", "cursor_ahead"),
        ),
    )
    async def messages(ns: str, agent: str, session_id: str, limit: Limit = 50, cursor: Cursor = "") -> Response:
        row = await require_session(store, (ns, agent, session_id))
        found = await store.read_messages(row.sid, _after(row, cursor), limit)
        return page([shapes.message(one) for one in found], str(found[-1].seq) if len(found) == limit else "")


def _images(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get(
        SESSION + "/messages/{seq}/images/{number}",
        operation_id="getImage",
        summary="An image of a message, as it was sent: the part of that number, counted from 0",
        responses=doc(None, 200, refused=("session_not_found", "image_not_found"), content=_IMAGES),
    )
    async def image(ns: str, agent: str, session_id: str, seq: Seq, number: Number) -> Response:
        found = await image_of(deps, (ns, agent, session_id), seq, number)
        return Response(found.data, media_type=found.media_type, headers={"Cache-Control": "private, max-age=31536000, immutable"})


def _after(row: SessionRow, cursor: str) -> int:
    """A list cursor that is a seq. Raises `Invalid` | `Gone` | `AheadOfJournal`, as a stream does."""
    if not cursor:
        return row.first_seq - 1
    seq = parse_cursor(cursor, "cursor").seq
    if seq > max(row.last_seq, 0):
        raise AheadOfJournal("cursor_ahead", f"session {row.id!r} has no entry {seq} yet; its last one is {row.last_seq}")
    if 0 < seq < row.first_seq:
        raise Gone("session_replaced", f"entry {seq} belongs to an earlier session {row.id!r}; this one begins at {row.first_seq}")
    return max(seq, row.first_seq - 1)


def _path(row: SessionRow) -> str:
    return f"/v1/ns/{row.namespace}/agents/{row.agent}/sessions/{row.id}"
