"""Journal entries as words: one line each for tables and streams, and the answer as it grows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from talon.cli.sse import Event
from talon.cli.text import one_line, safe, styled

Payload = Mapping[str, Any]
ENDS = frozenset({"turn.completed", "turn.failed", "turn.cancelled", "turn.denied"})


def _usage(payload: Payload) -> str:
    usage: Payload = payload.get("usage") or {}
    tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    return f"{tokens} tokens{' (estimated)' if usage.get('estimated') else ''}" if tokens else ""


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _said(content: Any) -> str:
    """A message's words; an image as what it is."""
    if not isinstance(content, list):
        return str(content)
    parts = cast("list[Payload]", content)
    return " ".join(str(part.get("text") or f"[{part.get('media_type')}, {part.get('size')} bytes]") for part in parts)


def _queued(p: Payload) -> str:
    behind = p.get("behind")
    if not behind:
        return str(p.get("strategy", "enqueue"))
    waits = f", which waits for {behind['waiting_for']}" if behind.get("waiting_for") else ""
    return f"{p.get('strategy', 'enqueue')}, behind {behind.get('turns', 1)} ({behind.get('state')}{waits})"


def _waiting(p: Payload) -> str:
    until_ms = p.get("until_ms")
    until = f" until {datetime.fromtimestamp(until_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}" if isinstance(until_ms, int) else ""
    return _joined(f"for {p.get('kind')}{until}", " ".join(p.get("approvals", ())), p.get("detail"))


#: type -> what the entry says. A type that is not here shows its payload as it is.
WORDS: dict[str, Callable[[Payload], str]] = {
    "message.received": lambda p: f"{p.get('role', 'user')}: {_said(p.get('content', ''))}",
    "message.completed": lambda p: f"{p.get('role', 'assistant')}: {p.get('content', '')}",
    "turn.queued": _queued,
    "turn.started": lambda p: _joined(f"{p.get('agent')} revision {p.get('revision')}", f"worker {p.get('worker', '')}"),
    "turn.waiting": _waiting,
    "turn.resumed": lambda p: _joined(p.get("why"), f"attempt {p.get('attempt', 1)}", p.get("worker")),
    "turn.cancel_requested": lambda p: _joined(p.get("reason", "cancelled"), p.get("by") and f"by {p['by']}"),
    "turn.completed": lambda p: _joined(p.get("reason", "answered"), _usage(p)),
    "turn.failed": lambda p: _joined(p.get("reason"), p.get("detail"), _usage(p)),
    "turn.cancelled": lambda p: _joined(p.get("reason", "cancelled"), p.get("by") and f"by {p['by']}"),
    "turn.denied": lambda p: _joined(p.get("reason"), p.get("detail")),
    "step.finished": lambda p: _joined(f"{p.get('step')}: {p.get('decision')}", p.get("detail")),
    "model.started": lambda p: f"{p.get('provider')}/{p.get('model')}, call {p.get('iteration')}",
    "model.finished": lambda p: _joined(
        p.get("stop_reason"), p.get("calls") and f"{p['calls']} tool call{'s' * (p['calls'] > 1)}", _usage(p)
    ),
    "model.failed": lambda p: _joined(p.get("error"), p.get("detail")),
    "stream.reset": lambda p: f"drop the text of {p.get('model_seq')}: {p.get('reason', '')}",
    "tool.requested": lambda p: f"#{p.get('call')} {p.get('name')} {p.get('arguments', '')}",
    "tool.denied": lambda p: f"#{p.get('call')} {p.get('reason')}: {p.get('message')}",
    "tool.started": lambda p: _joined(f"#{p.get('call')} {p.get('effect', 'unsafe')}", f"attempt {p.get('attempt', 1)}"),
    "tool.output": lambda p: f"#{p.get('call')} {p.get('text', '')}",
    "tool.finished": lambda p: f"#{p.get('call')} {p.get('output', '')}",
    "tool.failed": lambda p: f"#{p.get('call')} {p.get('error')}: {p.get('message')}",
    "tool.uncertain": lambda p: f"#{p.get('call')} nobody knows whether it happened: approval {p.get('approval')}",
    "approval.requested": lambda p: f"#{p.get('call')} {p.get('name')} {p.get('arguments', '')}: approval {p.get('approval')}",
    "approval.resolved": lambda p: _joined(
        f"#{p.get('call')} {p.get('outcome')}", p.get("result"), p.get("by") and f"by {p['by']}"
    ),
    "input.steered": lambda p: _joined(f"message {p.get('message_seq')} {p.get('state', 'offered')}", p.get("turn")),
    "memory.compressed": lambda p: f"{p.get('messages', 0)} messages through {p.get('through_seq')}",
}


