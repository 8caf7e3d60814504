"""When a cost counts as flat, and what of it is noise or the depth of an index."""

from __future__ import annotations

from bench.flatness import judged, text

WORLDS = ("10", "10 again", "100000")


def verdict(**measured: tuple[float | list[float], ...]) -> list[str]:
    """What is not flat of readings on two stores of ten and one of 100,000."""
    worlds = {world: {key: values[place] for key, values in measured.items()} for place, world in enumerate(WORLDS)}
    found = judged({"get": worlds})
    assert found["flat"] is not bool(found["questions"]["get"]["not_flat"])
    return found["questions"]["get"]["not_flat"]


def test_what_is_read_may_grow_by_three_tenths_and_no_more() -> None:
    assert verdict(rows=(10, 10, 13)) == []
    assert verdict(rows=(10, 10, 13.1)) == ["rows"]
    assert verdict(steps=(100, 100, 200)) == ["steps"]


def test_rows_are_judged_whatever_two_stores_of_one_size_differ_by() -> None:
    assert verdict(rows=(10, 30, 20)) == ["rows"]
    assert verdict(rows=(30, 10, 20)) == ["rows"]


def test_cpu_is_compared_in_each_round_so_that_a_slow_one_does_not_count() -> None:
    rounds = [1.0, 9.0, 2.0]
    assert verdict(talon_ms=(rounds, rounds, [1.2, 11.0, 2.4])) == []
    assert verdict(talon_ms=(rounds, rounds, [1.4, 12.6, 2.8])) == ["talon_ms"]
    assert verdict(talon_ms=(rounds, rounds, [1.0, 90.0, 2.0])) == []


def test_cpu_may_differ_as_much_as_that_of_two_stores_of_one_size() -> None:
    assert verdict(talon_ms=([1.0], [2.0], [2.4])) == []
    assert verdict(talon_ms=([2.0], [1.0], [3.2])) == ["talon_ms"]


def test_pages_may_grow_by_two_levels_for_each_way_down_an_index() -> None:
    assert verdict(descents=(5, 5, 5), pages=(10, 10, 23)) == []
    assert verdict(descents=(5, 5, 5), pages=(10, 10, 23.1)) == ["pages"]


def test_a_table_says_what_was_measured_how_it_grew_and_what_is_noise() -> None:
    worlds = {"10": {"steps": 70.0}, "10 again": {"steps": 77.0}, "100000": {"steps": 140.0}}
    shown = text({"stores": {"sqlite": judged({"get one": worlds})}})
    assert shown.splitlines()[0] == "sqlite: NOT FLAT: get one"
    assert shown.splitlines()[-1].replace(" ", "") == "|steps|70|77|140|2.0|–|"
