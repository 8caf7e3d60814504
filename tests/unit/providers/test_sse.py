"""The event-stream parser: what it gives does not depend on how the bytes were cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.providers.dialect import FrameError
from talon.providers.sse import SseParser


def parse(*chunks: bytes, line_max: int = 1000) -> list[bytes]:
    parser = SseParser(line_max)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),  # mixed line ends
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),  # only one blank belongs to the field
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b": a comment\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\n\ndata: a\n\n", [b"a"]),
        (b"event: x\ndata: a\nid: 7\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"database: a\n\n", []),
        (b"\n\n\n", []),
        (b"data: never closed\n", []),
    ],
)
def test_a_stream_is_read_as_the_format_says(stream: bytes, events: list[bytes]) -> None:
    assert parse(stream) == events


_PIECES = st.sampled_from(
    [
        b"data: x\n\n",
        b"event: e\ndata: x\n\n",
        b"data: ",
        b"data:",
        b"x",
        "é😀".encode(),
        b": note",
        b"event: e",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"[DONE]",
        b" ",
    ]
)


@given(st.lists(_PIECES, max_size=40), st.lists(st.integers(0, 200), max_size=12))
def test_the_events_do_not_depend_on_where_the_stream_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[a:b] for a, b in itertools.pairwise(places)]
    whole, cut, bytewise = SseParser(10_000), SseParser(10_000), SseParser(10_000)
    expected = list(whole.feed(stream))
    assert [e for chunk in chunks for e in cut.feed(chunk)] == expected
    assert [e for n in range(len(stream)) for e in bytewise.feed(stream[n : n + 1])] == expected
    assert whole.rest() == cut.rest() == bytewise.rest()


_PLAIN = [b"data: x\n\n", b"data: {}\n\n", b"event: e\ndata: x\n\n", b"event: other\ndata: event: e\n\n", b"event: e\ndata: \n\n"]
_ODD = [
    b": note\n\n",
    b"id: 1\ndata: x\n\n",
    b"data: x\ndata: y\n\n",
    b"data:x\n\n",
    b"event: e\n\n",
    b"event: e\r\ndata: x\n\n",
    b"\n",
]


@given(st.lists(st.sampled_from(_PLAIN * 4 + _ODD), max_size=12), st.integers(0, 60))
def test_a_burst_of_events_is_what_its_bytes_are_one_by_one(events: list[bytes], cut: int) -> None:
    stream = b"".join(events)
    burst, bytewise = SseParser(10_000), SseParser(10_000)
    found = [*burst.feed(stream[:cut]), *burst.feed(stream[cut:])]
    assert found == [event for n in range(len(stream)) for event in bytewise.feed(stream[n : n + 1])]


def test_what_the_last_blank_line_never_closed_is_given_as_the_rest() -> None:
    parser = SseParser(1000)
    assert list(parser.feed(b"data: a\n\ndata: [DO")) == [b"a"]
    assert not parser.feed(b"NE]")
    assert parser.rest() == b"[DONE]"
    assert parser.rest() == b""


def test_a_line_over_the_limit_is_refused_before_it_is_whole() -> None:
    parser = SseParser(100)
    parser.feed(b"data: " + b"x" * 90)
    with pytest.raises(FrameError, match=r"line_max \(100 bytes\)"):
        parser.feed(b"x" * 10)


def test_an_event_of_many_short_lines_is_bounded_too() -> None:
    with pytest.raises(FrameError):
        parse(b"data: 0123456789\n" * 11, line_max=100)


def test_an_event_exactly_at_the_limit_passes() -> None:
    assert parse(b"data: " + b"x" * 100 + b"\n\n", line_max=100) == [b"x" * 100]
