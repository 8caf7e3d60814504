"""The wakeups that agents make for their own sessions: schedules as all others, marked with whom they belong to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from talon.domain.errors import Conflict, FieldError, Invalid
from talon.domain.ids import is_name
from talon.domain.resources import Requirement
from talon.domain.schedules import Owner, decode_plan
from talon.gateway.deleting import Deletions
from talon.gateway.resources import Resources
from talon.manifest.fields import duration_ms
from talon.manifest.occurrences import local
from talon.manifest.parse import parse
from talon.manifest.read import Reading, read
from talon.store.protocols import Store, Where
from talon.store.resources import ResourceRow
from talon.store.sight import seeing

AGENT_LABEL, SESSION_LABEL = "talon.dev/wakeup-agent", "talon.dev/wakeup-session"
EVERY_MIN_MS = 60_000
#: What an agent writes is no template.
_PLACE, _LITERAL = "{{", "\\{{"


class SessionWakeups:
    """`talon.tools.builtin.wakeups.Wakeups` on schedules. A session has at most `most` of them."""

    def __init__(self, store: Store, resources: Resources, deletions: Deletions, most: int) -> None:
        self._store, self._resources, self._deletions, self._most = store, resources, deletions, most
        self._making: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    async def create(self, owner: Owner, spec: Mapping[str, Any]) -> dict[str, Any]:
        """See the Protocol. One at a time for each session: a session runs in one process, so its bound is kept."""
        name = f"wakeup-{hashlib.sha256(owner.key.encode()).hexdigest()[:20]}"
        place = (owner.namespace, owner.agent, owner.session)
        lock = self._making.get(place) or self._making.setdefault(place, asyncio.Lock())
        async with lock:
            rows = await self._rows(owner)
            if all(row.name != name for row in rows):
                if len(rows) >= self._most and not await self._forget_one_that_is_over(owner, rows):
                    raise Invalid("invalid", f"this conversation has {len(rows)} wakeups, the most there may be; cancel one")
                with _in_the_words_of_the_tool():
                    await self._resources.apply(_manifest(name, owner, spec))
        return next((one for one in await self.list(owner) if one["name"] == name), {"name": name})

    async def list(self, owner: Owner) -> list[dict[str, Any]]:
        """See the Protocol."""
        rows = await self._rows(owner)
        standing = {row.uid: row for row in await self._store.get_schedules([row.uid for row in rows])}
        shown: list[dict[str, Any]] = []
        for row in rows:
            stands = standing.get(row.uid)
            if stands is not None:
                plan = decode_plan(stands.plan)
                at = None if stands.occurrence_ms is None else local(stands.occurrence_ms, plan.timing.timezone)
                shown.append({"name": row.name, "next": at, "message": plan.message.replace(_LITERAL, _PLACE)})
        return shown

    async def cancel(self, owner: Owner, name: str) -> bool:
        """See the Protocol."""

        return is_name(name) and await _delete(self._deletions, lambda: self._rows(owner), name)

    async def _forget_one_that_is_over(self, owner: Owner, rows: Sequence[ResourceRow]) -> bool:
        """Make room: what has fired for the last time stays only as long as nobody needs its place."""
        standing = {row.uid: row for row in await self._store.get_schedules([row.uid for row in rows])}
        over = [
            row for row in rows if row.uid in standing and standing[row.uid].enabled and standing[row.uid].occurrence_ms is None
        ]
        oldest = min(over, key=lambda row: row.created_at_ms, default=None)
        return oldest is not None and await _delete(self._deletions, lambda: self._rows(owner), oldest.name)

    async def _rows(self, owner: Owner) -> list[ResourceRow]:
        return await _made_by(self._store, (owner.namespace, owner.agent, owner.session))


async def forget(store: Store, deletions: Deletions, where: Where) -> None:
    """Remove the wakeups that a session made for itself, when it is deleted: else the next of them would begin it anew."""
    with seeing(None):
        for row in await _made_by(store, where):
            await _delete(deletions, lambda: _made_by(store, where), row.name)


async def _made_by(store: Store, where: Where) -> list[ResourceRow]:
    namespace, agent, session = where
    mine = (Requirement(AGENT_LABEL, "in", (agent,)), Requirement(SESSION_LABEL, "in", (session,)))
    found: list[ResourceRow] = []
    cursor = ""
    while True:
        rows, cursor = await store.list_resources(namespace, "Schedule", cursor, 100, mine)
        found += rows
        if not cursor:
            return found


async def _delete(deletions: Deletions, rows: Callable[[], Awaitable[list[ResourceRow]]], name: str) -> bool:
    """Delete that one of `rows`, whoever else does at the same moment; -> whether it was there."""

    async def find() -> list[ResourceRow]:
        return [row for row in await rows() if row.name == name]

    if not await find():
        return False
    try:
        await deletions.delete(find, lambda _: None, cascade=False)
    except Conflict:
        if await find():
            raise
    return True


@contextlib.contextmanager
def _in_the_words_of_the_tool() -> Generator[None]:
    """The agent gave arguments and knows of no manifest: fields are told as it named them."""
    try:
        yield
    except Invalid as error:
        fields = tuple(
            FieldError(one.field.removeprefix("spec."), one.message.removeprefix("document 1: "), one.value) for one in error.errors
        )
        raise Invalid(error.code, "; ".join(f"{one.field}: {one.message}" for one in fields) or error.detail, fields) from None


def _manifest(name: str, owner: Owner, spec: Mapping[str, Any]) -> Reading:
    """The schedule that wakes the owner's session. Raises `Invalid`."""
    kind = next(one for one in ("at", "every", "cron") if one in spec)
    when = {key: spec[key] for key in (kind, "timezone", "until") if key in spec}
    body = {
        "apiVersion": "talon.dev/v1alpha1",
        "kind": "Schedule",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": {AGENT_LABEL: owner.agent, SESSION_LABEL: owner.session},
        },
        "spec": {
            "kind": kind,
            **when,
            "target": {"agent": owner.agent, "sessionMode": "named", "sessionId": owner.session},
            "inputMessage": spec["message"].replace(_PLACE, _LITERAL),
            "historyLimit": 10,
        },
    }
    reading = read(parse(msgspec.json.encode(body), "json"))
    if not reading.errors and kind == "every" and duration_ms(spec["every"]) < EVERY_MIN_MS:
        message = "must be at least a minute"
        raise Invalid("invalid", f"every {message}", (FieldError("every", message, spec["every"]),))
    return reading
