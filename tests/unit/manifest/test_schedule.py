"""Schedules as they are read: expressions, durations, and times in their zones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from talon.manifest.fields import DURATION_MAX_MS, duration_ms
from talon.manifest.kinds import ScheduleDoc
from talon.manifest.parse import parse
from talon.manifest.read import read
from talon.manifest.schedule import cron_fields, moment, zones

HEAD = {"apiVersion": "talon.dev/v1alpha1", "kind": "Schedule", "metadata": {"name": "s", "namespace": "acme"}}
WOKEN = {"target": {"agent": "a", "sessionMode": "new"}, "inputMessage": "go"}


def errors(**spec: Any) -> dict[str, str]:
    found = read(parse(msgspec.json.encode({**HEAD, "spec": {**WOKEN, **spec}})))
    return {one.field: one.message for one in found.errors}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0 14 * * 1-5", "0 14 * * 1-5"),
        ("  0  14 * * mon-fri ", "0 14 * * MON-FRI"),
        ("*/15 9-17 * jan,jul 0", "*/15 9-17 * JAN,JUL 0"),
        ("0 0 L * *", "0 0 L * *"),
        ("0 0 LW * *", "0 0 LW * *"),
        ("0 9 * * 1#2", "0 9 * * 1#2"),
        ("0 9 * * 5L", "0 9 * * 5L"),
        ("0 0 * * 7", "0 0 * * 7"),
        ("0 0 29 2 *", "0 0 29 2 *"),  # only in leap years, but it comes
        ("0 0 31 2 MON", "0 0 31 2 MON"),  # the Mondays come
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_a_cron_expression_is_five_fields_or_a_word(text: str, fields: str) -> None:
    assert errors(kind="cron", cron=text) == {}
    assert cron_fields(text) == fields


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("90s", 90_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("366d", DURATION_MAX_MS),
    ],
)
def test_a_duration_is_whole_numbers_with_units(text: str, ms: int) -> None:
    assert errors(kind="cron", cron="@daily", startingDeadline=text) == {}
    assert duration_ms(text) == ms


def test_a_time_is_read_in_its_offset_or_in_the_zone() -> None:
    assert moment("2026-12-24T18:00:00Z", "Europe/Berlin") == datetime(2026, 12, 24, 18, tzinfo=UTC)
    assert moment("2026-12-24T18:00+01:00", "UTC") == datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert moment("2026-12-24T18:00:00.250", "America/Los_Angeles") == datetime(2026, 12, 25, 2, 0, 0, 250_000, tzinfo=UTC)


def test_where_the_clock_is_put_back_the_first_of_two_is_meant_and_where_it_is_put_forward_none() -> None:
    assert moment("2026-10-25T02:30", "Europe/Berlin") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    with pytest.raises(ValueError, match="never shows this time"):
        moment("2026-03-29T02:30", "Europe/Berlin")
    with pytest.raises(ValueError, match="never shows this time"):
        moment("2026-10-04T02:15", "Australia/Lord_Howe")  # it is put forward by half an hour there
    assert "never shows this time" in errors(kind="at", at="2026-03-29T02:30", timezone="Europe/Berlin")["spec.at"]


def test_what_excludes_each_other_is_refused_and_what_does_not_is_taken() -> None:
    assert errors(kind="at", at="2026-12-24T18:00Z", until="2026-12-24T18:00Z") == {}
    assert "it would never fire" in errors(kind="at", at="2026-12-24T18:00Z", until="2026-12-24T17:59Z")["spec.until"]
    assert errors(kind="every", every="10s", jitter="10s", catchUp="all", catchUpMax=5) == {}
    assert "no longer than every" in errors(kind="every", every="10s", jitter="11s")["spec.jitter"]
    assert "must be at least 1s" in errors(kind="every", every="999ms")["spec.every"]
    assert "run side by side" in errors(kind="every", every="10s", overlap="skip")["spec.overlap"]
    assert set(errors(kind="every", every="10s", cron="@daily", at="2026-12-24T18:00Z")) == {"spec.cron", "spec.at"}


def test_defaults_are_what_the_schema_says() -> None:
    (manifest,) = read(parse(msgspec.json.encode({**HEAD, "spec": {**WOKEN, "kind": "every", "every": "1h"}}))).manifests
    assert isinstance(manifest.model, ScheduleDoc)
    spec = manifest.model.spec
    assert (spec.timezone, spec.enabled, spec.overlap, spec.catch_up, spec.history_limit) == ("UTC", True, "queue", "one", 100)
    assert "historyLimit" not in manifest.body["spec"]


def test_every_machine_has_the_zones_and_none_that_means_something_else_elsewhere() -> None:
    assert {"UTC", "America/Los_Angeles", "Asia/Kathmandu", "Australia/Lord_Howe"} <= zones()
    assert zones().isdisjoint({"localtime", "Factory", "posixrules"})
