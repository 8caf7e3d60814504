"""`decide` as a table: each state of a turn and the command that follows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.turns import BOUNDS, Story, answer, failed, final, intent, model, queued, resumed, started, story
from talon.domain import entries as e
from talon.turn.machine import Begin, Bounds, CallModel, Command, Finish, Listen, ResetStream, RunTools, State, Wait, decide

CANCEL = e.TurnCancelRequested(reason="interrupted", by="message")
USED = e.Usage(10, 10)


def asked(state: State, now_ms: int | None = None, **bounds: Any) -> Command | None:
    """What is decided one second after the last entry."""
    return decide(state, msgspec.structs.replace(BOUNDS, **bounds), state.last_at_ms + 1_000 if now_ms is None else now_ms)


def uncertain(call: int = 1) -> e.ToolUncertain:
    return e.ToolUncertain(call=call, key=f"k{call}", approval=f"a{call}")


def resolved(outcome: str, call: int = 1, result: str = "") -> e.ApprovalResolved:
    return e.ApprovalResolved(approval=f"a{call}", call=call, outcome=outcome, result=result)


def waiting(kind: str = "approval") -> e.TurnWaiting:
    return e.TurnWaiting(kind=kind)


STATES: dict[str, tuple[Story, Command | None]] = {
    "nothing is known": (story(), Begin()),
    "queued": (story(queued()), Begin()),
    "started": (story(started()), CallModel(1, 1, 0)),
    "a model call is announced": (story(started(), model()), Listen(4)),
    "the model's worker is gone": (story(started(), model(), resumed()), ResetStream(4)),
    "the stream was reset": (story(started(), model(), resumed(), e.StreamReset(model_seq=4)), CallModel(1, 1, 0)),
    "a tool is asked for": (story(started(), model(), answer("look")), RunTools(run=(1,))),
    "three tools are asked for": (story(started(), model(), answer("look", "pay", "x")), RunTools(run=(1, 2, 3))),
    "one of two is denied": (
        story(started(), model(), answer("look", "pay"), e.ToolDenied(call=1, reason="invalid", message="no")),
        RunTools(run=(2,)),
    ),
    "all receipts are here": (
        story(started(), model(), answer("look"), intent(), e.ToolFinished(call=1, output="4")),
        CallModel(2, 1, 0),
    ),
    "a failed tool is a result too": (
        story(started(), model(), answer("look"), intent(), e.ToolFailed(call=1, error="exception", message="no")),
        CallModel(2, 1, 0),
    ),
    "answered": (
        story(started(), model(), final()),
        Finish(e.TurnCompleted(iterations=1, tool_calls=0, usage=USED)),
    ),
    "ended": (story(started(), model(), final(), e.TurnCompleted()), None),
    "denied": (story(queued(), e.TurnDenied(reason="unresolved_reference")), None),
    # --- receipts that were lost -----------------------------------------------------------------------------------------
    "read, orphaned": (story(started(), model(), answer("look"), intent(effect="read"), resumed()), RunTools(run=(1,))),
    "idempotent, orphaned": (
        story(started(), model(), answer("pay"), intent(effect="idempotent"), resumed()),
        RunTools(run=(1,)),
    ),
    "reconcilable, orphaned": (
        story(started(), model(), answer("pay"), intent(effect="reconcilable"), resumed()),
        RunTools(probe=(1,)),
    ),
    "unsafe, orphaned": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), resumed()),
        RunTools(uncertain=(1,)),
    ),
    "one of each, orphaned": (
        story(
            started(),
            model(),
            answer("look", "pay", "x", "x", "look"),
            intent(1, "read"),
            intent(2, "idempotent"),
            intent(3, "reconcilable"),
            intent(4, "unsafe"),
            resumed(),
        ),
        RunTools(run=(1, 2, 5), probe=(3,), uncertain=(4,)),
    ),
    "unsafe, its receipt lost without a crash": (
        story(started(), model(), answer("pay"), intent(effect="unsafe")),
        RunTools(uncertain=(1,)),
    ),
    "a tool that this turn does not know, orphaned as idempotent": (
        story(started(), model(), answer("x"), intent(effect="idempotent"), resumed()),
        RunTools(uncertain=(1,)),
    ),
    # --- a human is asked ------------------------------------------------------------------------------------------------
    "uncertain": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), resumed(), uncertain()),
        Wait("approval", ("a1",), detail="pay"),
    ),
    "two uncertain": (
        story(started(), model(), answer("pay", "x"), intent(1, "unsafe"), intent(2, "unsafe"), uncertain(1), uncertain(2)),
        Wait("approval", ("a1", "a2"), detail="pay, x"),
    ),
    "uncertain beside one that may run": (
        story(started(), model(), answer("pay", "look"), intent(1, "unsafe"), uncertain()),
        RunTools(run=(2,)),
    ),
    "retry": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), uncertain(), waiting(), resolved("retry"), resumed()),
        RunTools(run=(1,)),
    ),
    "done": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), uncertain(), waiting(), resolved("done"), resumed()),
        RunTools(settle=(1,)),
    ),
    "failed": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), uncertain(), waiting(), resolved("failed"), resumed()),
        RunTools(settle=(1,)),
    ),
    "one of two uncertain is decided": (
        story(
            started(),
            model(),
            answer("pay", "x"),
            intent(1, "unsafe"),
            intent(2, "unsafe"),
            uncertain(1),
            uncertain(2),
            resolved("done", 2),
        ),
        RunTools(settle=(2,)),
    ),
    "settled": (
        story(
            started(),
            model(),
            answer("pay"),
            intent(effect="unsafe"),
            uncertain(),
            resolved("done"),
            e.ToolFinished(call=1, output=""),
        ),
        CallModel(2, 1, 0),
    ),
    "retried, and lost again": (
        story(
            started(),
            model(),
            answer("pay"),
            intent(effect="unsafe"),
            uncertain(),
            resolved("retry"),
            intent(effect="unsafe", attempt=2),
            resumed(),
        ),
        RunTools(uncertain=(1,)),
    ),
    "an answer to an older question": (
        story(
            started(),
            model(),
            answer("pay"),
            intent(effect="unsafe"),
            e.ToolUncertain(call=1, key="k1", approval="newer"),
            resolved("done"),
        ),
        Wait("approval", ("newer",), detail="pay"),
    ),
    # --- steering --------------------------------------------------------------------------------------------------------
    "steered before it began": (
        story(queued(), e.MessageReceived(content="more"), e.InputSteered(message_seq=3), started()[2]),
        CallModel(1, 1, 0),
    ),
    "steered while tools ran": (
        story(
            started(),
            model(),
            answer("look"),
            intent(),
            e.MessageReceived(content="more"),
            e.InputSteered(message_seq=8),
            e.ToolFinished(call=1, output="4"),
        ),
        CallModel(2, 1, 0, joined=(8,)),
    ),
    "steered too late": (
        story(started(), model(), e.MessageReceived(content="more"), e.InputSteered(message_seq=5), final()),
        Finish(e.TurnCompleted(iterations=1, usage=USED), requeue=(5,)),
    ),
    "steered and joined": (
        story(
            started(),
            e.MessageReceived(content="more"),
            e.InputSteered(message_seq=4),
            e.InputSteered(message_seq=4, state="joined"),
            model(),
            final(),
        ),
        Finish(e.TurnCompleted(iterations=1, usage=USED)),
    ),
    "steered while it waits": (
        story(
            started(),
            model(),
            failed(),
            model(profile="spare", attempt=2),
            failed(),
            waiting("backoff"),
            e.MessageReceived(content="more"),
            e.InputSteered(message_seq=9),
            resumed("woken"),
        ),
        CallModel(1, 3, 0, joined=(9,)),
    ),
    # --- cancel, in every state --------------------------------------------------------------------------------------------
    "cancel, queued": (story(queued(), CANCEL), Finish(e.TurnCancelled(reason="interrupted", by="message"))),
    "cancel, started": (story(started(), CANCEL), Finish(e.TurnCancelled(reason="interrupted", by="message"))),
    "cancel, the model's worker is gone": (
        story(started(), model(), CANCEL, resumed()),
        Finish(e.TurnCancelled(reason="interrupted", by="message")),
    ),
    "cancel, tools are asked for": (
        story(started(), model(), answer("look", "pay"), CANCEL),
        Finish(e.TurnCancelled(reason="interrupted", by="message", usage=USED), abandon=(1, 2)),
    ),
    "cancel, one of each runs": (
        story(
            started(),
            model(),
            answer("look", "pay", "x", "x"),
            intent(1, "read"),
            intent(2, "idempotent"),
            intent(3, "reconcilable"),
            intent(4, "unsafe"),
            CANCEL,
        ),
        Finish(e.TurnCancelled(reason="interrupted", by="message", usage=USED), uncertain=(3, 4), abandon=(1, 2)),
    ),
    "cancel, uncertain: the question stays open": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), uncertain(), CANCEL),
        Finish(e.TurnCancelled(reason="interrupted", by="message", usage=USED)),
    ),
    "cancel, to be retried": (
        story(started(), model(), answer("pay"), intent(effect="unsafe"), uncertain(), resolved("retry"), CANCEL),
        Finish(e.TurnCancelled(reason="interrupted", by="message", usage=USED), abandon=(1,)),
    ),
    "cancel, backing off": (
        story(started(), model(), failed(), waiting("backoff"), CANCEL, resumed("woken")),
        Finish(e.TurnCancelled(reason="interrupted", by="message")),
    ),
    "cancel, answered": (
        story(started(), model(), final(), CANCEL),
        Finish(e.TurnCancelled(reason="interrupted", by="message", usage=USED)),
    ),
    "cancel, steered": (
        story(started(), e.MessageReceived(content="more"), e.InputSteered(message_seq=4), CANCEL),
        Finish(e.TurnCancelled(reason="interrupted", by="message"), requeue=(4,)),
    ),
    "cancel because the session is deleted: nothing runs after it": (
        story(started(), e.MessageReceived(content="more"), e.InputSteered(message_seq=4), e.TurnCancelRequested(reason="deleted")),
        Finish(e.TurnCancelled(reason="deleted")),
    ),
    "cancel, then rollback: the stronger wins": (
        story(started(), CANCEL, e.TurnCancelRequested(reason="rolled_back", rollback=True)),
        Finish(e.TurnCancelled(reason="rolled_back", rollback=True)),
    ),
    "rollback, then cancel: the stronger wins": (
        story(started(), e.TurnCancelRequested(reason="rolled_back", rollback=True), CANCEL),
        Finish(e.TurnCancelled(reason="rolled_back", rollback=True)),
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_each_state_has_its_command(name: str) -> None:
    journal, command = STATES[name]
    assert asked(journal.state()) == command


@pytest.mark.parametrize(("age_s", "command"), [(99.0, RunTools(run=(1,))), (101.0, RunTools(uncertain=(1,)))])
def test_an_idempotent_call_is_repeated_only_while_its_keys_are_honoured(age_s: float, command: Command) -> None:
    state = story(started(), model(), answer("pay"), intent(effect="idempotent"), resumed()).state()
    assert asked(state, state.call(1).first_started_ms + int(age_s * 1000), key_ttl_s={"pay": 100.0}) == command


def test_the_age_of_a_key_counts_from_its_first_use() -> None:
    journal = story(started(), model(), answer("pay"), intent(effect="idempotent"))
    first_ms = journal.at_ms
    journal.add(resumed(), intent(effect="idempotent", attempt=2), resumed(), after_ms=90_000)
    assert asked(journal.state(), first_ms + 99_000, key_ttl_s={"pay": 100.0}) == RunTools(run=(1,))
    assert asked(journal.state(), first_ms + 101_000, key_ttl_s={"pay": 100.0}) == RunTools(uncertain=(1,))


# --- limits ----------------------------------------------------------------------------------------------------------------


def ended_with(command: Command | None) -> str:
    """The reason of a `turn.failed` that was decided."""
    assert isinstance(command, Finish), command
    assert isinstance(command.end, e.TurnFailed), command
    return command.end.reason


def test_model_calls_are_limited_and_only_answered_ones_count() -> None:
    after_two = story(
        started(),
        model(),
        failed(),
        model(profile="spare", attempt=2),
        answer("look"),
        intent(),
        e.ToolFinished(call=1, output="4"),
        model(2),
        resumed(),
        e.StreamReset(model_seq=10),
        model(2),
        answer("look", first=2),
        intent(2),
        e.ToolFinished(call=2, output="4"),
    ).state()
    assert asked(after_two, model_calls_max=3) == CallModel(3, 1, 0)
    assert ended_with(asked(after_two, model_calls_max=2)) == "model_calls_exceeded"


def test_a_final_answer_at_the_limit_is_an_answer() -> None:
    assert asked(story(started(), model(), final()).state(), model_calls_max=1) == Finish(e.TurnCompleted(iterations=1, usage=USED))


def test_tool_calls_are_limited_before_any_of_the_answer_runs() -> None:
    state = story(started(), model(), answer("look", "look", "look")).state()
    assert asked(state, tool_calls_max=3) == RunTools(run=(1, 2, 3))
    command = asked(state, tool_calls_max=2)
    assert ended_with(command) == "tool_calls_exceeded"
    assert isinstance(command, Finish)
    assert command.abandon == (1, 2, 3)


def test_a_limit_that_was_lowered_does_not_stop_the_repeat_of_a_call_that_was_allowed() -> None:
    state = story(started(), model(), answer("look", "look"), intent(1), intent(2), resumed()).state()
    assert asked(state, tool_calls_max=1) == RunTools(run=(1, 2))


def test_tokens_are_limited_before_the_next_model_call() -> None:
    state = story(started(), model(), answer("look"), intent(), e.ToolFinished(call=1, output="4")).state()
    assert asked(state, tokens_max=21) == CallModel(2, 1, 0)
    assert ended_with(asked(state, tokens_max=20)) == "tokens_exceeded"


def test_the_cost_of_killed_and_failed_calls_counts() -> None:
    state = story(
        started(),
        model(),
        resumed(),
        e.StreamReset(model_seq=4, usage=e.Usage(5, 5, estimated=True)),
        model(),
        failed(usage=e.Usage(5, 5)),
    ).state()
    assert state.usage == e.Usage(10, 10, estimated=True)
    assert ended_with(asked(state, tokens_max=20)) == "tokens_exceeded"


def test_wall_time_is_limited_from_the_very_millisecond() -> None:
    state = story(started()).state()
    assert asked(state, state.active_since_ms + 9_999, wall_time_max_s=10.0) == CallModel(1, 1, 0)
    assert ended_with(asked(state, state.active_since_ms + 10_000, wall_time_max_s=10.0)) == "wall_time_exceeded"
    assert asked(state, state.active_since_ms + 10**9, wall_time_max_s=0.0) == CallModel(1, 1, 0)


def test_running_tools_that_the_wall_time_ended_are_said_to_be_doubtful() -> None:
    state = story(started(), model(), answer("look", "pay"), intent(1, "read"), intent(2, "unsafe")).state()
    command = asked(state, state.last_at_ms + 10_000_000)
    assert ended_with(command) == "wall_time_exceeded"
    assert isinstance(command, Finish)
    assert (command.uncertain, command.abandon) == ((2,), (1,))


# --- poison ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "journal",
    [
        story(queued()),
        story(started(), resumed()),
        story(started(), model(), resumed()),
        story(started(), model(), answer("look"), intent(), resumed()),
        story(started(), model(), final()),
    ],
)
def test_too_many_attempts_without_progress_end_the_turn_whatever_its_state(journal: Story) -> None:
    state = journal.state()
    assert not isinstance(asked(state, attempts=5, attempts_max=5), Finish) or state.answered
    assert ended_with(asked(state, attempts=6, attempts_max=5)) == "attempts_exhausted"


def test_a_cancel_request_wins_over_exhausted_attempts() -> None:
    command = asked(story(started(), CANCEL).state(), attempts=6)
    assert isinstance(command, Finish)
    assert isinstance(command.end, e.TurnCancelled)


def test_exhausted_attempts_are_decided_without_a_pin() -> None:
    unpinned = Bounds((), 1, 0, 0.0, 0, {}, attempts=6, attempts_max=5)
    state = story(started(), model(), resumed()).state()
    assert ended_with(decide(state, unpinned, state.last_at_ms)) == "attempts_exhausted"
