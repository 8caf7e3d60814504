"""Images in a context: which ones a model call has, what stands in the places of the others, and models that see nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.turns import BOUNDS, Story, answer, final, model, queued, started, story
from talon.domain import entries as e
from talon.domain.content import Content, ImagePart, TextPart
from talon.domain.models import ModelInfo, Models
from talon.providers.protocol import ChatMessage, Image, Text
from talon.turn.context import ContextLimits, transcript
from talon.turn.history import history
from talon.turn.machine import CallModel, Finish, decide
from talon.turn.pictures import GONE, OLDER, UNSEEN, choose, with_bytes

LIMITS = ContextLimits()


def picture(number: int, size: int = 10) -> ImagePart:
    return ImagePart("image/png", size, f"blob {number}")


def seen(messages: tuple[ChatMessage, ...]) -> list[str]:
    """The images by their blobs, and the words in the places of others, in order."""
    parts = [part for message in messages for part in message.parts]
    return [part.blob if isinstance(part, Image) else part.text for part in parts if isinstance(part, Image) or part.text[0] == "["]


def asking(content: Content) -> list[e.Payload]:
    return [e.MessageReceived(content=content), e.TurnQueued(message_seq=1)]


def turns(count: int) -> Story:
    """A session in which every message has an image."""
    made = Story()
    for number in range(1, count + 1):
        made.turn_id = f"t{number}"
        made.add(*asking((TextPart(f"question {number}"), picture(number))), *started()[2:], model(), *final(f"answer {number}"))
        made.add(e.TurnCompleted())
    return made


def test_images_of_earlier_turns_stay_in_their_places_and_the_newest_are_sent() -> None:
    messages = history(turns(4).entries, LIMITS)
    assert [message.role for message in messages] == ["user", "assistant"] * 4
    assert messages[0].parts == (Text("question 1"), Image("image/png", blob="blob 1", size=10))
    assert seen(choose(messages, LIMITS, blind=False)) == ["blob 1", "blob 2", "blob 3", "blob 4"]
    assert seen(choose(messages, ContextLimits(images_max=2), blind=False)) == [OLDER, OLDER, "blob 3", "blob 4"]
    assert seen(choose(messages, ContextLimits(images_bytes_max=35), blind=False)) == [OLDER, "blob 2", "blob 3", "blob 4"]
    assert seen(choose(messages, LIMITS, blind=True)) == [UNSEEN] * 4


def test_a_long_message_of_an_earlier_turn_is_cut_and_keeps_its_images() -> None:
    made = story(
        asking((TextPart("a" * 5000), picture(1), TextPart("b" * 5000))), started()[2:], model(), final(), e.TurnCompleted()
    )
    [question, _] = history(made.entries, ContextLimits(chars_max=1000))
    image, words = question.parts
    assert isinstance(image, Image)
    assert isinstance(words, Text)
    assert (image.blob, len(words.text) <= 250, words.text[0], words.text[-1]) == ("blob 1", True, "a", "b")


def test_the_turns_own_images_are_in_its_context_and_a_steered_one_where_it_joined() -> None:
    made = story(asking((picture(1), TextPart("look"))), started()[2:], model(), answer("look"))
    made.add(e.MessageReceived(content=(picture(2),), strategy="steer"), e.InputSteered(message_seq=made.seq + 1))
    state = made.state()
    assert (state.has_images, state.offered[0][1]) == (True, (picture(2),))
    made.add(e.InputSteered(message_seq=made.seq - 1, state="joined"))
    messages = transcript(made.state(), LIMITS)
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    assert seen(messages) == ["blob 1", "blob 2"]


@given(sizes=st.lists(st.integers(1, 30), max_size=12), most=st.integers(0, 6), room=st.integers(0, 60))
def test_what_is_sent_is_the_longest_end_that_fits(sizes: list[int], most: int, room: int) -> None:
    messages = [ChatMessage("user", parts=(Image("image/png", blob=f"blob {n}", size=size),)) for n, size in enumerate(sizes)]
    chosen = seen(choose(messages, ContextLimits(images_max=most, images_bytes_max=room), blind=False))
    kept = [words for words in chosen if words != OLDER]
    assert kept == [f"blob {n}" for n in range(len(sizes) - len(kept), len(sizes))]
    assert (len(chosen), len(kept) <= most, sum(sizes[len(sizes) - len(kept) :]) <= room) == (len(sizes), True, True)
    if len(kept) < min(most, len(sizes)):
        assert sum(sizes[len(sizes) - len(kept) - 1 :]) > room


async def test_the_bytes_are_read_once_for_all_and_what_is_gone_is_named() -> None:
    reads: list[tuple[str, ...]] = []

    async def read(digests: Sequence[str]) -> dict[str, bytes]:
        reads.append(tuple(digests))
        return {"blob 1": b"one"}

    one, two = (Image("image/png", blob=f"blob {n}", size=3) for n in (1, 2))
    messages = [ChatMessage("user", parts=(Text("a"), one, two)), ChatMessage("user", "b"), ChatMessage("user", parts=(one,))]
    filled = await with_bytes(messages, read)
    assert [message.parts for message in filled] == [
        (Text("a"), Image("image/png", b"one"), Text(GONE)),
        (),
        (Image("image/png", b"one"),),
    ]
    assert reads == [("blob 1", "blob 2")]
    assert await with_bytes(messages[1:2], read) == tuple(messages[1:2])
    assert len(reads) == 1


def test_a_model_that_sees_nothing_is_passed_over_while_the_turn_has_an_image() -> None:
    blind = msgspec.structs.replace(BOUNDS, blind=("main",))
    state = story(asking((picture(1),)), started()[2:]).state()
    command = decide(state, blind, state.last_at_ms)
    assert isinstance(command, CallModel)
    assert BOUNDS.profiles[command.profile] == "spare"
    state = story(queued(), started()[2:]).state()
    command = decide(state, blind, state.last_at_ms)
    assert isinstance(command, CallModel)
    assert command.profile == 0


def test_an_image_that_nobody_can_see_denies_the_turn() -> None:
    blind = msgspec.structs.replace(BOUNDS, blind=BOUNDS.profiles)
    state = story(asking((picture(1),)), started()[2:]).state()
    command = decide(state, blind, state.last_at_ms)
    assert isinstance(command, Finish)
    assert isinstance(command.end, e.TurnDenied)
    assert (command.end.reason, "main, spare" in command.end.detail) == ("images_not_taken", True)


@pytest.mark.parametrize(("name", "blind"), [("sees", False), ("blind", True), ("blind-2026-01-01", True), ("nobody-knows", False)])
def test_only_what_is_known_by_its_name_is_known_to_see_nothing(name: str, blind: bool) -> None:
    infos = (ModelInfo("p", "sees", "mid", vision=True), ModelInfo("p", "blind", "mid"), ModelInfo("p", "*", "cheap"))
    assert Models(infos).is_blind("p", name) is blind


def test_what_an_entry_with_parts_says_of_itself() -> None:
    new = e.new_entry(e.MessageReceived(content=(TextPart("a"), picture(1), picture(2), picture(1))))
    assert (new.min_reader, new.images, new.blobs) == (2, ("blob 1", "blob 2"), ("blob 1", "blob 2"))
    plain = e.new_entry(e.MessageReceived(content="a"))
    assert (plain.min_reader, plain.blobs, plain.payload) == (
        1,
        (),
        b'{"content":"a","role":"user","strategy":"enqueue","metadata":{}}',
    )
