"""No poison (K13): whatever kills a process again and again is given up, and nothing that was beside it.

A small model of processes with their turns asks the rule as a worker does: what it may start, how long the others wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from talon.worker.suspects import ALONE_AT, admit, group_max, is_suspect, wait_ms

TICK_MS = 100


@dataclass
class Turn:
    """`fuse`: ticks until it ends its process; 0: it is innocent, and gets on every `pace` ticks, `steps` times."""

    fuse: int = 0
    pace: int = 1
    steps: int = 1
    attempts: int = 0
    wake: int = 0  # the tick from which on it can be claimed
    tried: int = 0  # in this attempt, as the process knows it
    ticks: int = 0  # since its last step, or its start
    got_on: bool = False
    ended: str = ""
    deaths: int = 0


@dataclass
class World:
    """One process after the other. `kills` are ticks at which somebody kills it."""

    turns: list[Turn]
    attempts_max: int = 5
    concurrency: int = 1_000
    kills: frozenset[int] = frozenset()
    now: int = 0
    deaths: int = 0
    running: list[Turn] = field(default_factory=list[Turn])

    def run(self) -> World:
        """Until all turns have ended."""
        while any(not turn.ended for turn in self.turns):
            self.now += 1
            assert self.now < 1_000_000, "this does not end"
            self._claim()
            self._work()
        return self

    def _claim(self) -> None:
        free = self.concurrency - len(self.running)
        ready = [turn for turn in self.turns if not turn.ended and turn not in self.running and turn.wake <= self.now][:free]
        held: list[Turn] = []
        for turn in ready:
            turn.tried = turn.attempts + 1
            if turn.tried > self.attempts_max:
                turn.ended = "given up"
            elif is_suspect(turn.tried, self.attempts_max):
                held.append(turn)
            else:
                self._start(turn)
        held.sort(key=lambda turn: turn.tried)
        beside = [turn.tried for turn in self.running if not turn.got_on and is_suspect(turn.tried, self.attempts_max)]
        count = admit(beside, [turn.tried for turn in held], self.attempts_max)
        for turn in held[:count]:
            self._start(turn)
        for place, turn in enumerate(held[count:]):
            turn.wake = self.now + wait_ms(place, turn.tried, self.attempts_max) // TICK_MS

    def _start(self, turn: Turn) -> None:
        turn.attempts, turn.ticks, turn.got_on = turn.tried, 0, False
        self.running.append(turn)

    def _work(self) -> None:
        dies = self.now in self.kills
        for turn in list(self.running):
            turn.ticks += 1
            if turn.fuse:
                dies = dies or turn.ticks >= turn.fuse
            elif turn.ticks >= turn.pace:
                turn.attempts, turn.ticks, turn.got_on = 0, 0, True
                turn.steps -= 1
                if turn.steps == 0:
                    turn.ended = "completed"
                    self.running.remove(turn)
        if dies:
            self.deaths += 1
            for turn in self.running:
                turn.deaths += 1
            self.running.clear()


POISON = st.builds(Turn, fuse=st.integers(1, 20))
INNOCENT = st.builds(Turn, pace=st.integers(1, 20), steps=st.integers(1, 3))


def fates(turns: list[Turn]) -> set[tuple[bool, str]]:
    return {(turn.fuse > 0, turn.ended) for turn in turns}


@given(st.lists(POISON, min_size=1, max_size=4), st.lists(INNOCENT, max_size=90), st.randoms(), st.integers(2, 12))
def test_what_kills_its_process_is_given_up_and_what_runs_beside_it_never(
    poisons: list[Turn], innocents: list[Turn], rng: Random, attempts_max: int
) -> None:
    turns = [*poisons, *innocents]
    rng.shuffle(turns)
    world = World(turns, attempts_max).run()
    assert fates(turns) <= {(True, "given up"), (False, "completed")}
    assert {poison.deaths for poison in poisons} == {attempts_max}
    assert world.deaths <= attempts_max * len(poisons)


@given(POISON, st.lists(INNOCENT, max_size=60), st.integers(0, 60), st.integers(1, 20))
def test_one_that_kills_is_found_wherever_it_waits_in_a_queue(
    poison: Turn, innocents: list[Turn], place: int, concurrency: int
) -> None:
    turns = [*innocents[:place], poison, *innocents[place:]]
    assert World(turns, concurrency=concurrency).run().deaths == 5
    assert fates(turns) <= {(True, "given up"), (False, "completed")}


@given(st.lists(INNOCENT, min_size=1, max_size=90), st.frozensets(st.integers(1, 150), max_size=12))
def test_of_turns_that_somebody_kills_each_kill_after_the_fourth_can_end_one(turns: list[Turn], kills: frozenset[int]) -> None:
    World(turns, kills=kills).run()
    assert sum(turn.ended == "given up" for turn in turns) <= max(0, len(kills) - ALONE_AT + 1)


def test_two_hundred_turns_that_were_killed_twice_run_in_three_groups_and_after_five_times_none_is_lost() -> None:
    def ended(kills: frozenset[int]) -> float:
        turns = [Turn(pace=30, steps=3) for _ in range(200)]
        world = World(turns, kills=kills).run()
        assert fates(turns) == {(False, "completed")}
        return (world.now - max(kills)) * TICK_MS / 1000

    assert ended(frozenset({20, 40})) <= 25
    assert ended(frozenset({20, 40, 60, 80, 100})) <= 120


def test_a_group_gets_smaller_with_each_attempt_until_the_last_is_alone() -> None:
    assert [group_max(attempts, 5) for attempts in (3, 4, 5)] == [64, 8, 1]
    for attempts_max in range(2, 20):
        assert group_max(attempts_max, attempts_max) == 1
        assert not is_suspect(1, attempts_max), "a first attempt accuses nobody"
        assert not is_suspect(attempts_max + 1, attempts_max), "what is ended needs no place"


def test_the_most_suspected_turn_says_how_large_a_group_is() -> None:
    assert admit([], [3] * 70, 5) == 64
    assert admit([3] * 60, [3] * 70, 5) == 4
    assert admit([3] * 3, [3, 4, 4, 4, 4, 4, 5], 5) == 5
    assert admit([5], [3], 5) == 0
    assert admit([], [5, 5], 5) == 1
    assert admit([3] * 64, [], 5) == 0
