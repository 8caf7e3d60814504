"""Log lines on stderr, as text or as JSON, with the known secrets taken out of every one of them."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import msgspec

from talon.observe import tracing

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "text", "json")
#: A shorter value is no secret worth its name, and taking it out would make every line unreadable.
SECRET_MIN = 6
#: A part of a secret that is shorter is none by itself.
PART_MIN = 16
#: How many values that were read while the process runs are remembered, the latest.
HIDDEN_MAX = 64
_HIDDEN = "***"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(level: str, format: str, *, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Write the log of this process to `stream` (stderr): Talon's own from `level` on, that of libraries from `warning` on.

    `format`: text | json (one object a line) | auto (text on a terminal, else json). `secrets`: values that no line may show,
    wherever they come from (message, arguments, fields, tracebacks), as they are and in their usual `forms`; `hide` adds to them.
    Calling it again replaces the former configuration. Raises `ValueError` for an unknown level or format.
    """
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(f"log level {level!r} and format {format!r}: levels are {LEVELS}, formats {FORMATS}")
    out = stream or sys.stderr
    plain = format == "text" or (format == "auto" and out.isatty())
    handler = _Handler(out)
    handler.setFormatter((TextFormatter if plain else JsonFormatter)(Redactor(secrets)))
    root = logging.getLogger()
    for old in _ours():
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("talon").setLevel(level.upper())


def hide(secret: str) -> None:
    """From now on no line of this process shows `secret`; the `HIDDEN_MAX` latest are remembered."""
    for handler in _ours():
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.redactor.add(secret)


def _ours() -> list[_Handler]:
    return [one for one in logging.getLogger().handlers if isinstance(one, _Handler)]


class _Handler(logging.StreamHandler[TextIO]):
    """Ours among the root logger's handlers."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be formatted or written: its place in the code, never its arguments (the default prints them raw)."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"a log line cannot be written: {record.pathname}:{record.lineno}\n")


def parts(secret: str) -> tuple[str, ...]:
    """`secret` and its long parts between colons, which are secrets too (`ID:SECRET`, `ID:SECRET:SESSION`)."""
    return (secret, *(part for part in secret.split(":") if len(part) >= PART_MIN and part != secret))


def forms(secret: str) -> tuple[str, ...]:
    """`secret` and what it looks like in a printed dict, in JSON, in a URL, in hex, and in base64, also behind something else
    (as in `user:secret`); the longest first."""
    data = secret.encode("utf-8", "surrogatepass")
    known = {secret, repr(secret)[1:-1], data.hex(), data.hex().upper(), quote(data, safe=""), quote(data), quote_plus(data)}
    known |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        known.add(encode(data).decode().rstrip("="))
        for before in range(3):  # bytes before it in its first group of three; only what hangs on nothing else is known
            whole = data[: len(data) - (len(data) + before) % 3]
            known.add(encode(bytes(before) + whole).decode()[before + 1 if before else 0 :])
    return tuple(sorted((one for one in known if len(one) >= min(len(secret), SECRET_MIN)), key=len, reverse=True))


class Redactor:
    """Takes known secrets out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._fixed = tuple(one for one in secrets if len(one) >= SECRET_MIN)
        self._added: tuple[str, ...] = ()
        self._secrets: tuple[str, ...] = ()
        self._sort()

    def add(self, secret: str) -> None:
        """One more, in the place of the oldest of those that were added if there are too many."""
        if len(secret) >= SECRET_MIN and secret not in self._fixed and secret not in self._added[-1:]:
            fresh = secret not in self._added
            self._added = (*(one for one in self._added if one != secret), secret)[-HIDDEN_MAX:]
            if fresh:
                self._sort()

    def _sort(self) -> None:
        # the longest first: a secret may contain another one
        self._secrets = tuple(sorted({f for one in (*self._fixed, *self._added) for f in forms(one)}, key=len, reverse=True))

    def text(self, text: str) -> str:
        """`text` without them."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, _HIDDEN)
        return text

    def value(self, value: Any) -> Any:
        """A log field without them: numbers and booleans stay, everything else becomes its text."""
        return value if value is None or isinstance(value, bool | int | float) else self.text(str(value))


class _Formatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self.redactor = redactor

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What was given as `extra`."""
        return {key: self.redactor.value(value) for key, value in vars(record).items() if key not in _STANDARD}

    def _traceback(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return self.redactor.text("\n".join(parts))

    def _at(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO talon.worker: message key=value`; a traceback follows on lines of its own.

    The message itself stays on its line: what a user wrote cannot forge a second one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in self.redactor.text(record.getMessage()))
        fields = "".join(f" {key}={value!r}" for key, value in self._fields(record).items())
        line = f"{self._at(record)} {record.levelname} {record.name}: {message}{fields}"
        trace = self._traceback(record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(_Formatter):
    """One JSON object a line: `at, level, logger, message`, `traceparent` inside a trace, `extra` fields, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = self._fields(record)
        line |= {"at": self._at(record), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = self.redactor.text(record.getMessage())
        current = tracing.traceparent()
        if current:
            line["traceparent"] = current
        trace = self._traceback(record)
        if trace:
            line["traceback"] = trace
        first = ("at", "level", "logger", "message")
        ordered = {key: line[key] for key in first} | line
        try:
            return msgspec.json.encode(ordered).decode()
        except UnicodeEncodeError:  # half a surrogate pair somewhere
            return msgspec.json.encode({key: _sound(value) for key, value in ordered.items()}).decode()


def _sound(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
