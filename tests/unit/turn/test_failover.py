"""Which model is asked next, after whatever failed before: the rule of each class of error, rests, circuits, budgets."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import pytest

from support.turns import BOUNDS, answer, extended, failed, intent, model, resumed, started, story
from talon.domain import entries as e
from talon.providers.protocol import RETRYABLE, ErrorClass
from talon.turn.ledger import is_progress
from talon.turn.machine import CallModel, Command, Finish, ResetStream, State, Wait, apply, decide
from talon.turn.machine.failover import BACKOFF_FIRST_MS, BACKOFF_MAX_MS, MODEL_ROUNDS_MAX, RULES, jitter_ms

#: Two models of one provider, then one of another.
THREE: dict[str, Any] = {"profiles": ("main", "sister", "spare"), "providers": {"main": "p", "sister": "p", "spare": "q"}}
CLASSES: tuple[str, ...] = ErrorClass.__args__


def asked(state: State, now_ms: int | None = None, **bounds: Any) -> Command | None:
    """What is decided one second after the last entry."""
    return decide(state, msgspec.structs.replace(BOUNDS, **bounds), state.last_at_ms + 1_000 if now_ms is None else now_ms)


def reason(command: Command | None) -> str:
    assert isinstance(command, Finish), command
    end = command.end
    assert isinstance(end, e.TurnFailed | e.TurnDenied)
    return end.reason


def rest(command: Command | None) -> int:
    assert isinstance(command, Wait), command
    assert (command.kind, command.delay_ms is not None) == ("backoff", True)
    return command.delay_ms or 0


def rested(state: State) -> State:
    return extended(state, e.TurnWaiting(kind="backoff"), resumed("woken"))


def after(error: str, profile: str = "main") -> State:
    return story(started(), model(profile=profile), failed(error, retryable=error in RETRYABLE)).state()


def test_every_class_of_error_has_a_rule() -> None:
    assert set(RULES) == set(CLASSES)


#: Class -> (number of the profile that is asked next, None: the turn ends; the same with `onRefusal: next`).
NEXT: Mapping[str, tuple[int | None, int | None]] = dict.fromkeys(RETRYABLE, (1, 1)) | {
    "bad_request": (1, 1),
    "authentication": (2, 2),
    "unresolved": (2, 2),
    "context_overflow": (2, 2),
    "content_filter": (None, 2),
    "refusal": (None, 1),
}


@pytest.mark.parametrize("error", CLASSES)
def test_who_is_asked_after_each_class(error: str) -> None:
    windows = {"main": 8_000, "sister": 8_000, "spare": 200_000}
    for on_refusal, expected in zip(("end", "next"), NEXT[error], strict=True):
        command = asked(after(error), **THREE, windows=windows, on_refusal=on_refusal)
        if expected is None:
            assert reason(command) == "model_failed"
        else:
            assert command == CallModel(1, 2, expected)


def test_a_context_that_was_too_long_goes_to_a_window_that_is_larger_or_not_known() -> None:
    state = after("context_overflow")
    assert asked(state, **THREE, windows={"main": 8_000, "spare": 200_000}) == CallModel(1, 2, 1), "sister's is not known"
    assert asked(state, **THREE, windows={"main": 8_000, "sister": 9_000, "spare": 200_000}) == CallModel(1, 2, 1)
    assert reason(asked(state, **THREE, windows=dict.fromkeys(THREE["profiles"], 8_000))) == "model_failed"


def test_another_profile_is_tried_at_once_and_a_round_over_all_is_followed_by_a_rest() -> None:
    state = after("server")
    assert asked(state) == CallModel(1, 2, 1)
    state = extended(state, model(profile="spare", attempt=2), failed("overloaded"))
    command = asked(state)
    assert 0 <= rest(command) <= BACKOFF_FIRST_MS
    assert isinstance(command, Wait)
    assert command.detail == "overloaded: it said no"
    assert asked(rested(state)) == CallModel(1, 3, 0)


def test_rests_are_drawn_from_the_whole_of_a_span_that_doubles_and_the_rounds_come_to_an_end() -> None:
    spans: list[list[int]] = [[] for _ in range(MODEL_ROUNDS_MAX - 1)]
    for number in range(200):
        state = story(started()).state()
        state = msgspec.structs.replace(state, turn_id=f"turn-{number}")
        rests: list[int] = []
        while isinstance(command := asked(state, profiles=("main",)), Wait | CallModel):
            if isinstance(command, Wait):
                rests.append(rest(command))
                state = rested(state)
            else:
                state = extended(state, model(attempt=command.attempt), failed())
        assert reason(command) == "model_failed"
        for span, drawn in zip(spans, rests, strict=True):
            span.append(drawn)
    for number, span in enumerate(spans):
        ceiling = min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2**number)
        assert 0 <= min(span) < 0.1 * ceiling
        assert 0.9 * ceiling < max(span) <= ceiling
        assert 0.4 * ceiling < sum(span) / len(span) < 0.6 * ceiling


def test_the_same_state_draws_the_same_rest() -> None:
    state = after("server")
    assert jitter_ms(state, 30_000) == jitter_ms(state, 30_000)
    assert len({jitter_ms(msgspec.structs.replace(state, last_seq=seq), 30_000) for seq in range(20)}) > 10


def test_a_profile_that_fails_for_good_is_not_asked_again() -> None:
    state = after("authentication")
    assert asked(state) == CallModel(1, 2, 1)
    state = extended(state, model(profile="spare", attempt=2), failed())
    rest(asked(state))
    state = rested(state)
    assert asked(state) == CallModel(1, 3, 1)
    state = extended(state, model(profile="spare", attempt=3), failed("bad_request", retryable=False))
    assert reason(asked(state)) == "model_failed"


def test_a_turn_whose_models_could_not_be_asked_at_all_is_denied_by_name() -> None:
    unresolved = e.ModelFailed(error="unresolved", detail="no secret 'key'")
    state = story(started(), model(), unresolved).state()
    assert asked(state) == CallModel(1, 2, 1), "the spare may have its key"
    both = extended(state, model(profile="spare", attempt=2), unresolved)
    command = asked(both)
    assert isinstance(command, Finish)
    assert command.end == e.TurnDenied(reason="unresolved_reference", detail="no secret 'key'")
    one_was = extended(state, model(profile="spare", attempt=2), failed("authentication", retryable=False))
    assert reason(asked(one_was)) == "model_failed"


def test_retry_after_is_honoured_for_the_profile_that_asked_for_it_while_others_are_asked() -> None:
    state = story(started(), model(), failed("rate_limit", retry_after_s=60.0), model(profile="spare", attempt=2), failed()).state()
    assert rest(asked(state)) <= BACKOFF_FIRST_MS
    assert asked(rested(state)) == CallModel(1, 3, 1), "the first one is left alone"
    alone = story(started(), model(), failed("rate_limit", retry_after_s=60.0)).state()
    assert 59_000 <= rest(asked(alone, profiles=("main",))) <= 59_000 + BACKOFF_FIRST_MS, "one second has passed"
    assert asked(rested(alone), alone.last_at_ms + 61_000, profiles=("main",)) == CallModel(1, 2, 0)


def test_a_clock_that_is_set_back_makes_no_rest_longer() -> None:
    """The entries of a turn bear times an hour ahead: no model is better left alone for that hour (K6)."""
    alone: dict[str, Any] = {"profiles": ("main",), "providers": {"main": "p"}}
    only = after("server")
    assert rest(asked(only, only.last_at_ms - 3_600_000, **alone)) <= BACKOFF_FIRST_MS
    told = story(started(), model(), failed("rate_limit", retryable=True, retry_after_s=30.0)).state()
    assert rest(asked(told, told.last_at_ms - 3_600_000, **alone)) <= 30_000 + BACKOFF_FIRST_MS


def test_an_open_circuit_is_passed_over_and_waited_for_only_where_nobody_else_is_left() -> None:
    fresh = story(started()).state()
    assert asked(fresh, resting={"main": 5_000}) == CallModel(1, 1, 1)
    assert 4_000 <= rest(asked(fresh, resting={"main": 5_000, "spare": 4_000})) <= 4_000 + BACKOFF_FIRST_MS
    waits = asked(fresh, resting={"main": 5_000, "spare": 4_000})
    assert isinstance(waits, Wait)
    assert waits.detail == "no model may be asked yet: the circuits of main, spare are open"
    assert asked(rested(fresh), resting={"main": 5_000, "spare": 4_000}) == CallModel(1, 1, 1, anyway=True)
    assert asked(rested(fresh), resting={"main": 5_000}) == CallModel(1, 1, 1)


def test_the_budget_of_retries_is_the_whole_turns() -> None:
    state = story(started(), model(), failed(), model(profile="spare", attempt=2), answer("look"), intent()).state()
    state = extended(state, e.ToolFinished(call=1, output="4"), model(2), failed())
    assert asked(state, model_retries_max=2) == CallModel(2, 2, 1)
    command = asked(state, model_retries_max=1)
    assert reason(command) == "model_retries_exceeded"
    assert asked(state, model_retries_max=0) == CallModel(2, 2, 1), "0 is no limit"


def test_a_takeover_is_no_rest() -> None:
    state = story(started(), model(), failed(), resumed()).state()
    rest(asked(state, profiles=("main",)))


def test_a_back_off_whose_end_was_killed_is_a_rest() -> None:
    state = story(started(), model(), failed(), e.TurnWaiting(kind="backoff"), resumed("woken"), resumed()).state()
    assert asked(state, profiles=("main",)) == CallModel(1, 2, 0)


def test_failures_are_forgotten_with_the_next_answer() -> None:
    state = story(started(), model(), failed(), model(profile="spare", attempt=2), answer("look"), intent()).state()
    state = extended(state, e.ToolFinished(call=1, output="4"))
    assert asked(state) == CallModel(2, 1, 0)


def test_whatever_fails_in_whatever_order_the_turn_ends_and_nobody_is_asked_who_is_out() -> None:
    for seed in range(400):
        random = Random(seed)
        names = tuple(f"m{number}" for number in range(random.randint(1, 5)))
        bounds: dict[str, Any] = {
            "profiles": names,
            "providers": {name: random.choice("pq") for name in names},
            "windows": {name: random.choice((0, 1000, 2000)) for name in names},
            "on_refusal": random.choice(("end", "next")),
            "model_retries_max": random.choice((0, 3, 20)),
        }
        state, now_ms, calls, out = story(started()).state(), 0, 0, set[str]()
        for _ in range(200):
            now_ms = state.last_at_ms + random.choice((0, 1_000, 60_000))
            resting = {name: random.randint(1, 9_000) for name in names if random.random() < 0.3}
            command = asked(state, now_ms, **bounds, resting=resting)
            if isinstance(command, Finish):
                break
            if isinstance(command, Wait):
                state = apply(state, e.TurnWaiting(kind="backoff"), state.last_seq + 1, now_ms)
                state = apply(state, resumed("woken"), state.last_seq + 1, now_ms + (command.delay_ms or 0))
                continue
            assert isinstance(command, CallModel), (seed, command)
            name, error = names[command.profile], random.choice(CLASSES)
            assert name not in out, f"seed {seed}: {name} is out"
            calls += 1
            if RULES[error] in ("model", "provider", "window"):
                out.add(name)
            wait_s = random.choice((None, 0.5, 30.0))
            state = extended(state, model(profile=name, attempt=command.attempt), failed(error, error in RETRYABLE, wait_s))
        else:
            raise AssertionError(f"seed {seed}: the turn does not end")
        assert calls <= MODEL_ROUNDS_MAX * len(names), f"seed {seed}"


# --- answers that break in the middle -------------------------------------------------------------------------------------------

GOING: dict[str, Any] = {**THREE, "continuing": ("main", "spare")}


def going(**other: Any) -> dict[str, Any]:
    return {**GOING, **other}


def broken(error: str = "connection", kept: int = 10, **of: Any) -> list[e.Payload]:
    """A call, and how it broke off."""
    started_at = e.ModelStarted(iteration=1, provider="p", model="m", profile=of.pop("profile", "main"), **of)
    return [started_at, e.ModelFailed(error=error, retryable=True, kept=kept)]


def call(command: Command | None) -> tuple[str, int, int, int]:
    """(profile, continues, offset, drops)."""
    assert isinstance(command, CallModel), command
    return THREE["profiles"][command.profile], command.continues, command.offset, command.drops


def test_the_model_that_broke_off_goes_on_at_once_as_long_as_it_adds_to_its_answer() -> None:
    state = story(started(), broken()).state()
    assert call(asked(state, **GOING)) == ("main", 4, 10, 0)
    again = extended(state, *broken(kept=25, continues=4, offset=10))
    assert call(asked(again, **GOING)) == ("main", 4, 25, 0)
    stuck = extended(again, *broken(kept=25, continues=4, offset=25))
    assert call(asked(stuck, **GOING))[0] != "main"
    for _ in range(MODEL_ROUNDS_MAX):
        kept = state.kept.chars if state.kept else 0
        state = extended(state, *broken(kept=kept + 5, continues=4, offset=kept))
    assert call(asked(state, **GOING))[0] != "main", "it had its rounds"


def test_another_model_goes_on_if_it_can_and_else_begins_again() -> None:
    state = story(started(), broken("overloaded")).state()
    assert call(asked(state, **going(continuing=("main", "sister")))) == ("sister", 4, 10, 0)
    assert call(asked(state, **GOING)) == ("sister", 0, 0, 4), "its text is dropped"
    assert call(asked(state, **THREE)) == ("sister", 0, 0, 4)


def test_a_model_whose_circuit_is_open_or_that_refused_to_go_on_is_not_asked_to() -> None:
    state = story(started(), broken()).state()
    assert call(asked(state, **going(resting={"main": 5_000}))) == ("sister", 0, 0, 4)
    refused = extended(state, *broken("bad_request", kept=10, continues=4, offset=10))
    only = asked(refused, **going(profiles=("main",), continuing=("main",)))
    assert isinstance(only, Wait | CallModel), "it may still be asked from the beginning"
    assert not isinstance(only, CallModel) or only.continues == 0


def test_a_steered_message_joins_behind_the_answer_that_is_gone_on_with() -> None:
    state = story(started(), broken()).state()
    steered = extended(state, e.MessageReceived(content="and?", strategy="steer"), e.InputSteered(message_seq=6))
    command = asked(steered, **GOING)
    assert isinstance(command, CallModel)
    assert (command.continues, command.joined) == (4, ())
    plain = asked(steered, **THREE)
    assert isinstance(plain, CallModel)
    assert (plain.drops, plain.joined) == (4, (6,))


def test_a_lost_worker_is_no_failure_of_the_model() -> None:
    orphaned = extended(story(started(), e.ModelStarted(iteration=1, provider="p", model="m", profile="main")).state(), resumed())
    command = asked(orphaned, **GOING)
    assert command == ResetStream(4, may_keep=True)
    assert asked(orphaned, **THREE) == ResetStream(4)
    lost = e.ModelFailed(error="worker_lost", retryable=True, kept=7)
    assert (is_progress(lost), is_progress(failed())) == (False, True)
    kept = extended(orphaned, lost)
    assert (kept.failures, kept.retries, kept.model) == ((), 0, None)
    assert call(asked(kept, **GOING)) == ("main", 4, 7, 0)
    again = extended(kept, e.ModelStarted(iteration=1, provider="p", model="m", profile="main", continues=4, offset=7), resumed())
    assert asked(again, **GOING) == ResetStream(4, may_keep=True), "the text has one name, however often it broke"


def test_what_is_finished_or_dropped_is_not_gone_on_with() -> None:
    state = story(started(), broken()).state()
    assert extended(state, e.StreamReset(model_seq=4)).kept is None
    finished = extended(state, e.ModelStarted(iteration=1, provider="p", model="m", continues=4, offset=10), *answer("look"))
    assert (finished.kept, finished.failures) == (None, ())
