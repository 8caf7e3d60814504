"""The named limits of one model call, the same for every provider."""

from __future__ import annotations

import msgspec


class CallLimits(msgspec.Struct, frozen=True):
    """Bounds of one call; each one's error text names its setting (`connect_timeout_s`, …). All are > 0, times in seconds.

    `connect_s`: name look-up, TCP and TLS. `first_token_s`: from the request to the first event of the answer; comments that keep
    the line alive do not count. `idle_s`: between two arrivals after that. `total_s`: the whole call, the consumer's own pauses
    included. `answer_max`: characters of text, reasoning and arguments together. `line_max`: bytes of one event of the stream.
    """

    connect_s: float = 10.0
    first_token_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 900.0
    answer_max: int = 10_000_000
    tool_calls_max: int = 128
    line_max: int = 1_048_576

    @property
    def whole_max(self) -> int:
        """Bytes of a document that holds a whole answer: escapes and framing may double a text."""
        return 2 * self.answer_max + self.line_max
