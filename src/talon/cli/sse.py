"""Server-sent events from bytes, however the network has cut them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

BUFFER_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is the cursor to resume after (`SEQ` or `SEQ.OFFSET`), `data` the decoded JSON object."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def seq(self) -> int:
        """The journal position; of a fragment that of its `model.started`."""
        return int(self.data.get("seq", 0))

    @property
    def turn_id(self) -> str:
        return str(self.data.get("turn_id") or "")

    @property
    def payload(self) -> dict[str, Any]:
        payload: Any = self.data.get("payload")
        return cast(dict[str, Any], payload) if isinstance(payload, dict) else {}


class Parser:
    """`feed` bytes, get the events that are complete. A partial line waits for the rest."""

    def __init__(self) -> None:
        self._buffer = b""
        self._id = ""
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in `chunk`. Raises `ValueError` for data that is no JSON object, or a line without an end."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        if len(self._buffer) > BUFFER_MAX:
            raise ValueError("an event without an end")
        events: list[Event] = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                events.append(event)
        return events

    def _line(self, line: str) -> Event | None:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._id = value
            elif name == "event":
                self._type = value
            elif name == "data":
                self._data.append(value)
            return None  # an empty name is a comment: the heartbeat
        if not self._data:
            self._type = ""
            return None
        data = json.loads("\n".join(self._data))
        if not isinstance(data, dict):
            raise ValueError("an event that is no object")
        event = Event(self._id, self._type, cast(dict[str, Any], data))
        self._type, self._data = "", []
        return event
