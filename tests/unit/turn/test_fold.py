"""`fold`: what a turn knows of itself, from its entries alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.turns import TURN, Story, answer, extended, failed, final, intent, model, queued, resumed, started, story
from talon.domain import entries as e
from talon.turn.context import ContextLimits, transcript
from talon.turn.machine import State, apply, fold
from talon.turn.machine.state import AssistantItem, ModelCall, UserItem

USAGE = st.builds(e.Usage, st.integers(0, 99), st.integers(0, 99))
PAYLOADS = st.one_of(
    st.builds(e.MessageReceived, content=st.text(max_size=5)),
    st.builds(e.TurnQueued),
    st.builds(e.InputSteered, message_seq=st.integers(1, 12), state=st.sampled_from(["offered", "joined", "requeued"])),
    st.builds(e.TurnStarted, agent=st.just("a"), revision=st.integers(1, 9)),
    st.just(resumed()),
    st.just(e.TurnWaiting(kind="backoff")),
    st.builds(e.TurnCancelRequested, rollback=st.booleans()),
    st.just(model()),
    st.builds(e.ModelFinished, stop_reason=st.just("stop"), usage=USAGE),
    st.builds(e.StreamReset, model_seq=st.integers(1, 12), usage=USAGE),
    st.builds(e.ApprovalResolved, approval=st.just("a1"), call=st.integers(0, 3), outcome=st.just("done")),
    st.just(e.StepFinished(step="s", decision="d")),
    st.just(e.ToolOutput(call=1, text="part")),
    st.builds(e.MessageCompleted, content=st.text(max_size=5)),
    st.builds(e.TurnCompleted, usage=USAGE),
)


@settings(print_blob=True)
@given(st.lists(st.tuples(PAYLOADS, st.sampled_from([TURN, "other", ""]), st.integers(-5, 5_000))), st.integers(0, 30))
def test_folding_in_two_parts_is_folding_at_once_and_other_turns_do_not_matter(
    payloads: list[tuple[e.Payload, str, int]], cut: int
) -> None:
    journal = Story()
    for payload, turn_id, after_ms in payloads:
        journal.add(payload, turn_id=turn_id, after_ms=after_ms)
    whole = fold(journal.entries, TURN)
    state = fold(journal.entries[:cut], TURN)
    for entry in journal.entries[cut:]:
        if entry.turn_id == TURN:
            state = apply(state, entry.decode(), entry.seq, entry.at_ms)
    assert state == whole
    assert fold([entry for entry in journal.entries if entry.turn_id == TURN], TURN) == whole


def test_an_unstarted_turn_is_only_its_name() -> None:
    assert fold([], TURN) == State(turn_id=TURN)


def test_the_transcript_is_what_the_model_sees_and_a_final_answer_is_in_it_once() -> None:
    state = story(
        queued("first"),
        e.MessageReceived(content="steered early"),
        e.InputSteered(message_seq=3),
        e.TurnStarted(agent="a", revision=1),
        model(),
        answer("look", "pay"),
        e.MessageReceived(content="steered late"),
        e.InputSteered(message_seq=10),
        intent(1),
        e.ToolFinished(call=1, output="4"),
        e.ToolDenied(call=2, reason="invalid", message="no"),
        e.InputSteered(message_seq=10, state="joined"),
        model(2),
        final("all done"),
    ).state()
    assert state.transcript == (
        UserItem("first"),
        UserItem("steered early"),
        AssistantItem("thinking", (1, 2)),
        UserItem("steered late"),
        AssistantItem("all done", ()),
    )
    assert state.answered
    assert state.iteration == 2
    assert [(call.status, call.result, call.ok, call.iteration) for call in state.calls] == [
        ("closed", "4", True, 1),
        ("closed", "no", False, 1),
    ]


def test_a_resumed_turn_finds_what_was_in_flight_orphaned_and_nothing_else() -> None:
    state = story(
        started(),
        model(),
        answer("a", "b", "c", "d"),
        intent(1),
        e.ToolFinished(call=1, output="4"),
        intent(2),
        intent(3, "unsafe"),
        e.ToolUncertain(call=3, key="k3", approval="a3"),
        resumed(),
    ).state()
    assert [call.status for call in state.calls] == ["closed", "orphaned", "uncertain", "requested"]
    assert extended(state, model(), resumed()).model == ModelCall(state.last_seq + 1, 1, "main", orphaned=True)


def test_a_repeated_call_keeps_its_key_and_the_time_of_its_first_use() -> None:
    state = story(started(), model(), answer("pay"), intent(effect="idempotent")).state()
    first_ms = state.last_at_ms
    again = extended(state, resumed(), intent(effect="idempotent", attempt=2))
    call = again.call(1)
    assert (call.status, call.attempt, call.key, call.first_started_ms) == ("started", 2, "k1", first_ms)


@pytest.mark.parametrize(("outcome", "status"), [("done", "uncertain"), ("failed", "uncertain"), ("retry", "retry")])
def test_an_approval_says_what_to_do_about_an_uncertain_call(outcome: str, status: str) -> None:
    state = story(
        started(), model(), answer("pay"), intent(effect="unsafe"), e.ToolUncertain(call=1, key="k", approval="a1")
    ).state()
    call = extended(state, e.ApprovalResolved(approval="a1", call=1, outcome=outcome, result="seen")).call(1)
    assert call.status == status
    assert call.human == (None if outcome == "retry" else (outcome, "seen"))


def test_a_receipt_in_a_humans_name_closes_the_call() -> None:
    state = story(
        started(), model(), answer("pay"), intent(effect="unsafe"), e.ToolUncertain(call=1, key="k", approval="a1")
    ).state()
    state = extended(state, e.ApprovalResolved(approval="a1", call=1, outcome="done"), e.ToolFinished(call=1, output="paid"))
    assert (state.call(1).status, state.call(1).result, state.call(1).human) == ("closed", "paid", None)
    assert state.open_calls == ()


def test_usage_adds_up_over_answers_failures_and_resets() -> None:
    state = story(
        started(),
        model(),
        failed(usage=e.Usage(1, 2)),
        model(),
        e.StreamReset(model_seq=6, usage=e.Usage(10, 20, estimated=True)),
        model(),
        final(),
    ).state()
    assert state.usage == e.Usage(21, 32, estimated=True)


def test_a_call_that_was_never_requested_is_an_error_that_says_so() -> None:
    with pytest.raises(KeyError, match="no call 2"):
        story(started(), model(), answer("look"), e.ToolFinished(call=2, output="")).state()


# --- active time -------------------------------------------------------------------------------------------------------------


def active_s(journal: Story, after_ms: int = 0) -> float:
    return journal.state().active_s(journal.at_ms + after_ms)


def test_active_time_begins_with_the_start_and_runs_on_between_entries() -> None:
    assert active_s(story(queued()), 60_000) == 0
    assert active_s(story(started()), 2_500) == 2.5
    assert active_s(story(started(), model(), answer("look"), intent()), 500) == 4.5


def test_waiting_is_no_active_time() -> None:
    journal = story(started(), model(), e.TurnWaiting(kind="backoff"))
    assert active_s(journal, 3_600_000) == 2.0
    journal.add(resumed("woken"), after_ms=3_600_000)
    assert active_s(journal, 1_000) == 3.0


def test_the_time_between_a_crash_and_the_takeover_is_no_active_time() -> None:
    journal = story(started(), model())
    journal.add(resumed(), after_ms=7_200_000)
    assert active_s(journal, 1_000) == 2.0


def test_others_who_write_to_a_turn_that_nobody_runs_do_not_make_it_active() -> None:
    journal = story(started(), model())
    journal.add(e.MessageReceived(content="still there?"), e.InputSteered(message_seq=5), after_ms=7_200_000)
    journal.add(resumed())
    assert active_s(journal) == 1.0


def test_others_who_write_to_a_running_turn_do_not_stop_its_clock() -> None:
    journal = story(started(), e.MessageReceived(content="and?"), e.InputSteered(message_seq=4), model())
    assert active_s(journal) == 3.0


def test_a_clock_that_is_set_back_takes_no_time_away() -> None:
    journal = story(started()).add(model(), after_ms=-5_000).add(*final(), after_ms=1_000)
    assert active_s(journal) >= 0
    ended = journal.add(e.TurnCompleted(), after_ms=10_000).state()
    assert ended.active_s(journal.at_ms + 99_000) == ended.active_ms / 1000


def test_what_a_vendor_wants_back_with_its_calls_is_in_the_next_context_and_comes_from_the_journal() -> None:
    opaque = e.Opaque("main", "m", ('{"type":"thinking","signature":"s"}', "text 4", "call 0"))
    state = story(
        started(),
        model(),
        e.ModelFinished(stop_reason="tool_calls", content="look", calls=1, opaque=opaque),
        e.ToolRequested(call=1, call_id="c1", name="look", arguments="{}", opaque='"signed"'),
        intent(1),
        e.ToolFinished(call=1, output="4"),
    )
    asked = next(message for message in transcript(state.state(), ContextLimits()) if message.role == "assistant")
    assert (asked.opaque, asked.tool_calls[0].opaque) == (opaque, '"signed"')
