"""Decoding events that came together gives what decoding each by itself gives."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.providers.decoding import Decoding, Unreadable, text_of


class Event(msgspec.Struct):
    n: int = 0
    text: str = ""


EVENTS = Decoding(Event)
_EVENTS = st.sampled_from(
    [
        b'{"n":1}',
        b'{"text":"w\xc3\xb6rd"}',
        b'{"n":\n2}',  # the lines of one event
        b"",
        b"  ",
        b'{"n":"1"}',  # of another type
        b'{"n":',  # cut
        b'{"text":"\xff"}',
        b"[DONE]",
    ]
)


@given(st.lists(_EVENTS, min_size=1, max_size=6))
def test_what_comes_together_is_what_comes_one_by_one(events: list[bytes]) -> None:
    expected: list[Event] = []
    wrong: bytes | None = None
    for event in events:
        try:
            expected += EVENTS.each([event])
        except Unreadable as error:
            wrong = error.event
            break
    found: list[Event] = []
    if wrong is None:
        found += EVENTS.each(events)
    else:
        with pytest.raises(Unreadable) as caught:
            found.extend(EVENTS.each(events))
        assert caught.value.event == wrong
    assert found == expected, "also what came before the one that cannot be read"


def test_two_values_in_one_event_are_not_two_events() -> None:
    with pytest.raises(Unreadable):
        list(EVENTS.each([b'{"n":1}', b'{"n":3}{"n":4}']))


def test_text_that_was_kept_undecoded_is_checked_when_it_is_read() -> None:
    raw = msgspec.json.decode(b'{"a":{"b":"\xff"}}', type=dict[str, msgspec.Raw])["a"]
    with pytest.raises(Unreadable):
        text_of(raw)
