"""The one table of who may do what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.access.roles import ALLOWED, LOCAL, ROLES, VERBS, Grant, Principal, covers, may, narrower, sees
from talon.gateway.api.table import TABLE

PARTS = st.lists(st.sampled_from(["acme", "eu", "us", "acmex", "a"]), min_size=1, max_size=4)


def who(role: str, namespace: str, agent: str = "", session: str = "") -> Principal:
    return Principal("key:1", (Grant(role, namespace),), agent, session)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("granted", "namespace", "reached"),
    [
        ("acme", "acme", True),
        ("acme", "acme:eu", True),
        ("acme", "acmex", False),
        ("acme:eu", "acme", False),
        ("acme:eu", "acme:europe", False),
        ("*", "anything", True),
        ("*", "", True),
        ("acme", "", False),
    ],
)
def test_a_grant_reaches_its_namespace_and_those_below_it_by_segment(granted: str, namespace: str, reached: bool) -> None:
    assert covers(granted, namespace) is reached


@given(PARTS, PARTS)
def test_a_grant_reaches_exactly_the_namespaces_that_begin_with_its_segments(granted: list[str], namespace: list[str]) -> None:
    assert covers(":".join(granted), ":".join(namespace)) is (namespace[: len(granted)] == granted)


@pytest.mark.parametrize("verb", VERBS)
def test_only_an_admin_may_do_everything_and_everybody_may_do_what_a_viewer_may(verb: str) -> None:
    allowed = {role for role in ROLES if may(who(role, "acme"), verb, "acme")}  # type: ignore[arg-type]
    assert "admin" in allowed
    assert ("viewer" not in allowed) or allowed == set(ROLES)
    assert may(LOCAL, verb, "anywhere")  # type: ignore[arg-type]


def test_every_verb_is_one_that_some_operation_asks_for() -> None:
    assert {row.verb for row in TABLE.values()} - {None} == set(VERBS)


def test_what_no_grant_covers_is_not_seen() -> None:
    assert sees(who("viewer", "acme"), "acme:eu")
    assert not sees(who("admin", "acme:eu"), "acme")
    assert not sees(who("admin", "acme"), "other")


def test_a_clients_token_reaches_its_own_session_and_nothing_else() -> None:
    client = who("admin", "acme", "support", "one")
    assert may(client, "sessions.write", "acme", "support", "one")
    assert not may(client, "sessions.write", "acme", "support", "two")
    assert not may(client, "sessions.read", "acme", "other", "one")
    assert not may(client, "sessions.read", "acme")
    assert not may(client, "resources.read", "acme", "support", "one")
    assert not may(client, "approvals.resolve", "acme", "support", "one")


def test_an_agents_token_may_list_the_sessions_of_its_agent_and_no_others() -> None:
    client = who("operator", "acme", "support")
    assert may(client, "sessions.read", "acme", "support")
    assert may(client, "sessions.write", "acme", "support", "any")
    assert not may(client, "sessions.read", "acme", "other")


@given(
    st.sampled_from(ROLES),
    st.sampled_from(["acme", "acme:eu", "*"]),
    st.sampled_from(ROLES),
    st.sampled_from(["acme", "acme:eu", "b"]),
)
def test_nobody_hands_on_what_he_does_not_have(mine: str, here: str, wanted: str, there: str) -> None:
    minter = who(mine, here)
    grant = Grant(wanted, there)  # type: ignore[arg-type]
    given_on = Principal("token:1", (grant,))
    wider = any(may(given_on, verb, there) and not may(minter, verb, there) for verb in ALLOWED[grant.role])
    assert narrower(grant, minter) is not wider
