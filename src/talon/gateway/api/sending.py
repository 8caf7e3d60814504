"""Messages: everything that can be wrong is found before the journal is asked, then they are durable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from talon.domain.errors import NotFound
from talon.domain.ids import is_name, is_namespace
from talon.domain.inbox import Creation, Message, Receipt
from talon.domain.session import STRATEGIES, Strategy
from talon.gateway.api.asked import Asked, wrong
from talon.gateway.api.lookup import missing_session, require_agent
from talon.gateway.api.parts import SentContent, check, kept
from talon.gateway.api.sessions import SessionWanted, bare_session_revision, bounded_json, create_session
from talon.gateway.deps import GatewayDeps
from talon.store.protocols import Where

#: How many agents are remembered as such that need no session fields.
BARE_MAX = 1024


class MessageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent: a text, or parts, texts and images in their order."""

    content: SentContent
    strategy: str = "enqueue"
    metadata: dict[str, Any] = {}


class Sending:
    """Accepts messages."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps = deps
        self._bare: dict[tuple[str, str], int] = {}  # agent -> the revision for which a session without fields was right

    async def send(self, where: Where, body: MessageBody, asked: Asked, *, create: bool) -> Receipt:
        """Accept a message; durable when this returns (K1). `create`: make the session if it does not exist.

        Raises `Invalid`, `TooLarge`, `NotFound` (namespace, agent, session), and what `Message.admit` refuses. To be cancelled
        only where nobody minds whether it was accepted: a turn may have been claimed for this process.
        """
        self._check(body)
        if not await self._deps.store.covers(where):
            raise await missing_session(self._deps.store, where)
        content, images = kept(body.content, where[0])
        if images:
            await self._keep(where, images)
        message = Message(
            where=where,
            content=content,
            turn_id=self._deps.ids.uuid7(),
            strategy=cast(Strategy, body.strategy),
            source=asked.source,
            metadata=body.metadata,
            key=asked.key_of((*where, msgspec.structs.replace(body, content=content) if images else body)),
            queue_max=self._deps.settings.queue_max,
            traceparent=asked.traceparent,
        )
        return await self._accept(message, create)

    def _check(self, body: MessageBody) -> None:
        check(body.content, self._deps.settings)
        if body.strategy not in STRATEGIES:
            raise wrong("strategy", f"must be one of {', '.join(STRATEGIES)}", body.strategy)
        if body.metadata:
            bounded_json("metadata", body.metadata, self._deps.settings.metadata_max)

    async def _keep(self, where: Where, images: Mapping[str, bytes]) -> None:
        """Make the images durable, before the message that speaks of them (kernel §4); others are collected later."""
        namespace, agent, _ = where
        await require_agent(self._deps.store, namespace, agent)
        for data in images.values():
            await self._deps.store.put_blob(namespace, data)

    async def _accept(self, message: Message, create: bool) -> Receipt:
        namespace, agent, session = message.where
        if not (is_namespace(namespace) and is_name(agent) and is_name(session)):
            if create and session and not is_name(session):
                await create_session(self._deps, namespace, agent, SessionWanted(id=session))  # says what is wrong with the name
            raise await missing_session(self._deps.store, message.where)
        creation = self._creation(namespace, agent) if create else None
        receipt = await self._try(msgspec.structs.replace(message, creation=creation))
        if receipt is not None:
            return receipt
        if not create:
            raise await missing_session(self._deps.store, message.where)
        if len(self._bare) >= BARE_MAX:
            self._bare.clear()
        self._bare[namespace, agent] = await bare_session_revision(self._deps.store, namespace, agent)
        receipt = await self._try(msgspec.structs.replace(message, creation=self._creation(namespace, agent)))
        if receipt is not None:
            return receipt
        # A session of this name was deleted, or the agent has a new revision since.
        await create_session(self._deps, namespace, agent, SessionWanted(id=session))
        return await self._deliver(message)

    def _creation(self, namespace: str, agent: str) -> Creation | None:
        """How a missing session begins in the transaction that accepts its first message, if that is known to be right."""
        revision = self._bare.get((namespace, agent))
        return None if revision is None else Creation(self._deps.ids.uuid7(), revision)

    async def _try(self, message: Message) -> Receipt | None:
        """Deliver; None if there is no such session."""
        try:
            return await self._deliver(message)
        except NotFound as exc:
            if exc.code != "session_not_found":
                raise
            return None

    async def _deliver(self, message: Message) -> Receipt:
        """Write the message; where this process has a free worker slot, the turn starts in the same commit."""
        deps = self._deps
        offer = await deps.offer(message.where) if deps.offer is not None else None
        if offer is None:
            return await deps.writer.deliver(message)
        taken = False
        try:
            receipt = await deps.writer.deliver(msgspec.structs.replace(message, offer=offer.worker, start=offer.start))
            taken = receipt.claimed is not None and not receipt.replayed
        finally:
            if not taken and deps.declined is not None:
                deps.declined(offer)
        if taken and deps.started is not None:
            deps.started(receipt)
        return receipt
