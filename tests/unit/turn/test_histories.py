"""`decide` is total: random, legal histories with crashes, steering, cancels and humans come to one end within a bound."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.turns import BOUNDS
from support.turnsim import Simulation
from talon.domain import entries as e
from talon.turn.machine import Bounds

LIMITS = st.builds(
    Bounds,
    profiles=st.sampled_from([("main",), ("main", "spare"), ("a", "b", "c")]),
    model_calls_max=st.integers(1, 6),
    tool_calls_max=st.integers(0, 8),
    wall_time_max_s=st.sampled_from([0.0, 1.0, 3600.0]),
    tokens_max=st.sampled_from([0, 50, 1000]),
    key_ttl_s=st.just(BOUNDS.key_ttl_s),
    attempts_max=st.integers(1, 5),
)


@settings(max_examples=300, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), LIMITS)
def test_every_history_comes_to_exactly_one_end_and_breaks_no_law(random: Random, bounds: Bounds) -> None:
    Simulation(random, bounds).run()


def test_the_simulation_reaches_every_end_and_every_command() -> None:
    """The test above means something only if its histories are rich. Seeds are fixed: a failure names its own."""
    ends: set[str] = set()
    commands: set[str] = set()
    types: set[str] = set()
    for seed in range(400):
        print(f"seed {seed}")
        random = Random(seed)
        bounds = msgspec.structs.replace(
            BOUNDS,
            model_calls_max=random.randint(1, 8),
            tool_calls_max=random.choice((2, 50)),
            wall_time_max_s=random.choice((1.0, 3600.0)),
            tokens_max=random.choice((0, 60)),
            attempts_max=random.choice((1, 5)),
            model_retries_max=random.choice((0, 1, 20)),
        )
        simulation = Simulation(random, bounds)
        state = simulation.run()
        assert state.ended is not None
        reason = getattr(state.ended, "reason", "")
        ends.add(f"{state.ended.type}: {reason}")
        commands |= {type(command).__name__ for command in simulation.commands}
        types |= {entry.type for entry in simulation.journal.entries}
    assert ends >= {
        "turn.completed: answered",
        "turn.cancelled: cancelled",
        "turn.cancelled: rolled_back",
        "turn.failed: attempts_exhausted",
        "turn.failed: model_calls_exceeded",
        "turn.failed: tool_calls_exceeded",
        "turn.failed: tokens_exceeded",
        "turn.failed: wall_time_exceeded",
        "turn.failed: model_failed",
        "turn.failed: model_retries_exceeded",
    }
    assert commands == {"Begin", "CallModel", "Listen", "ResetStream", "RunTools", "Wait", "Finish"}
    assert types >= {"stream.reset", "tool.uncertain", "approval.resolved", "input.steered", "tool.denied"}


def test_a_machine_that_forgets_a_receipt_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a broken machine must fail the law within the same histories."""
    from talon.turn import machine

    def broken(state: machine.State, bounds: Bounds, now_ms: int) -> machine.Command | None:
        calls = tuple(
            msgspec.structs.replace(call, status="requested") if call.status == "orphaned" else call for call in state.calls
        )
        return decide(msgspec.structs.replace(state, calls=calls), bounds, now_ms)

    decide = machine.decide
    monkeypatch.setattr(machine, "decide", broken)

    def many() -> None:
        for seed in range(200):
            Simulation(Random(seed)).run()

    with pytest.raises(AssertionError, match=r"runs again|ran again|without a probe"):
        many()


def test_an_end_is_an_end() -> None:
    for seed in range(50):
        simulation = Simulation(Random(seed))
        state = simulation.run()
        later = simulation.journal.add(
            e.MessageReceived(content="late"), e.TurnCancelRequested(), e.ApprovalResolved(approval="a", call=1, outcome="retry")
        ).state()
        assert later.ended == state.ended, f"seed {seed}"
        assert machine_is_quiet(later), f"seed {seed}"


def machine_is_quiet(state: object) -> bool:
    from talon.turn.machine import State, decide

    assert isinstance(state, State)
    return decide(state, BOUNDS, state.last_at_ms + 10**9) is None
