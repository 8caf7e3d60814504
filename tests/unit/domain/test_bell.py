"""Bells on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.domain.bell import EVERYTHING, WIRE_MAX, Bell, decode, encode

seqs = st.integers(0, 2**63 - 1)
names = st.from_regex(r"([a-z0-9]{1,9}(:[a-z0-9]{1,9})?)?", fullmatch=True)
bells = st.builds(
    Bell, st.booleans(), st.lists(st.tuples(seqs, seqs), max_size=20).map(tuple), st.lists(names, max_size=9).map(tuple)
)


@given(bells)
def test_a_bell_comes_back_as_it_was_written(bell: Bell) -> None:
    assert decode(encode(bell)) == bell


@given(st.text())
def test_any_text_is_some_bell(text: str) -> None:
    assert isinstance(decode(text), Bell)


@pytest.mark.parametrize("text", ["*", "x", "r 1", "1:2:3", "1:", ":1", "-1:2", "r 1:2 what"])
def test_what_cannot_be_read_means_look_at_everything(text: str) -> None:
    assert decode(text) == EVERYTHING


def test_a_bell_never_exceeds_what_notify_takes() -> None:
    for count in (1, 100, 1_000, 10_000):
        text = encode(Bell(True, tuple((sid, 10**9) for sid in range(count))))
        assert len(text) <= WIRE_MAX
        assert decode(text) == EVERYTHING or len(decode(text).tails) == count
    assert decode(encode(Bell(True, tuple((sid, 1) for sid in range(10_000))))) == EVERYTHING


def test_a_bell_is_true_when_it_says_something() -> None:
    assert not Bell()
    assert all([Bell(runnable=True), Bell(tails=((1, 0),)), Bell(namespaces=("",)), EVERYTHING])
