"""Log lines: two formats, one record a line, and no secret in any of them."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from talon.observe import logs, tracing

SECRET = 'sk-very-"hidden"\\é'
STORED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
log = logging.getLogger("talon.test")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root, talon = logging.getLogger(), logging.getLogger("talon")
    before = (list(root.handlers), root.level, talon.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    talon.setLevel(before[2])


def configured(format: str, level: str = "info", *secrets: str) -> io.StringIO:
    stream = io.StringIO()
    logging.getLogger().handlers.clear()  # the test runner's own
    logs.configure(level, format, secrets=secrets, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_carries_the_record_its_fields_and_its_trace() -> None:
    stream = configured("json")
    with tracing.span("turn", parent=STORED):
        log.warning("worker %s is late by %d s", "a", 3, extra={"session": "s1", "turns": 2})
    (line,) = lines(stream)
    assert list(line)[:4] == ["at", "level", "logger", "message"]
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "talon.test",
        "message": "worker a is late by 3 s",
        "session": "s1",
        "turns": 2,
        "traceparent": STORED,
    }


def test_a_text_line_stays_one_line_whatever_a_user_wrote() -> None:
    stream = configured("text")
    log.info("asked: %s", "hi\n2026-01-01T00:00:00.000Z ERROR talon: forged \x1b[31m", extra={"session": "s\n1"})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(
        [r"", r"INFO talon.test: asked: hi\n2026-01-01T00:00:00.000Z ERROR talon: forged \x1b[31m session='s\n1'"][1]
    )


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_known_secret_is_written_wherever_it_comes_from(format: str) -> None:
    stream = configured(format, "info", SECRET, "sk-very-")
    log.info("plain %s", SECRET)
    log.info(f"formatted {SECRET}")
    log.info("mapped %(key)s", {"key": SECRET})
    log.info("field", extra={"key": SECRET, "deep": {"key": SECRET}})
    try:
        raise ValueError(f"raised {SECRET}")
    except ValueError:
        log.exception("failed")
    log.info("stack", stack_info=True)
    written = stream.getvalue()
    assert "sk-very-" not in written
    assert "hidden" not in written
    assert written.count("***") >= 5
    assert "ValueError: raised ***" in written
    assert "Stack (most recent call last)" in written


def test_libraries_are_heard_from_warning_on_and_talon_from_its_level_on() -> None:
    stream = configured("json", "debug")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    log.debug("detail")
    assert [line["message"] for line in lines(stream)] == ["trouble", "detail"]


def test_configuring_again_replaces_the_former_configuration() -> None:
    first, second = configured("json"), configured("json", "error")
    log.warning("quiet")
    log.error("loud")
    assert first.getvalue() == ""
    assert [line["message"] for line in lines(second)] == ["loud"]


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    logs.configure("info", "auto", stream=terminal)
    log.info("hello")
    assert terminal.getvalue().endswith("INFO talon.test: hello\n")
    assert lines_of_auto_on_a_pipe() == ["hello"]


def lines_of_auto_on_a_pipe() -> list[str]:
    stream = configured("auto")
    log.info("hello")
    return [line["message"] for line in lines(stream)]


def test_text_that_utf_8_cannot_say_does_not_lose_the_line() -> None:
    stream = configured("json")
    log.info("half a pair: %s", "\ud83d")
    assert lines(stream)[0]["message"] == "half a pair: ?"


def test_a_line_that_cannot_be_formatted_tells_its_place_and_not_its_arguments() -> None:
    stream = configured("json", "info", SECRET)
    log.info("%d", SECRET)
    assert "a log line cannot be written" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()
    assert "hidden" not in stream.getvalue()


def test_a_value_too_short_to_be_a_secret_is_left_in() -> None:
    stream = configured("json", "info", "", "a", "12345")
    log.info("a 12345")
    assert lines(stream)[0]["message"] == "a 12345"


@pytest.mark.parametrize(("level", "format"), [("loud", "json"), ("info", "xml")])
def test_an_unknown_level_or_format_is_refused(level: str, format: str) -> None:
    with pytest.raises(ValueError, match="levels are"):
        logs.configure(level, format)


@pytest.mark.parametrize("encoded", [base64.b64encode, base64.urlsafe_b64encode, base64.b16encode, bytes.hex])
def test_a_known_secret_is_hidden_in_its_usual_forms_too(encoded: Any) -> None:
    stream = configured("text", "info", SECRET)
    for before in ("", "u:", "us:", "user:"):
        found = encoded((before + SECRET).encode())
        log.info("sent %s", found if isinstance(found, str) else found.decode())
    log.info("asked %s %s %s", quote(SECRET), quote_plus(SECRET), json.dumps(SECRET))
    written = stream.getvalue()
    data = SECRET.encode()
    for form in (SECRET, data.hex(), data.hex().upper(), base64.b64encode(data).decode()[:16], quote(SECRET), json.dumps(SECRET)):
        assert form not in written
    assert written.count("***") >= 7


def test_what_is_read_while_the_process_runs_is_hidden_from_then_on() -> None:
    stream = configured("text")
    log.info("before sk-later-known")
    logs.hide("sk-later-known")
    logs.hide("short")
    log.info("after sk-later-known, a short one stays")
    for number in range(logs.HIDDEN_MAX):
        logs.hide(f"sk-another-{number}")
    log.info("long after sk-later-known and sk-another-0")
    first, second, third = stream.getvalue().splitlines()
    assert "sk-later-known" in first
    assert second.endswith("after ***, a short one stays")
    assert third.endswith("long after sk-later-known and ***"), "the latest are remembered"
