"""`talon.v1.Sessions` and `talon.v1.Approvals`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from talon.domain.session import SessionConfig
from talon.gateway.api.approvals import Outcome, list_approvals, require_approval, resolve_approval
from talon.gateway.api.asked import wrong
from talon.gateway.api.images import image_of
from talon.gateway.api.lookup import require_session
from talon.gateway.api.parts import SentContent, SentImage, SentPart, SentText
from talon.gateway.api.permits import At
from talon.gateway.api.sending import MessageBody, Sending
from talon.gateway.api.sessions import SessionWanted, create_session, id_of_key, list_sessions
from talon.gateway.api.turns import cancel_turn, current_turn
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc import shapes
from talon.gateway.grpc.call import Call, Method, limit_of, object_of
from talon.gateway.grpc.streams import Streaming
from talon.store.protocols import Where
from talon.v1 import talon_pb2 as pb

MODEL_LENGTH_MAX = 256


def sessions(deps: GatewayDeps) -> Mapping[str, Method]:
    """The methods of `Sessions`."""
    served, streaming = Sessions(deps), Streaming(deps)
    return {
        "Create": Method(("createSession",), pb.CreateSessionRequest, _at_agent, served.create, changes=True),
        "Get": Method(("getSession",), pb.SessionRef, _at, served.get),
        "List": Method(("listSessions",), pb.ListSessionsRequest, _at_agent, served.list),
        "Send": Method(("sendMessage",), pb.SendRequest, _at_session, served.send, changes=True),
        "GetImage": Method(("getImage",), pb.ImageRef, _at_session, served.image),
        "Stream": Method(("streamSession",), pb.StreamRequest, _at_session, streaming.stream, streams=True),
        "Cancel": Method(("cancelTurn",), pb.CancelRequest, _at_session, served.cancel, changes=True),
        "State": Method(("getLoopState",), pb.SessionRef, _at, served.state),
    }


def approvals(deps: GatewayDeps) -> Mapping[str, Method]:
    """The methods of `Approvals`."""
    served = Approvals(deps)
    return {
        "Get": Method(("getApproval",), pb.ApprovalRef, _at_namespace, served.get),
        "List": Method(("listApprovals",), pb.ListApprovalsRequest, _at_namespace, served.list),
        "Resolve": Method(("resolveApproval",), pb.ResolveRequest, _at_namespace, served.resolve, changes=True),
    }


def where_of(ref: pb.SessionRef) -> Where:
    """The session that a message names."""
    return ref.namespace, ref.agent, ref.session_id


def content_of(message: pb.SendRequest) -> SentContent:
    """What is sent. Raises `Invalid` for a message of both a text and parts, or with a part of nothing."""
    if not message.parts:
        return message.content
    if message.content:
        raise wrong("content", "stands beside `parts`: a message is a text or parts, and a text may be one of these")
    return tuple(_part(number, part) for number, part in enumerate(message.parts))


def _part(number: int, part: pb.ContentPart) -> SentPart:
    match part.WhichOneof("part"):
        case "text":
            return SentText(part.text)
        case "image":
            return SentImage(part.image.media_type, part.image.data)
        case _:
            raise wrong(f"content[{number}]", "is neither a text nor an image")


def config_of(message: pb.SessionConfig) -> SessionConfig:
    """Raises `Invalid` for what is no config."""
    given: dict[str, Any] = {"model": message.model, "thinkingLevel": message.thinking_level}
    if message.HasField("verbose_level"):
        given["verboseLevel"] = message.verbose_level
    if len(message.model) > MODEL_LENGTH_MAX:
        raise wrong("config.model", f"has {len(message.model)} characters, it may have {MODEL_LENGTH_MAX}")
    try:
        return msgspec.convert(given, SessionConfig)
    except msgspec.ValidationError:
        raise wrong("config.thinkingLevel", "must be off, low, medium or high", message.thinking_level[:80]) from None


def _at(ref: pb.SessionRef) -> At:
    return At(*where_of(ref))


def _at_session(message: pb.SendRequest | pb.ImageRef | pb.StreamRequest | pb.CancelRequest) -> At:
    return _at(message.session)


def _at_agent(message: pb.CreateSessionRequest | pb.ListSessionsRequest) -> At:
    return At(message.namespace, message.agent)


def _at_namespace(message: pb.ApprovalRef | pb.ListApprovalsRequest | pb.ResolveRequest) -> At:
    return At(message.namespace)


class Sessions:
    """What is answered; all but streams."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps, self._sending = deps, Sending(deps)

    async def create(self, call: Call, message: pb.CreateSessionRequest) -> pb.Session:
        """`createSession`."""
        asked = call.asked(message.idempotency_key)
        session_id = message.session_id or id_of_key(asked, message.namespace, message.agent)
        wanted = SessionWanted(
            session_id,
            object_of("metadata_json", message.metadata_json),
            object_of("features_json", message.features_json),
            message.profile,
            config_of(message.config),
        )
        row, _ = await create_session(self._deps, message.namespace, message.agent, wanted)
        return shapes.session(row)

    async def get(self, call: Call, message: pb.SessionRef) -> pb.Session:
        """`getSession`."""
        return shapes.session(await require_session(self._deps.store, where_of(message)))

    async def list(self, call: Call, message: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        """`listSessions`."""
        limit = limit_of(message.limit, self._deps.settings.page_max)
        rows, after = await list_sessions(self._deps, message.namespace, message.agent, message.cursor, limit)
        return pb.ListSessionsResponse(items=[shapes.session(row) for row in rows], next_cursor=after)

    async def send(self, call: Call, message: pb.SendRequest) -> pb.SendResponse:
        """`sendMessage`."""
        body = MessageBody(content_of(message), message.strategy or "enqueue", object_of("metadata_json", message.metadata_json))
        receipt = await self._sending.send(
            where_of(message.session), body, call.asked(message.idempotency_key), create=message.create
        )
        return pb.SendResponse(
            session_id=message.session.session_id,
            turn_id=receipt.turn_id,
            seq=receipt.seq,
            strategy=receipt.strategy,
            replayed=receipt.replayed,
        )

    async def image(self, call: Call, message: pb.ImageRef) -> pb.ContentImage:
        """`getImage`."""
        found = await image_of(self._deps, where_of(message.session), message.seq, message.number)
        return pb.ContentImage(media_type=found.media_type, data=found.data)

    async def cancel(self, call: Call, message: pb.CancelRequest) -> pb.Turn:
        """`cancelTurn`."""
        asked = call.asked(message.idempotency_key)
        session, turn = await cancel_turn(self._deps, where_of(message.session), message.turn_id, asked)
        return shapes.turn(turn, session.id)

    async def state(self, call: Call, message: pb.SessionRef) -> pb.SessionState:
        """`getLoopState`, with the session and the turn."""
        session, turn = await current_turn(self._deps, where_of(message))
        shown = pb.SessionState(session=shapes.session(session))
        if turn is not None:
            shown.turn.CopyFrom(shapes.turn(turn, session.id))
        return shown


class Approvals:
    """What is answered."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps = deps

    async def get(self, call: Call, message: pb.ApprovalRef) -> pb.Approval:
        """`getApproval`."""
        return shapes.approval(*await require_approval(self._deps, message.namespace, message.id, call.who))

    async def list(self, call: Call, message: pb.ListApprovalsRequest) -> pb.ListApprovalsResponse:
        """`listApprovals`."""
        limit = limit_of(message.limit, self._deps.settings.page_max)
        found, after = await list_approvals(self._deps, message.namespace, message.state, message.cursor, limit)
        return pb.ListApprovalsResponse(items=[shapes.approval(*one) for one in found], next_cursor=after)

    async def resolve(self, call: Call, message: pb.ResolveRequest) -> pb.Approval:
        """`resolveApproval`."""
        said = Outcome(message.outcome, message.result if message.HasField("result") else None, message.note)
        asked = call.asked(message.idempotency_key)
        return shapes.approval(*await resolve_approval(self._deps, message.namespace, message.id, said, asked))
