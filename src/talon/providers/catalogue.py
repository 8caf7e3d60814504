"""The catalogue of models: what comes with Talon, a user's file over it, and which of it the configured providers can be asked for.

    built in ──┐
    user's ────┴─> by vendor or provider, by model ──(configured providers)──> `Models`

A user's section is under a provider's name or under a vendor's (a provider's kind); its fields take the place of those that are
built in, one by one; with `built_in: false` there are its own models only. `openai_responses` has the models of `openai`.
All prices of a process are of one currency: a file in another one says how many of its own one of that is (`exchange`).
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from importlib import resources
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from talon.domain.errors import FieldError, Invalid
from talon.domain.models import TIERS, ModelInfo, Models, Prices, Tier
from talon.providers.kinds import KINDS
from talon.providers.registry import ProviderInfo

log = logging.getLogger(__name__)
FILE_MAX = 4_194_304
VALUE_SHOWN = 80
#: What comes with Talon is read at each start of a worker: by the C parser where PyYAML has it, which takes a tenth of the time.
#: Not for users' files: nesting without end is an error to the other one, and the end of the process to this one.
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Kinds whose models are another one's.
_SAME = {"openai_responses": "openai"}
_PRICES = {"i": "input", "p": "output", "r": "cache_read", "w": "cache_write"}
_FIELDS = {"t": "tier", "c": "context_window", "o": "output_max"} | _PRICES
_LONG = frozenset({*_FIELDS.values(), "tools", "vision", "prefill", "date"})
#: A model as it is written: fields under their long names.
Written = dict[str, Any]


class _Wrong(Exception):
    """A place in a file, and what is wrong with it; the message ends with the value, if there is one that can be shown."""

    def __init__(self, place: str, message: str, value: object = None) -> None:
        shown = f", not {value!r}"[:VALUE_SHOWN] if isinstance(value, str | int | float | datetime.date) else ""
        super().__init__(message)
        self.place, self.message, self.value = place, message + shown, value


class Sections(msgspec.Struct, frozen=True):
    """A file, checked: vendor or provider -> model -> fields. `exchange`: currency -> how many of `currency` one of it is.
    `alone`: the vendors that have none of the models that are built in, and the providers that have their own section's only."""

    currency: str
    models: dict[str, dict[str, Written]]
    exchange: dict[str, Decimal] = {}
    alone: frozenset[str] = frozenset()


def load_models(providers: Iterable[ProviderInfo], path: Path | None) -> Models:
    """What is known of the models of `providers`; `path` is the user's file. Raises `Invalid` naming the field of that file."""
    built_in = _built_in()
    own = Sections(built_in.currency, {}) if path is None else _read(path, built_in)
    rate = Decimal(1) if own.currency == built_in.currency else own.exchange[built_in.currency]
    providers = list(providers)
    _warn_of_nobodys(own, providers, path)
    found: list[ModelInfo] = []
    for provider in providers:
        vendor = _SAME.get(provider.kind, provider.kind)
        base = {} if own.alone & {vendor, provider.name} else built_in.models.get(vendor, {})
        shared = {} if provider.name in own.alone else own.models.get(vendor, {})
        over = _over(shared, own.models.get(provider.name, {}))
        for name in {**base, **over}:
            known = _priced(base.get(name, {}), rate)
            fields = {**known, **over.get(name, {})}
            try:
                found.append(_model(provider.name, name, fields, own.currency))
            except _Wrong as wrong:
                raise _invalid(path, _Wrong(f"vendors.{vendor}.models.{name}.{wrong.place}", wrong.message)) from None
    return Models(found)


def _warn_of_nobodys(own: Sections, providers: Iterable[ProviderInfo], path: Path | None) -> None:
    """A section of no kind and no provider is no mistake, as a file may be several workers'; but it may be a slip."""
    there = {*KINDS, *(provider.name for provider in providers)}
    for name in sorted(own.models.keys() - there):
        known = ", ".join(sorted(there))
        log.warning("%s: vendors.%s counts for nobody here: it is no kind and no provider of this process (%s)", path, name, known)


def _over(first: Mapping[str, Written], second: Mapping[str, Written]) -> dict[str, Written]:
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in {**first, **second}}


def _priced(fields: Written, rate: Decimal) -> Written:
    return {key: value * rate if key in _PRICES.values() else value for key, value in fields.items()}


