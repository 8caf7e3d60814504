"""Which models a turn may ask, in which order, and the rules that say so."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from talon.domain.models import ModelInfo, Models, Prices, Task
from talon.domain.session import SessionConfig
from talon.manifest.choosing import Choice, Wanted, choose, task_of
from talon.manifest.effective import Effective, Profile, Route

PROFILES = (Profile("main", "p", "big"), Profile("quick", "q", "tiny"), Profile("gone", "nobody", "x"))
PRICES = Prices(Decimal(1), Decimal(1))
MODELS = Models(
    [
        ModelInfo("p", "big", "premium", 200_000, prices=PRICES),
        ModelInfo("q", "tiny", "cheap", 8_000, prices=PRICES),
        ModelInfo("q", "middle", "mid", prices=PRICES),
    ]
)


def chosen(wanted: Wanted | None = None, served: tuple[str, ...] = ("p", "q"), **effective: Any) -> Choice:
    fields: dict[str, Any] = {"profiles": PROFILES} | effective
    return choose(Effective("n", "a", "", **fields), wanted or Wanted(), served, MODELS)


def asked(choice: Choice) -> list[str]:
    return [f"{one.provider}/{one.model}" for one in choice.profiles]


def test_profiles_in_their_order_without_those_that_nobody_serves() -> None:
    choice = chosen()
    assert asked(choice) == ["p/big", "q/tiny"]
    assert choice.windows == {"main": 200_000, "quick": 8_000}
    assert "5 gone is left out: no provider 'nobody' is configured" in choice.rules


def test_a_profile_by_name_is_asked_alone_and_the_sessions_wins() -> None:
    assert asked(chosen(profile="quick")) == ["q/tiny"]
    assert asked(chosen(Wanted(profile="main"), profile="quick")) == ["p/big"]
    assert chosen(Wanted(profile="nope")).problem == "agent 'a' has no model profile 'nope'"


def test_the_tier_of_the_task_comes_first_where_the_agent_wants_it_so() -> None:
    assert asked(chosen(Wanted(task=Task("summarization")), select="task")) == ["q/tiny", "p/big"]
    assert asked(chosen(Wanted(task=Task("reasoning", "high")), select="task")) == ["p/big", "q/tiny"]
    assert task_of(Effective("n", "a", "", PROFILES, tool_refs=("t",))).type == "orchestration"
    assert task_of(Effective("n", "a", "", PROFILES)).type == "chat"


def test_a_route_is_asked_alone_by_profile_by_id_and_by_a_models_name() -> None:
    routing = {"0": Route("middle", ("main", "q/other", "unknown"))}
    choice = chosen(routing=routing)
    assert asked(choice) == ["q/middle", "p/big", "q/other"]
    assert any("unknown is left out" in rule for rule in choice.rules)


def test_data_goes_the_route_of_its_tier_or_of_the_next_stricter_one_never_of_a_laxer() -> None:
    routing = {"0": Route("q/tiny"), "2": Route("p/big")}
    assert [asked(chosen(Wanted(data_tier=tier), routing=routing)) for tier in range(3)] == [["q/tiny"], ["p/big"], ["p/big"]]
    lax = {"0": Route("q/tiny")}
    assert asked(chosen(Wanted(data_tier=1), routing=lax)) == ["p/big", "q/tiny"], "no route holds: the profiles"
    assert asked(chosen(profiles=(), routing=lax)) == ["q/tiny"], "a route needs no profiles"
    assert "no route of model_routing is for data of tier 1" in chosen(Wanted(data_tier=1), profiles=(), routing=lax).problem


def test_a_sessions_model_comes_first_and_the_others_stay_behind_it() -> None:
    for model in ("q/tiny", "tiny", "quick"):
        assert asked(chosen(Wanted(config=SessionConfig(model=model)))) == ["q/tiny", "p/big"], model
    assert asked(chosen(Wanted(config=SessionConfig(model="middle")))) == ["q/middle", "p/big", "q/tiny"]
    assert "no configured provider is known to have it" in chosen(Wanted(config=SessionConfig(model="what"))).problem


def test_a_sessions_model_does_not_leave_a_route() -> None:
    routing = {"0": Route("q/tiny", ("p/big",))}
    assert asked(chosen(Wanted(config=SessionConfig(model="big")), routing=routing)) == ["p/big", "q/tiny"]
    assert "not one of the route" in chosen(Wanted(config=SessionConfig(model="q/middle")), routing=routing).problem


def test_a_sessions_thinking_level_takes_the_place_of_the_profiles() -> None:
    choice = chosen(Wanted(config=SessionConfig(thinking_level="high")), profiles=(Profile("main", "p", "big", thinking="off"),))
    assert [one.thinking for one in choice.profiles] == ["high"]


def test_without_any_provider_the_reason_names_them() -> None:
    choice = chosen(served=())
    assert choice.profiles == ()
    assert choice.problem == "no provider 'nobody', 'p', 'q' is configured (providers.NAME in talon.yaml)"
