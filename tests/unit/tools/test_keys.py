"""The idempotency key of a call (K5)."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from talon.tools.keys import idempotency_key

UID = "0198c0de-0000-7000-8000-000000000001"
calls = st.tuples(st.uuids().map(str), st.integers(min_value=1, max_value=2**63 - 1))


def test_a_key_never_changes_between_releases() -> None:
    """A call that started under one release may be finished under the next, which must use the same key."""
    assert idempotency_key(UID, 7) == "tk_Atp5fUDRUXBy-xpb-gdnscsz3tXhpfpRpIGcClzbMZ8"


@given(calls)
def test_a_key_is_short_and_safe_in_a_header_and_a_url(call: tuple[str, int]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", idempotency_key(*call))


@given(calls, calls)
def test_two_calls_never_share_a_key(one: tuple[str, int], other: tuple[str, int]) -> None:
    assert (idempotency_key(*one) == idempotency_key(*other)) == (one == other)


def test_the_parts_of_a_key_cannot_run_into_each_other() -> None:
    assert idempotency_key("a1", 2) != idempotency_key("a", 12)
