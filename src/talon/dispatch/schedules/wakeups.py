"""The message of an occurrence: whom it wakes, what it says, and how it is delivered with the occurrence that it stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from talon.domain.errors import FieldError, Invalid, NotFound
from talon.domain.ids import Ids
from talon.domain.inbox import Creation, Key, Message, Operation, Receipt
from talon.domain.schedules import Firing, Overlap, SchedulePlan
from talon.domain.session import Strategy
from talon.manifest.effective import Effective, decode
from talon.manifest.features import session_feature_errors
from talon.manifest.occurrences import local
from talon.manifest.prompt import SCHEDULED_AT, asks_session, render_message
from talon.manifest.within import unknown_places
from talon.store.model import NewSession
from talon.store.protocols import Store

Agent = tuple[str, str]  # namespace, name
_STRATEGIES: Final[dict[Overlap, Strategy]] = {"queue": "enqueue", "skip": "enqueue", "cancel_running": "interrupt"}
_AT_ONCE = 500


class Wakeups:
    """Sends the messages of schedules. `deliver` commits an operation, with others. Remembers immutable definitions of agents, at
    most `revisions_max` of them."""

    def __init__(
        self,
        store: Store,
        deliver: Callable[[Operation], Awaitable[Receipt]],
        ids: Ids,
        queue_max: int,
        revisions_max: int = 1024,
    ) -> None:
        self._store, self._deliver, self._ids, self._queue_max = store, deliver, ids, queue_max
        self._definitions: dict[tuple[str, str, int], Effective] = {}
        self._revisions_max = revisions_max

    async def agents(self, wanted: Iterable[Agent]) -> dict[Agent, tuple[int, Effective]]:
        """The newest revisions and definitions of those agents that exist: two queries for all."""
        named = sorted(set(wanted))
        newest: dict[Agent, int] = {}
        for start in range(0, len(named), _AT_ONCE):
            identities = [(namespace, "Agent", name) for namespace, name in named[start : start + _AT_ONCE]]
            for row in await self._store.get_resources(identities):
                if row.revision and row.deleting_at_ms is None:
                    newest[row.namespace, row.name] = row.revision
        missing = [(*agent, revision) for agent, revision in newest.items() if (*agent, revision) not in self._definitions]
        if len(self._definitions) + len(missing) > self._revisions_max:
            self._definitions.clear()
            missing = [(*agent, revision) for agent, revision in newest.items()]
        for start in range(0, len(missing), _AT_ONCE):
            for one in await self._store.get_revisions(missing[start : start + _AT_ONCE]):
                self._definitions[one.namespace, one.agent, one.revision] = decode(one.effective)
        return {
            agent: (revision, self._definitions[*agent, revision])
            for agent, revision in newest.items()
            if (*agent, revision) in self._definitions
        }

    async def send(
        self, plan: SchedulePlan, firing: Firing, found: tuple[int, Effective] | None, key: Key | None = None
    ) -> Receipt:
        """Deliver the message of `firing`, which names agent and session; the session is made if it is absent, in the same commit
        if its name is new. `found` is its agent as `agents` gives it. `key` is the requester's own, for a firing by hand.

        Raises `Conflict("firing_superseded")` if the schedule has moved on, `NotFound("agent_not_found")`, `Invalid` when its
        message has a place that the agent does not know, or a session of that agent needs features that nobody gives, and what a
        delivery raises. Then the schedule stays where it is.
        """
        if found is None:
            raise NotFound(
                "agent_not_found",
                f"schedule {firing.name!r} wakes agent {firing.agent!r}, and there is none of that name in namespace "
                f"{firing.namespace!r}; apply it",
            )
        revision, effective = found
        _check_places(plan.message, effective)
        errors = session_feature_errors(effective, {})
        creation = None if errors else Creation(self._ids.uuid7(), revision)
        given = await self._given(plan, firing, effective)
        message = self._message(plan, firing, effective, given, creation, key)
        try:
            return await self._deliver(message)
        except NotFound as error:
            if error.code != "session_not_found":
                raise
        if errors:
            missing = "; ".join(f"{one.field} {one.message}" for one in errors)
            raise Invalid("invalid", f"session {firing.session!r} does not exist and cannot be made: {missing}", errors)
        # One of that name was deleted, or the agent has another revision by now.
        new = NewSession(
            uid=self._ids.uuid7(), namespace=firing.namespace, agent=firing.agent, id=firing.session, key_id=firing.namespace
        )
        await self._store.create_session(new)
        return await self._deliver(msgspec.structs.replace(message, creation=None))

    async def _given(self, plan: SchedulePlan, firing: Firing, effective: Effective) -> dict[str, Any]:
        """The features of the session, if the message asks for one that it may have."""
        if not plan.session or not asks_session(plan.message, effective):
            return {}
        row = await self._store.get_session((firing.namespace, firing.agent, firing.session))
        return {} if row is None else msgspec.json.decode(row.features, type=dict[str, Any])

    def _message(
        self,
        plan: SchedulePlan,
        firing: Firing,
        effective: Effective,
        given: Mapping[str, Any],
        creation: Creation | None,
        key: Key | None,
    ) -> Message:
        occurrence_ms = firing.occurrence_ms or 0
        name = f"{firing.uid}/{occurrence_ms}"
        trace = self._ids.uuid7().replace("-", "")
        at = local(occurrence_ms, plan.timing.timezone)
        return Message(
            where=(firing.namespace, firing.agent, firing.session),
            content=render_message(plan.message, effective, given, at),
            turn_id=self._ids.uuid7(),
            strategy=_STRATEGIES[plan.overlap],
            source="schedule",
            metadata={"schedule": firing.name, "scheduled_at": at},
            key=key or Key("schedule", name, hashlib.sha256(name.encode()).hexdigest()),
            queue_max=self._queue_max,
            traceparent=f"00-{trace}-{trace[16:]}-01",
            creation=creation,
            firing=firing,
        )


def _check_places(message: str, effective: Effective) -> None:
    """Raise `Invalid` if the message has a place that means nothing: an empty one would say something else."""
    unknown = unknown_places(("spec", "inputMessage"), message, effective.declared, SCHEDULED_AT)
    if unknown:
        errors = tuple(FieldError("spec.inputMessage", why, value) for _, why, value in unknown)
        raise Invalid("invalid", f"inputMessage: {'; '.join(one.message for one in errors)}", errors)
