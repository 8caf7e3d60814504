"""What a turn may do, and whom it may ask: what `decide` needs beside the turn's own entries."""

from __future__ import annotations

import msgspec


class Bounds(msgspec.Struct, frozen=True):
    """What bounds this turn: the definition's limits, its profiles, the trust in keys, and the claims without progress so far.

    `providers` and `windows` (tokens, where known) are by profile. `blind` are profiles whose models are known to take no images,
    `continuing` those that may go on with a broken answer.
    `resting` are profiles that are better not asked now, with the milliseconds until they may be: a circuit is open. `on_refusal`:
    end | next.
    """

    profiles: tuple[str, ...]
    model_calls_max: int
    tool_calls_max: int
    wall_time_max_s: float
    tokens_max: int
    key_ttl_s: dict[str, float] = {}
    attempts: int = 1
    attempts_max: int = 5
    model_retries_max: int = 20
    providers: dict[str, str] = {}
    windows: dict[str, int] = {}
    blind: tuple[str, ...] = ()
    continuing: tuple[str, ...] = ()
    on_refusal: str = "end"
    resting: dict[str, int] = {}
