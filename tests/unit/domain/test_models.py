"""What models cost, how their names are found, and which one suits a task."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from talon.domain.entries import Money, Usage, total
from talon.domain.models import (
    COMPLEXITIES,
    TASK_TYPES,
    TIERS,
    ModelInfo,
    Models,
    Prices,
    Task,
    Tier,
    cost_of,
    estimate,
    select,
    spellings,
)

PRICES = Prices(Decimal(2), Decimal(10), cache_read=Decimal("0.5"), cache_write=Decimal("2.5"))


def model(name: str, tier: Tier, price: str | None = "1", **more: Any) -> ModelInfo:
    prices = None if price is None else Prices(Decimal(price), Decimal(price))
    return ModelInfo("p", name, tier, prices=prices, **more)


def test_a_call_costs_what_it_costs_to_the_last_digit() -> None:
    usage = Usage(1000, 100, cached_tokens=400, cache_write_tokens=100, reasoning_tokens=60)
    assert cost_of(usage, PRICES) == Money(Decimal("0.00245"), "USD")
    assert cost_of(usage, Prices(Decimal(2), Decimal(10))) == Money(Decimal("0.003"), "USD"), "without prices of the cache's own"
    assert str(cost_of(Usage(1, 0), Prices(Decimal("0.035"), Decimal(0)))) == "0.000000035 USD"


def test_sums_are_exact_and_of_each_currency() -> None:
    tenth = Money(Decimal("0.1"), "USD")
    assert total([tenth, None, tenth, tenth, Money(Decimal(1), "EUR")]) == (
        Money(Decimal("0.3"), "USD"),
        Money(Decimal(1), "EUR"),
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4-0613", "gpt-4"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5"),
        ("amazon.nova-lite-v1:0", "amazon.nova-lite"),
        ("gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("gemini-2.5-pro-05-06", "gemini-2.5-pro"),
        ("llama3.1:8b", "llama3.1"),
        ("openai/gpt-4o:extended", "openai/gpt-4o"),
    ],
)
def test_dates_and_suffixes_of_names_are_taken_off_by_the_rule(asked: str, found: str) -> None:
    assert spellings(asked)[0] == asked
    assert spellings(asked)[-1] == found
    assert (Models([ModelInfo("p", found, "mid")]).find("p", asked) or model("x", "mid")).name == asked


def test_nothing_else_is_guessed_and_what_is_written_wins() -> None:
    models = Models([ModelInfo("p", "gpt-4o", "mid"), ModelInfo("p", "gpt-4o-2024-05-13", "premium"), ModelInfo("q", "*", "cheap")])
    assert models.find("p", "gpt-4o-audio") is None
    assert models.find("p", "gpt-4o-mini") is None
    assert getattr(models.find("p", "gpt-4o-2024-05-13"), "tier", "") == "premium"
    assert getattr(models.find("q", "anything"), "tier", "") == "cheap"
    assert models.find("r", "gpt-4o") is None


def test_a_task_gets_the_cheapest_of_its_tier() -> None:
    models = [model("dear", "mid", "3"), model("fair", "mid", "2"), model("unknown", "mid", None), model("best", "premium", "9")]
    picked = select(Task("orchestration"), models)
    assert getattr(picked.model, "name", "") == "fair"
    assert picked.rules[0] == "1 a orchestration task of medium complexity wants tier mid"


def test_what_does_not_fit_is_out_and_the_next_higher_tier_is_taken() -> None:
    models = [
        model("small", "mid", context_window=1_000),
        model("mute", "mid", tools=False),
        model("cheap", "cheap", "0"),
        model("best", "premium", "9", context_window=200_000),
    ]
    picked = select(Task("orchestration", "low", 900), models)
    assert getattr(picked.model, "name", "") == "best", "higher tiers come before lower ones"
    said = "\n".join(picked.rules)
    assert "p/small is out: 1156 tokens go over its window of 1000" in said
    assert "p/mute is out: it calls no tools" in said
    assert select(Task("chat", "low", 10**9), models[:1]).model is None


def test_every_task_has_a_tier_and_a_harder_one_no_lower_one() -> None:
    for type_ in TASK_TYPES:
        ranks = [TIERS.index(Task(type_, complexity).tier) for complexity in COMPLEXITIES]
        assert ranks == sorted(ranks)
    assert Task("chat", "low").tier == "cheap"
    assert Task("orchestration").tier == "mid"
    assert Task("subagent").tier == "cheap"
    assert Task("reasoning", "high").tier == "premium"
    assert {Task("summarization", one).tier for one in COMPLEXITIES} == {"cheap"}


def test_an_estimate_goes_no_further_than_the_models_output() -> None:
    found = estimate(model("short", "cheap", output_max=100), Task("chat", "high", 1_000))
    assert (found.output_tokens, found.cost) == (100, Money(Decimal("0.0011"), "USD"))
    assert estimate(model("free", "cheap", None), Task()).cost is None
