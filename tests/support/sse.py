"""A client of server-sent events for tests: parses bytes, keeps the last id, and checks what a stream promises."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def payload(self) -> dict[str, Any]:
        return self.data["payload"]


@dataclass
class Parser:
    """Bytes in, events out."""

    rest: bytes = b""
    comments: int = 0

    def feed(self, data: bytes) -> list[Event]:
        found: list[Event] = []
        *blocks, self.rest = (self.rest + data).split(b"\n\n")
        for block in blocks:
            fields: dict[str, str] = {}
            for line in block.decode().split("\n"):
                if line.startswith(":"):
                    self.comments += 1
                    continue
                name, _, value = line.partition(": ")
                assert name not in fields, f"{name} twice in one event: {block!r}"
                fields[name] = value
            if "data" in fields:
                found.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
        return found


@dataclass
class Reading:
    """What one client has made of a session's stream, over all its connections. Fails on a repeated or missing entry or character.

    `start`: the seq after which it began.
    """

    start: int
    last_id: str = ""
    seqs: list[int] = field(default_factory=list[int])
    texts: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])
    answers: dict[int, str] = field(default_factory=dict[int, str])

    def resumed(self) -> None:
        """A new connection: a cursor without offsets says nothing about text, so text begins anew."""
        if "." not in self.last_id:
            self.texts.clear()

    def take(self, event: Event) -> None:
        if event.type.endswith(".delta"):
            key = (event.data["seq"], event.type)
            have = self.texts.get(key, "")
            assert event.payload["offset"] == len(have), f"{event} does not go on after {len(have)} characters"
            assert event.payload["text"], event
            self.texts[key] = have + event.payload["text"]
        else:
            expected = (self.seqs[-1] if self.seqs else self.start) + 1
            assert event.data["seq"] == expected, f"entry {event.data['seq']} came where {expected} was due"
            assert event.id == str(event.data["seq"])
            self.seqs.append(event.data["seq"])
            model = event.payload.get("model_seq", 0)
            if event.type == "message.completed" and (model, "text.delta") in self.texts:
                assert self.texts[model, "text.delta"] == event.payload["content"], "the deltas do not add up to the answer"
        self.last_id = event.id
