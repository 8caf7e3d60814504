"""What commands show of themselves: to whom, from where, and that nobody else reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from talon.cli import credentials
from talon.cli.auth import seconds
from talon.cli.errors import WrongUse

KEY, OTHER = f"talon_aaaa_{'s' * 40}", f"talon_bbbb_{'t' * 40}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in (credentials.KEY_ENV, credentials.CA_ENV, credentials.CERT_ENV, credentials.CERT_KEY_ENV):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_key_is_kept_per_server_in_a_file_of_the_user_alone() -> None:
    assert credentials.authorization("http://a") == ""
    file = credentials.store("http://A/", KEY)
    credentials.store("https://b", OTHER)
    assert credentials.authorization("http://a") == f"Bearer {KEY}"
    assert credentials.authorization("https://b/") == f"Bearer {OTHER}"
    for another in ("https://a", "http://a:80", "http://a.evil", "http://b"):
        assert credentials.authorization(another) == ""
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["credentials.json"]
    assert credentials.forget("http://a")
    assert not credentials.forget("http://a")
    assert credentials.authorization("https://b") == f"Bearer {OTHER}"


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.store("http://a", KEY)
    monkeypatch.setenv("TALON_API_KEY", OTHER)
    assert credentials.authorization("http://a") == f"Bearer {OTHER}"
    monkeypatch.setenv("TALON_API_KEY", "")
    assert credentials.authorization("http://a") == f"Bearer {KEY}"


@pytest.mark.parametrize("wrong", ["", "two words", "line\nline", "é", "x" * 20_000, "nul\0"])
def test_what_cannot_stand_in_a_header_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(WrongUse) as raised:
        credentials.checked(wrong, "stdin")
    assert not wrong or wrong not in str(raised.value)


def test_a_file_that_others_may_read_is_not_read() -> None:
    file = credentials.store("http://a", KEY)
    file.chmod(0o640)
    with pytest.raises(WrongUse, match="chmod 600") as raised:
        credentials.authorization("http://a")
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"servers": 7}', '{"servers": {"http://a": "x y"}}', "[" * 5000, "\xff"])
def test_a_damaged_file_says_what_to_do(text: str) -> None:
    file = credentials.store("http://a", KEY)
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(WrongUse, match=r"credentials\.json"):
        credentials.authorization("http://a")


def test_a_file_that_cannot_be_written_says_so(home: Path) -> None:
    (home / "config").write_text("in the way")
    with pytest.raises(WrongUse, match="cannot be"):
        credentials.store("http://a", KEY)


def test_certificates_that_cannot_be_read_say_which_variable(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert credentials.tls("https://a") is None
    monkeypatch.setenv("TALON_CA_FILE", str(home / "none.pem"))
    assert credentials.tls("http://a") is None
    with pytest.raises(WrongUse, match="TALON_CA_FILE"):
        credentials.tls("https://a")
    monkeypatch.delenv("TALON_CA_FILE")
    (home / "bad.pem").write_text("nonsense")
    monkeypatch.setenv("TALON_CERT_FILE", str(home / "bad.pem"))
    with pytest.raises(WrongUse, match="TALON_CERT_FILE"):
        credentials.tls("https://a")


def test_what_is_stored_is_json_that_people_can_read() -> None:
    file = credentials.store("http://a", KEY)
    assert json.loads(file.read_text()) == {"servers": {"http://a": KEY}}


@pytest.mark.parametrize(("text", "number"), [("90d", 90 * 86_400), ("1h30m", 5400), ("45s", 45), ("1ms", 1)])
def test_durations_are_those_of_manifests(text: str, number: int) -> None:
    assert seconds("--ttl", text) == number


@pytest.mark.parametrize("text", ["", "0s", "1", "1y", "-1d", "1d 2h", "99999d"])
def test_what_is_no_duration_names_the_option(text: str) -> None:
    with pytest.raises(WrongUse, match="--ttl"):
        seconds("--ttl", text)