def summary(kind: str, payload: Payload, width: int = 0) -> str:
    """One safe line about an entry."""
    words = WORDS.get(kind)
    text = words(payload) if words else ", ".join(f"{key}={value}" for key, value in payload.items())
    return one_line(text, width)


#: What `Answer` shows of a turn beside its text.
STEPS = frozenset(
    {
        "turn.waiting",
        "turn.resumed",
        "model.failed",
        "tool.requested",
        "tool.denied",
        "tool.finished",
        "tool.failed",
        "tool.uncertain",
    }
)


class Answer:
    """Prints a turn as it happens: the model's text to `out`, the steps dimmed to `steps`.

    On a terminal text appears as it is streamed; elsewhere only finished messages are written, so that what a script reads has no
    half sentence of a call that was made again.
    """

    def __init__(self, out: TextIO | None = None, steps: TextIO | None = None) -> None:
        self._out: TextIO = out or sys.stdout
        self._steps: TextIO = steps or sys.stderr
        self._live = self._out.isatty()
        self._model_seq: int = 0
        self._shown = 0
        self._open_line = False

    def show(self, event: Event) -> None:
        """Print what `event` adds."""
        payload = event.payload
        if event.type == "text.delta":
            if self._live:
                self._grow(event.seq, int(payload.get("offset", 0)), str(payload.get("text", "")))
        elif event.type == "stream.reset":
            if self._shown:
                self._step("the model is asked again; forget the text above")
            self._shown = 0
        elif event.type == "message.completed":
            self._whole(int(payload.get("model_seq", 0)), str(payload.get("content", "")))
        elif event.type == "model.finished" and payload.get("content") and self._live:
            self._whole(self._model_seq, str(payload.get("content")))
        elif event.type == "model.failed" and payload.get("kept"):
            return  # the text goes on as if nothing had been
        elif event.type in STEPS or (event.type == "turn.queued" and payload.get("behind")):
            self._step(f"{event.type} {summary(event.type, payload, 160)}")
        elif event.type == "approval.requested":
            self._step(f"decide: talon approval resolve {one_line(str(payload.get('approval')))} --outcome retry|done|failed")

    def _grow(self, seq: int, offset: int, text: str) -> None:
        if seq != self._model_seq:
            self._end_line()
            self._model_seq, self._shown = seq, 0
        new = text[max(0, self._shown - offset) :]
        if new:
            self._write(new)
            self._shown = offset + len(text)

    def _whole(self, seq: int, content: str) -> None:
        if seq != self._model_seq:
            self._end_line()
            self._shown = 0
        self._write(content[self._shown :])
        self._end_line()
        self._model_seq, self._shown = 0, 0

    def _write(self, text: str) -> None:
        if text:
            self._out.write(safe(text) if self._live else text)
            self._out.flush()
            self._open_line = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._open_line:
            self._out.write("\n")
            self._out.flush()
            self._open_line = False

    def _step(self, text: str) -> None:
        self._end_line()
        print(styled(text, "dim", self._steps), file=self._steps, flush=True)
