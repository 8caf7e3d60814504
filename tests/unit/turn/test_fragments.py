"""Streamed text on its way: the first piece at once, later ones paced, everything in order and nothing after the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talon.domain.errors import FencedOut
from talon.store.model import Appended, Fragment
from talon.turn.fragments import Answered, FragmentStream, Kind, Pace

LONG_S = 3600.0
WAIT_S = 5.0


class Sink:
    """Takes fragments; an append is answered when the loop turns, but not before the sink is `open`."""

    def __init__(self) -> None:
        self.appends: list[tuple[Fragment, ...]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()
        self.error: Exception | None = None
        self.ended = 0
        self._writing: set[asyncio.Task[None]] = set()

    def __call__(self, pieces: tuple[Fragment, ...], answered: Answered) -> None:
        self.appends.append(pieces)
        self.arrived.set()
        task = asyncio.create_task(self._write(answered))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, answered: Answered) -> None:
        await self.open.wait()
        self.ended += self.error is None
        answered(self.error or Appended(1, 7, 0))

    async def next(self) -> tuple[Fragment, ...]:
        """The next append that begins."""
        await asyncio.wait_for(self.arrived.wait(), WAIT_S)
        self.arrived.clear()
        return self.appends[-1]


async def turns(times: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(times):
        await asyncio.sleep(0)


def whole(appends: Sequence[tuple[Fragment, ...]], kind: Kind) -> str:
    """The text of the fragments, their offsets checked to be gapless."""
    text = ""
    for piece in (piece for pieces in appends for piece in pieces if piece.kind == kind):
        assert piece.offset == len(text)
        assert piece.text
        text += piece.text
    return text


async def test_the_first_piece_goes_at_once_and_the_next_waits_for_its_pace() -> None:
    sink = Sink()
    stream = FragmentStream(7, sink, Pace(LONG_S))
    stream.add("Hel")
    assert await sink.next() == (Fragment(7, 0, "Hel"),)
    stream.add("lo ")
    stream.add("you")
    await turns()
    assert len(sink.appends) == 1
    assert stream.text() == "Hello you"
    await asyncio.wait_for(stream.close(), WAIT_S)
    assert len(sink.appends) == 1, "what was not handed over is in the message that follows"


async def test_what_came_during_the_pace_is_one_fragment() -> None:
    sink = Sink()
    stream = FragmentStream(7, sink, Pace(0.001))
    sink.open.clear()
    stream.add("a")
    await sink.next()
    stream.add("b")
    stream.add("c")
    sink.open.set()
    assert await sink.next() == (Fragment(7, 1, "bc"),)
    await stream.close()


async def test_one_beat_takes_what_all_answers_have_and_a_first_piece_waits_for_none() -> None:
    sinks = [Sink() for _ in range(3)]
    pace = Pace(0.2)
    began_s = asyncio.get_running_loop().time()
    first, second, third = (FragmentStream(number, sink, pace) for number, sink in enumerate(sinks, 1))
    for stream, sink in ((first, sinks[0]), (second, sinks[1])):
        stream.add("a")
        await sink.next()
        await turns()
        stream.add("b")
    third.add("c")
    await sinks[2].next()
    assert asyncio.get_running_loop().time() - began_s < 0.2
    assert [len(sink.appends) for sink in sinks] == [1, 1, 1], "later pieces wait for the beat"
    await sinks[0].next()
    assert asyncio.get_running_loop().time() - began_s >= 0.19
    assert [sink.appends[1:] for sink in sinks] == [[(Fragment(1, 1, "b"),)], [(Fragment(2, 1, "b"),)], []]
    for stream in (first, second, third):
        await stream.close()


async def test_a_text_that_is_complete_at_once_makes_no_fragment() -> None:
    sink = Sink()
    stream = FragmentStream(7, sink, Pace())
    stream.add("all of it")
    await stream.close()
    await turns()
    assert sink.appends == []
    assert not stream.streamed
    assert (stream.text(), stream.length) == ("all of it", 9)


async def test_an_answer_in_one_packet_makes_no_fragment_however_late_it_is_closed() -> None:
    sink = Sink()
    stream = FragmentStream(7, sink, Pace())
    stream.add("all of it")
    stream.end()
    await turns()
    assert sink.appends == []
    await stream.close()
    assert stream.text() == "all of it"


async def test_without_text_there_is_nothing_to_close() -> None:
    stream = FragmentStream(7, Sink(), Pace())
    await stream.close()
    assert (stream.text(), stream.length, stream.streamed) == ("", 0, False)


async def test_text_and_reasoning_count_their_own_offsets() -> None:
    sink = Sink()
    stream = FragmentStream(7, sink, Pace(0.001))
    stream.add("hm", "reasoning")
    stream.add("So")
    assert await sink.next() == (Fragment(7, 0, "So"), Fragment(7, 0, "hm", "reasoning"))
    stream.add("!", "reasoning")
    assert await sink.next() == (Fragment(7, 2, "!", "reasoning"),)
    await stream.close()
    assert (stream.text(), stream.text("reasoning"), stream.length) == ("So", "hm!", 5)
    assert stream.streamed


async def test_closing_waits_for_the_append_under_way_and_begins_none() -> None:
    sink = Sink()
    stream = FragmentStream(7, sink, Pace(0.0))
    sink.open.clear()
    stream.add("a")
    await sink.next()
    stream.add("b")
    closing = asyncio.create_task(stream.close())
    await turns()
    assert not closing.done()
    sink.open.set()
    await asyncio.wait_for(closing, WAIT_S)
    assert (len(sink.appends), sink.ended) == (1, 1)


async def test_a_failed_append_stops_the_listening_and_is_raised_at_the_end() -> None:
    sink = Sink()
    sink.error = FencedOut("somebody else has it")
    stream = FragmentStream(7, sink, Pace(0.0))
    stream.add("a")
    await sink.next()
    await turns()
    with pytest.raises(FencedOut):
        stream.add("b")
    with pytest.raises(FencedOut):
        await stream.close()
    assert len(sink.appends) == 1


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), st.sampled_from(["text", "reasoning"]), st.integers(0, 4)), max_size=30))
def test_fragments_are_a_gapless_beginning_of_the_text(pieces: list[tuple[str, Kind, int]]) -> None:
    async def run() -> None:
        sink = Sink()
        stream = FragmentStream(7, sink, Pace(0.0))
        for text, kind, pause in pieces:
            stream.add(text, kind)
            await turns(pause)
        await stream.close()
        for kind in ("text", "reasoning"):
            expected = "".join(text for text, of, _ in pieces if of == kind)
            assert stream.text(kind) == expected
            assert expected.startswith(whole(sink.appends, kind))
        assert stream.streamed == bool(sink.appends)

    asyncio.run(run())
