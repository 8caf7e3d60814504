"""The tail of a context: bounded, whole, and never with a tool call parted from its result."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.turns import BOUNDS, Story, answer, final, intent, model
from support.turnsim import Session, Simulation
from talon.domain import entries as e
from talon.domain.content import text_of
from talon.providers.protocol import ChatMessage
from talon.turn.context import UNCERTAIN, ContextLimits, shorten, transcript
from talon.turn.history import NO_RESULT, history

WIDE = ContextLimits(entries_max=10_000, chars_max=10_000_000)


def check_pairs(messages: Sequence[ChatMessage]) -> None:
    """Every call is followed at once by its result, in the order of the calls, and there is no result without its call."""
    expected: list[str] = []
    for message in messages:
        if expected:
            assert (message.role, message.tool_call_id) == ("tool", expected.pop(0)), messages
            continue
        assert message.role in ("user", "assistant"), f"a result without its call: {messages}"
        expected = [call.id for call in message.tool_calls]
        assert len(set(expected)) == len(expected)
    assert not expected, f"calls without results: {expected}"


def size(messages: Sequence[ChatMessage]) -> int:
    return sum(len(m.content) + sum(len(call.name) + len(call.arguments) for call in m.tool_calls) for m in messages)


def window(entries: Sequence[e.Entry], before: int, limit: int) -> list[e.Entry]:
    """What a store answers to `read_context`."""
    return [entry for entry in entries if entry.type in e.CONTEXT_TYPES and entry.seq < before][-limit:]


def said(messages: Sequence[ChatMessage]) -> list[str]:
    return [message.content for message in messages]


# --- any journal, any window ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(1, 6), st.data())
def test_pairs_are_never_parted_whatever_the_journal_and_the_window(random: Random, turns: int, data: st.DataObject) -> None:
    session = Session(turns_max=turns)
    for _ in range(turns):
        Simulation(random, BOUNDS, session).run()
    for _ in range(10):
        before = data.draw(st.integers(1, session.journal.seq + 1), label="before")
        limits = ContextLimits(
            entries_max=data.draw(st.integers(1, 80), label="entries_max"),
            chars_max=data.draw(st.integers(0, 2_000), label="chars_max"),
            tool_result_chars_max=data.draw(st.integers(0, 100), label="tool_result_chars_max"),
        )
        messages = history(window(session.journal.entries, before, limits.entries_max), limits)
        check_pairs(messages)
        assert size(messages) <= limits.chars_max


@settings(max_examples=150, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_the_next_turn_sees_what_was_said_once_and_neither_queued_nor_rolled_back_messages(random: Random, turns: int) -> None:
    session = Session(turns_max=turns)
    ends = {(simulation := Simulation(random, BOUNDS, session)).turn_id: simulation.run().ended for _ in range(turns)}
    messages = history(window(session.journal.entries, session.journal.seq + 1, 10_000), WIDE)
    check_pairs(messages)
    words = said(messages)
    gone = {turn_id for turn_id, end in ends.items() if isinstance(end, e.TurnCancelled) and end.rollback} | set(session.queue)
    answered = {entry.turn_id for entry in session.journal.entries if entry.type == "message.completed"}
    for turn_id in ends:  # an answer that was given stays, also when the turn was cancelled at that moment
        assert words.count(f"answer of {turn_id}") == (turn_id in answered - gone)
    became = {seq: turn_id for turn_id, seq in session.borrowed.items()}
    for entry in session.journal.entries:
        if isinstance(received := entry.decode(), e.MessageReceived):
            turn_id = became.get(entry.seq, entry.turn_id)
            assert words.count(text_of(received.content)) == (turn_id not in gone), f"{received.content} of {turn_id}"


@settings(max_examples=100, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_a_turns_own_part_is_pair_safe_before_each_model_call(random: Random) -> None:
    simulation = Simulation(random)
    simulation.run()
    story = Story()
    for entry in simulation.journal.entries:
        if entry.type == "model.started":
            check_pairs(transcript(story.state(), ContextLimits()))
        story.entries.append(entry)


# --- what a turn becomes ---------------------------------------------------------------------------------------------------------


def turn(story: Story, turn_id: str, question: str, *middle: e.Payload, end: e.Payload | None = None) -> Story:
    """A whole turn: question, `middle`, end."""
    begun = (e.MessageReceived(content=question), e.TurnQueued(message_seq=story.seq + 1), e.TurnStarted(agent="a", revision=1))
    return story.add(*begun, model(), *middle, end or e.TurnCompleted(), turn_id=turn_id)


def shown(story: Story, limits: ContextLimits = WIDE) -> list[tuple[str, str]]:
    messages = history(window(story.entries, story.seq + 1, limits.entries_max), limits)
    check_pairs(messages)
    assert size(messages) <= limits.chars_max
    return [(message.role, message.content) for message in messages]


def test_results_stand_in_the_order_of_the_calls_whatever_the_order_of_the_receipts() -> None:
    story = turn(
        Story(),
        "t1",
        "q",
        *answer("a", "b", "c"),
        intent(1),
        intent(2),
        intent(3),
        e.ToolFinished(call=3, output="third"),
        e.ToolFailed(call=1, error="exception", message="first"),
        e.ToolDenied(call=2, reason="invalid", message="second"),
        *final("end"),
    )
    assert shown(story) == [
        ("user", "q"),
        ("assistant", "thinking"),
        ("tool", "first"),
        ("tool", "second"),
        ("tool", "third"),
        ("assistant", "end"),
    ]


@pytest.mark.parametrize(
    ("receipts", "text"),
    [
        ((), NO_RESULT),
        ((e.ToolUncertain(call=1, key="k", approval="a1"),), UNCERTAIN),
        (
            (
                e.ToolUncertain(call=1, key="k", approval="a1"),
                e.ApprovalResolved(approval="a1", call=1, outcome="done", result="paid on Monday"),
            ),
            "A person found out: done. paid on Monday",
        ),
        (
            (e.ToolUncertain(call=1, key="k", approval="a1"), e.ApprovalResolved(approval="a1", call=1, outcome="retry")),
            UNCERTAIN,
        ),
        (
            (e.ToolUncertain(call=1, key="k", approval="a1"), e.ToolFinished(call=1, output="4", source="human")),
            "4",
        ),
    ],
)
def test_a_call_without_a_receipt_says_what_is_known(receipts: tuple[e.Payload, ...], text: str) -> None:
    story = turn(Story(), "t1", "q", *answer("pay"), intent(effect="unsafe"), *receipts, end=e.TurnCancelled())
    assert shown(story)[-1] == ("tool", text)


def test_an_answer_to_an_open_question_changes_an_ended_turn() -> None:
    story = turn(Story(), "t1", "q", *answer("pay"), e.ToolUncertain(call=1, key="k", approval="a"), end=e.TurnCancelled())
    turn(story, "t2", "and?", *final("not yet"))
    story.add(e.ApprovalResolved(approval="a", call=1, outcome="failed", result="it bounced"), turn_id="t1")
    assert shown(story) == [
        ("user", "q"),
        ("assistant", "thinking"),
        ("tool", "A person found out: failed. it bounced"),
        ("user", "and?"),
        ("assistant", "not yet"),
    ]


def test_a_late_answer_of_a_turn_before_the_window_hides_nothing() -> None:
    story = turn(Story(), "t1", "old", *answer("pay"), e.ToolUncertain(call=1, key="k", approval="a"), end=e.TurnCancelled())
    turn(story, "t2", "q2", *final("a2"))
    story.add(e.ApprovalResolved(approval="a", call=1, outcome="done"), turn_id="t1")
    turn(story, "t3", "q3", *final("a3"))
    assert shown(story, ContextLimits(entries_max=7)) == [("user", "q2"), ("assistant", "a2"), ("user", "q3"), ("assistant", "a3")]


def test_a_steering_message_stands_where_the_model_saw_it() -> None:
    story = Story().add(e.MessageReceived(content="q"), e.TurnStarted(agent="a", revision=1), model(), *answer("look"))
    story.add(e.MessageReceived(content="hurry"), e.InputSteered(message_seq=6), intent(), e.ToolFinished(call=1, output="4"))
    story.add(e.InputSteered(message_seq=6, state="joined"), model(2), *final("end"), e.TurnCompleted())
    assert shown(story) == [("user", "q"), ("assistant", "thinking"), ("tool", "4"), ("user", "hurry"), ("assistant", "end")]


def test_a_steering_message_that_became_a_turn_stands_before_its_own_answer() -> None:
    story = Story().add(e.MessageReceived(content="q"), e.TurnStarted(agent="a", revision=1), model())
    story.add(e.MessageReceived(content="also this"), e.InputSteered(message_seq=4), *final("first"))
    story.add(e.InputSteered(message_seq=4, state="requeued", turn="t2"), e.TurnCompleted())
    story.add(e.TurnQueued(message_seq=4, requeued_from="t1"), turn_id="t2")
    assert shown(story) == [("user", "q"), ("assistant", "first")]
    story.add(e.TurnStarted(agent="a", revision=1), model(), *final("second"), e.TurnCompleted(), turn_id="t2")
    assert shown(story) == [("user", "q"), ("assistant", "first"), ("user", "also this"), ("assistant", "second")]


def test_it_stays_when_the_turn_that_it_was_meant_for_is_rolled_back() -> None:
    story = Story().add(e.MessageReceived(content="q"), e.TurnStarted(agent="a", revision=1), model())
    story.add(e.MessageReceived(content="also this"), e.InputSteered(message_seq=4))
    story.add(e.InputSteered(message_seq=4, state="requeued", turn="t2"), e.TurnCancelled(rollback=True))
    story.add(e.TurnStarted(agent="a", revision=1), model(), *final("second"), e.TurnCompleted(), turn_id="t2")
    assert shown(story) == [("user", "also this"), ("assistant", "second")]


def test_imported_history_comes_first_with_its_roles() -> None:
    story = Story()
    story.add(e.MessageReceived(content="hi", imported=True), turn_id="")
    story.add(e.MessageCompleted(content="hello", imported=True), turn_id="")
    story.add(e.MessageReceived(content="I am here", role="assistant", imported=True), turn_id="")
    turn(story, "t1", "q", *final("a"))
    assert shown(story) == [("user", "hi"), ("assistant", "hello"), ("assistant", "I am here"), ("user", "q"), ("assistant", "a")]


def test_an_interrupting_turn_stands_where_it_ran_not_where_it_was_received() -> None:
    story = Story().add(e.MessageReceived(content="first"), e.TurnStarted(agent="a", revision=1), model(), turn_id="t1")
    story.add(e.MessageReceived(content="patient"), turn_id="t2")
    story.add(e.MessageReceived(content="urgent"), turn_id="t3")
    story.add(e.TurnCancelled(reason="interrupted"), turn_id="t1")
    story.add(e.TurnStarted(agent="a", revision=1), model(), *final("at once"), e.TurnCompleted(), turn_id="t3")
    story.add(e.TurnStarted(agent="a", revision=1), model(), *final("now you"), e.TurnCompleted(), turn_id="t2")
    words = [text for _, text in shown(story)]
    assert words == ["first", "urgent", "at once", "patient", "now you"]


# --- bounds ----------------------------------------------------------------------------------------------------------------------


def test_whole_turns_are_left_out_from_the_oldest_on() -> None:
    story = Story()
    for number in range(5):
        turn(story, f"t{number}", f"question {number}", *final(f"answer {number}"))
    assert shown(story, ContextLimits(chars_max=45)) == [
        ("user", "question 3"),
        ("assistant", "answer 3"),
        ("user", "question 4"),
        ("assistant", "answer 4"),
    ]


def test_a_turn_that_begins_before_the_window_is_left_out_unless_it_is_the_last() -> None:
    story = turn(Story(), "t1", "q1", *answer("a"), intent(), e.ToolFinished(call=1, output="4"), *final("a1"))
    turn(story, "t2", "q2", *final("a2"))
    assert shown(story, ContextLimits(entries_max=7)) == [("user", "q2"), ("assistant", "a2")]
    assert shown(story, ContextLimits(entries_max=2)) == [("assistant", "a2")]


def test_a_queued_message_that_is_before_the_window_leaves_its_turn_out() -> None:
    story = Story().add(e.MessageReceived(content="patient"), turn_id="t2")
    turn(story, "t1", "q1", *final("a1"))
    story.add(e.TurnStarted(agent="a", revision=1), model(), *final("a2"), e.TurnCompleted(), turn_id="t2")
    turn(story, "t3", "q3", *final("a3"))
    assert [text for _, text in shown(story, ContextLimits(entries_max=8))] == ["q3", "a3"]


def test_of_a_last_turn_that_is_too_long_its_question_and_its_end_are_kept() -> None:
    story = turn(Story(), "t1", "q" * 900, *final("old"))
    turn(
        story,
        "t2",
        "Why? " * 400,
        *answer("a"),
        intent(1),
        e.ToolFinished(call=1, output="x" * 5_000),
        *answer("b", first=2),
        intent(2),
        e.ToolFinished(call=2, output="near the end"),
        *final("so it is"),
    )
    roles = shown(story, ContextLimits(chars_max=1_000))
    assert [role for role, _ in roles] == ["user", "assistant", "tool", "assistant"]
    assert roles[0][1].startswith("Why? ")
    assert "characters left out" in roles[0][1]
    assert [text for _, text in roles[2:]] == ["near the end", "so it is"]


def test_one_huge_message_does_not_push_the_context_over_its_limit() -> None:
    story = turn(Story(), "t1", "z" * 2_000_000, end=e.TurnFailed(reason="model_failed"))
    (role, text), *others = shown(story, ContextLimits())
    assert (role, others) == ("user", [])
    assert 15_000 < len(text) <= 16_000


def test_a_call_whose_arguments_are_too_long_is_left_out_with_its_result() -> None:
    story = turn(
        Story(), "t1", "q", *answer("a", arguments='{"x":"' + "y" * 5_000 + '"}'), e.ToolFinished(call=1, output="4"), *final("end")
    )
    assert shown(story, ContextLimits(chars_max=1_000)) == [("user", "q"), ("assistant", "end")]


def test_results_of_earlier_steps_are_shortened_and_the_latest_are_not() -> None:
    story = Story().add(e.MessageReceived(content="q"), e.TurnStarted(agent="a", revision=1), model(), *answer("a"), intent())
    story.add(
        e.ToolFinished(call=1, output="x" * 500),
        model(2),
        *answer("b", first=2),
        intent(2),
        e.ToolFinished(call=2, output="y" * 500),
    )
    limits = ContextLimits(tool_result_chars_max=100)
    own = transcript(story.state(), limits)
    check_pairs(own)
    lengths = [len(message.content) for message in own if message.role == "tool"]
    assert lengths[0] <= 100
    assert lengths[1] == 500


@given(st.text(max_size=300), st.integers(-5, 200))
def test_shortened_text_is_never_longer_than_asked_and_whole_if_it_fits(text: str, chars_max: int) -> None:
    short = shorten(text, chars_max)
    assert len(short) <= max(0, chars_max)
    if len(text) <= chars_max:
        assert short == text
    elif chars_max > 60:
        assert short.startswith(text[:10])
        assert short.endswith(text[-10:])
        assert "characters left out" in short