def _model(provider: str, name: str, fields: Written, currency: str) -> ModelInfo:
    if "tier" not in fields:
        raise _Wrong("tier", f"is missing: one of {', '.join(TIERS)}")
    given = {key: fields[key] for key in _PRICES.values() if key in fields}
    if given and not {"input", "output"} <= given.keys():
        raise _Wrong(
            "input" if "input" not in given else "output", "is missing: a model has a price of input and of output, or none"
        )
    return ModelInfo(
        provider,
        name,
        cast(Tier, fields["tier"]),
        fields.get("context_window", 0),
        fields.get("output_max", 0),
        fields.get("tools", True),
        fields.get("vision", False),
        Prices(**given, currency=currency, date=fields.get("date", "")) if given else None,
        fields.get("prefill", False),
    )


def _built_in() -> Sections:
    text = resources.files("talon.providers").joinpath("catalogue.yaml").read_bytes()
    return _sections(text, None, _FAST)


def _read(path: Path, built_in: Sections) -> Sections:
    try:
        size = path.stat().st_size
        if size > FILE_MAX:
            raise _invalid(path, _Wrong("", f"has {size} bytes; a catalogue has at most {FILE_MAX}"))
        return _sections(path.read_bytes(), built_in.currency)
    except OSError as error:
        raise _invalid(path, _Wrong("", f"cannot be read: {error.strerror}")) from None
    except _Wrong as wrong:
        raise _invalid(path, wrong) from None


def _invalid(path: Path | None, wrong: _Wrong) -> Invalid:
    where = f"{path}: {wrong.place}" if wrong.place else str(path)
    return Invalid(
        "invalid", f"{where} {wrong.message}", (FieldError(f"models.catalogue {wrong.place}".strip(), wrong.message, wrong.value),)
    )


def _sections(text: bytes, other: str | None, loader: Any = yaml.SafeLoader) -> Sections:
    try:
        data: object = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise _Wrong("", f"is no YAML{line}") from None
    top = _mapping("", data, {"currency", "exchange", "vendors"})
    currency = top.get("currency", other or "")
    if not isinstance(currency, str) or not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise _Wrong("currency", "must be a currency's three capitals, as EUR", currency)
    exchange = {name: _amount(f"exchange.{name}", value) for name, value in _mapping("exchange", top.get("exchange", {})).items()}
    if other is not None and other != currency and not exchange.get(other):
        raise _Wrong("exchange", f"is needed: how many {currency} one {other} is, as {{{other}: 0.9}}")
    models: dict[str, dict[str, Written]] = {}
    alone: set[str] = set()
    for vendor, section in _mapping("vendors", top.get("vendors", {})).items():
        place = f"vendors.{vendor}"
        parts = _mapping(place, section, {"date", "built_in", "models"})
        if not isinstance(with_built_in := parts.get("built_in", True), bool):
            raise _Wrong(f"{place}.built_in", "must be true or false", with_built_in)
        if not with_built_in:
            alone.add(vendor)
        date = _date(f"{place}.date", parts["date"]) if "date" in parts else ""
        models[vendor] = {
            name: _written(f"{place}.models.{name}", value, date)
            for name, value in _mapping(f"{place}.models", parts.get("models", {})).items()
        }
    return Sections(currency, models, exchange, frozenset(alone))


def _mapping(place: str, value: object, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(place, "is empty" if value is None else "must be a mapping", value)
    found = cast("dict[object, Any]", value)
    for key in found:
        if not isinstance(key, str) or not key:
            raise _Wrong(place, f"has the key {key!r}, which must be text")
        if known is not None and key not in known:
            raise _Wrong(f"{place}.{key}".lstrip("."), f"is unknown; there are {', '.join(sorted(known))}")
    return cast("dict[str, Any]", found)


def _written(place: str, value: object, date: str) -> Written:
    fields: Written = {"date": date} if date else {}
    for key, one in _mapping(place, value).items():
        name = "date" if key == "d" else _FIELDS.get(key, key)
        at = f"{place}.{key}"
        if name not in _LONG:
            raise _Wrong(at, f"is unknown; there are {', '.join(sorted(_LONG))}")
        fields[name] = _field(at, name, one)
    return fields


def _field(at: str, name: str, value: object) -> object:
    if name in _PRICES.values():
        return _amount(at, value)
    if name == "date":
        return _date(at, value)
    if name == "tier":
        if value not in TIERS:
            raise _Wrong(at, f"must be one of {', '.join(TIERS)}", value)
        return value
    if name in ("tools", "vision", "prefill"):
        if not isinstance(value, bool):
            raise _Wrong(at, "must be true or false", value)
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise _Wrong(at, "must be a whole number of tokens", value)
    return value


def _amount(at: str, value: object) -> Decimal:
    try:
        amount = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise _Wrong(at, "must be an amount of money, not below 0 and at most 1000000", value)
    return amount


def _date(at: str, value: object) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    try:
        return datetime.date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise _Wrong(at, "must be a day, as 2026-01-31", value) from None
