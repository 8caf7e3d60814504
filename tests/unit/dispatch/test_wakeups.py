"""The message of an occurrence: what its places are filled with."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from support.stores import in_file
from talon.cli.system import SystemIds
from talon.dispatch.schedules.wakeups import Wakeups
from talon.domain.errors import Invalid
from talon.domain.inbox import Message, Operation, Receipt
from talon.domain.schedules import Firing, SchedulePlan, Timing
from talon.manifest.effective import Effective, Feature, Profile
from talon.store.conformance import support as s
from talon.store.model import NewSession
from talon.store.sqlite import SqliteStore

AGENT = Effective(
    s.NAMESPACE,
    s.AGENT,
    "hi",
    (Profile("a", "fake", "x"),),
    declared=(Feature("customer", "string"), Feature("tone", "string"), Feature("days", "number", default=14)),
    features={"tone": "kind"},
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SqliteStore]:
    async with in_file(SqliteStore, tmp_path) as opened:
        await s.ensure_agent(opened)
        yield opened


async def sent(store: SqliteStore, text: str, session: str) -> str:
    """What a firing would tell `session`, which may be a new one."""
    delivered: list[Message] = []

    async def deliver(operation: Operation) -> Receipt:
        assert isinstance(operation, Message)
        delivered.append(operation)
        return Receipt(1, "", 1, operation.turn_id, "enqueue")

    plan = SchedulePlan(Timing("every", every_ms=1000), s.AGENT, session, text)
    firing = Firing("uid", s.NAMESPACE, "one", 1, 0, 0, 0, None, agent=s.AGENT, session=session or "one-19700101t000000z")
    await Wakeups(store, deliver, SystemIds(), 100).send(plan, firing, (1, AGENT))
    content = delivered[0].content
    assert isinstance(content, str)
    return content


async def test_places_are_the_agents_features_with_the_sessions_values(store: SqliteStore) -> None:
    text = "{{ customer }}, {{ days }} days, {{ tone }}, {{ scheduled_at }}, \\{{ customer }}"
    given = b'{"customer":"globex","days":3,"tone":"stern"}'
    await store.create_session(NewSession(s.fresh_id(), s.NAMESPACE, s.AGENT, "renewals", features=given))
    assert await sent(store, text, "renewals") == "globex, 3 days, kind, 1970-01-01T00:00:00+00:00, {{ customer }}"
    for fresh in ("not-there-yet", ""):
        assert await sent(store, text, fresh) == ", 14 days, kind, 1970-01-01T00:00:00+00:00, {{ customer }}"


async def test_a_place_that_the_agent_does_not_know_any_more_is_told_and_not_left_empty(store: SqliteStore) -> None:
    with pytest.raises(Invalid, match=r"inputMessage: place \{\{ costumer \}\} names no declared feature; did you mean 'customer'"):
        await sent(store, "Review {{ costumer }}", "renewals")
