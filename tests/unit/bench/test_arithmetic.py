"""The bench's own arithmetic: percentiles, medians of ratios, targets, the table."""

from __future__ import annotations

from typing import Any

import pytest

from bench.model import TOKENS, behaviour
from bench.stats import is_noise, median, median_ratio, percentile, window
from bench.table import grid, number, render
from bench.targets import TARGETS, Target, Value, judge


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values[::-1], 1.0) == 100
    assert percentile([7.0], 0.01) == 7


def test_nothing_has_no_percentile_and_no_median() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_the_median_of_an_even_count_lies_between_the_two_in_the_middle() -> None:
    assert median([4, 1, 3, 2]) == 2.5
    assert median([9, 1, 5]) == 5


def test_ratios_are_taken_in_each_round_and_then_their_median() -> None:
    # The ratio of the medians would be 20 / 10 = 2.
    assert median_ratio([10, 20, 90], [10, 5, 30]) == 3
    assert median_ratio([10, None, 30], [5, 5, 0]) == 2
    assert median_ratio([None], [1]) is None


def test_small_differences_of_wall_time_are_none() -> None:
    assert is_noise(1.29)
    assert is_noise(0.78)
    assert not is_noise(1.31)
    assert not is_noise(0.76)


def test_the_cost_of_a_late_turn_is_taken_with_its_neighbours_and_that_of_the_first_alone() -> None:
    costs = [float(turn) for turn in range(1, 201)]
    assert window(costs, 1) == 1
    assert window([*costs[:-1], 1e9], 200) == 195
    assert window([1.0] * 49 + [1e9] + [1.0] * 150, 50) == 1


def readings(turns_s: float) -> dict[str, Any]:
    return {"16 sessions": {"turns_s": turns_s, "done_ms": {"p50": 1000 / turns_s}}}


def test_a_target_is_judged_by_the_direction_that_is_better() -> None:
    rounds = [{"talon": readings(600), "langgraph": readings(100)}, {"talon": readings(800), "langgraph": readings(100)}]
    ours, theirs = Value("talon", "16 sessions", "turns_s"), Value("langgraph", "16 sessions", "turns_s")
    more = judge(Target("more", ours, theirs, 5, 10, up=True, wall=True), rounds)
    assert (more.value, more.reached, more.aimed, more.remark) == (7, True, False, "")
    p50 = "done_ms.p50"
    less = judge(Target("less", Value("talon", "16 sessions", p50), Value("langgraph", "16 sessions", p50), 0.2, 0.1), rounds)
    assert less.value == pytest.approx((1 / 6 + 1 / 8) / 2, rel=0.005)
    assert (less.reached, less.aimed) == (True, False)
    assert judge(Target("bound", ours, None, 600, 700, up=True), rounds).aimed is True
    equal = judge(Target("equal", ours, ours, 0.9, 1.1, up=True, wall=True), rounds)
    assert (equal.reached, equal.aimed, equal.remark) == (True, False, "no difference")


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    row = judge(TARGETS[0], [{"talon": readings(600)}])
    assert (row.value, row.reached, row.aimed, row.remark) == (None, None, None, "not measured")


def test_the_table_shows_every_target_and_every_subject() -> None:
    rounds = [{"talon": readings(600), "langgraph": readings(100)}]
    document = {"date": "2026-11-20", "commit": "abc", "machine": {"cpu": "one"}, "postgres": "18"}
    text = render(document, rounds, [judge(target, rounds) for target in TARGETS])
    assert all(target.what in text for target in TARGETS)
    assert "| talon     |     600 |" in text
    assert "| turns/s, 16 sessions / langgraph " in text
    assert "|   6 × |      5 × |     yes |    10 × |      NO |" in text


def test_tables_line_up_and_numbers_keep_three_digits() -> None:
    lines = grid(("a", "value"), [("long name", "1"), ("b", "22")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [number(value) for value in (None, 0.0, 0.1234, 1.234, 12345.6, 7.0)] == ["–", "0", "0.123", "1.23", "12,346", "7"]


def test_a_models_name_says_what_it_does() -> None:
    assert behaviour("look_up/300/0") == ("look_up", 0.3, 0.0)
    assert behaviour("none/0/10") == ("", 0.0, 10.0)
    assert len(TOKENS) == 50
