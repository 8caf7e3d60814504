"""Events from bytes, wherever the network cuts them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.cli.sse import Event, Parser

TEXT = (
    ': hello\nretry: 1000\n\nid: 1\nevent: a\ndata: {"seq": 1, "payload": {"t": "grün"}}\n\n'
    ': heartbeat\n\nid: 2.5\r\nevent: text.delta\r\ndata: {"seq":\r\ndata: 2}\r\n\r\n'
    'id: 3\nevent: empty\n\nevent: b\ndata:{"seq": 4}\n\n'
).encode()
EVENTS = [
    Event("1", "a", {"seq": 1, "payload": {"t": "grün"}}),
    Event("2.5", "text.delta", {"seq": 2}),
    Event("3", "b", {"seq": 4}),  # an event without an id keeps the last one, which is where to resume
]


@given(st.lists(st.integers(0, len(TEXT)), max_size=40))
def test_the_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    parser, found = Parser(), list[Event]()
    edges = [0, *sorted(cuts), len(TEXT)]
    for start, end in pairwise(edges):
        found += parser.feed(TEXT[start:end])
    assert found == EVENTS


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no object"):
        Parser().feed(b"data: [1]\n\n")
    with pytest.raises(json.JSONDecodeError):
        Parser().feed(b"data: {\n\n")


def test_an_event_without_payload_or_turn_has_empty_ones() -> None:
    event = Event("1", "x", {"seq": "7"})
    assert (event.seq, event.turn_id, event.payload) == (7, "", {})
