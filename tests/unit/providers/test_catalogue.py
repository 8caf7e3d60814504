"""The catalogue: what comes with Talon is whole, a user's file lies over it, and each wrong field of it is named."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from talon.domain.errors import Invalid
from talon.domain.models import TIERS
from talon.providers.catalogue import load_models
from talon.providers.kinds import KINDS
from talon.providers.registry import ProviderInfo

EVERY = [ProviderInfo(kind.replace("_", "-"), kind) for kind in KINDS]
OPENAI = [ProviderInfo("mine", "openai")]


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    return path


def test_what_comes_with_talon_has_all_that_choosing_needs() -> None:
    models = load_models(EVERY, None)
    tiers = models.tiers()
    assert all(tiers[tier] for tier in TIERS)
    for model in models:
        prices = model.prices
        assert prices is not None, model.id
        assert (prices.currency, len(prices.date)) == ("USD", 10), model.id
        assert prices.output >= prices.input >= (prices.cache_read or 0), model.id
        assert model.name == "*" or model.context_window >= model.output_max > 0, model.id
    vendors = {model.provider for model in models}
    assert vendors == {info.name for info in EVERY}, "every kind has models; openai_responses those of openai"


def test_a_users_file_lies_over_it_field_by_field(tmp_path: Path) -> None:
    path = own(tmp_path, "vendors: {openai: {models: {gpt-4o: {input: 9}}}, mine: {models: {new: {tier: mid, vision: true}}}}")
    models = load_models(OPENAI, path)
    changed, built_in = models.find("mine", "gpt-4o"), load_models(OPENAI, None).find("mine", "gpt-4o")
    assert changed is not None and built_in is not None  # noqa: PT018
    assert changed.prices is not None and built_in.prices is not None  # noqa: PT018
    assert changed.prices.input == 9
    assert (changed.prices.output, changed.context_window) == (built_in.prices.output, built_in.context_window)
    new = models.find("mine", "new")
    assert new is not None
    assert (new.tier, new.vision, new.prices) == ("mid", True, None)
    assert load_models([ProviderInfo("other", "openai")], path).find("other", "new") is None, "a provider's own section is its own"


def test_a_server_of_ones_own_has_the_models_that_its_section_says_alone(tmp_path: Path) -> None:
    path = own(tmp_path, "vendors: {openai: {models: {gpt-4o: {input: 9}}}, mine: {built_in: false, models: {new: {tier: mid}}}}")
    assert [model.id for model in load_models(OPENAI, path)] == ["mine/new"]
    assert load_models([ProviderInfo("other", "openai")], path).find("other", "gpt-4o") is not None


def test_a_section_that_is_nobodys_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_models(OPENAI, own(tmp_path, "vendors: {opneai: {models: {}}, gemini: {models: {}}, mine: {models: {}}}"))
    (record,) = caplog.records
    assert "vendors.opneai counts for nobody here" in record.getMessage()


def test_another_currency_turns_all_prices(tmp_path: Path) -> None:
    path = own(tmp_path, "currency: EUR\nexchange: {USD: 0.9}\nvendors: {mine: {models: {new: {tier: mid, input: 1, output: 2}}}}")
    models = load_models(OPENAI, path)
    known, new = models.find("mine", "gpt-4o"), models.find("mine", "new")
    assert known is not None and new is not None  # noqa: PT018
    assert known.prices is not None and new.prices is not None  # noqa: PT018
    assert (known.prices.input, known.prices.currency) == (Decimal("2.25"), "EUR")
    assert (new.prices.input, new.prices.currency) == (1, "EUR")


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("vendors: [1]", "vendors", "must be a mapping"),
        ("prices: {}", "prices", "is unknown"),
        ("currency: euro", "currency", "three capitals"),
        ("currency: EUR", "exchange", "how many EUR one USD is"),
        (
            "vendors: {openai: {models: {m: {tier: best}}}}",
            "vendors.openai.models.m.tier",
            "one of cheap, mid, premium, not 'best'",
        ),
        ("vendors: {openai: {models: {m: }}}", "vendors.openai.models.m", "is empty"),
        ("vendors: {openai: {built_in: 0}}", "vendors.openai.built_in", "true or false, not 0"),
        ("vendors: {openai: {models: {m: {tier: mid, input: -1, output: 1}}}}", "vendors.openai.models.m.input", "not below 0"),
        ("vendors: {openai: {models: {m: {tier: mid, input: .nan, output: 1}}}}", "vendors.openai.models.m.input", "amount"),
        ("vendors: {openai: {models: {m: {tier: mid, input: 1}}}}", "vendors.openai.models.m.output", "is missing"),
        ("vendors: {openai: {models: {m: {input: 1, output: 1}}}}", "vendors.openai.models.m.tier", "is missing"),
        ("vendors: {openai: {models: {m: {tier: mid, window: 8}}}}", "vendors.openai.models.m.window", "is unknown"),
        ("vendors: {openai: {models: {m: {tier: mid, context_window: 8.5}}}}", "vendors.openai.models.m.context_window", "whole"),
        ("vendors: {openai: {date: soon, models: {}}}", "vendors.openai.date", "must be a day"),
        ("a: [", "", "is no YAML (line 1)"),
    ],
)
def test_each_wrong_field_is_named(tmp_path: Path, text: str, where: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        load_models(OPENAI, own(tmp_path, text))
    (error,) = caught.value.errors
    assert error.field == f"models.catalogue {where}".strip()
    assert words in error.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read: No such file"):
        load_models(OPENAI, tmp_path / "none.yaml")
