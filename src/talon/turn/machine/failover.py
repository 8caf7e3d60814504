"""Which model is asked next, after whatever failed before: the one place where a turn fails over.

A *round* asks every profile that is left and may be asked now, in order; after a round the turn rests as a row (K6).
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from talon.domain import entries as e
from talon.turn.machine.bounds import Bounds
from talon.turn.machine.commands import CallModel, Command, Finish, Wait
from talon.turn.machine.ending import fail, finish
from talon.turn.machine.state import Failure, Kept, State

#: A model is asked this many times for one answer before it is given up.
MODEL_ROUNDS_MAX = 4
#: The longest rest after the first round; twice as long after each further one, up to the most.
BACKOFF_FIRST_MS = 1_000
BACKOFF_MAX_MS = 30_000

#: again     the next profile, and this one in a later round      model     this profile is not asked for this answer any more
#: provider  no profile of its provider is                        window    no profile is whose window is known to be no larger
#: refusal   the turn ends; with `onRefusal: next` as `model`     filter    the turn ends; with `onRefusal: next` as `provider`
Rule = Literal["again", "model", "provider", "window", "refusal", "filter"]
RULES: dict[str, Rule] = {
    "timeout": "again",
    "connection": "again",
    "rate_limit": "again",
    "overloaded": "again",
    "server": "again",
    "malformed": "again",
    "empty": "again",
    "bad_request": "model",
    "authentication": "provider",
    "unresolved": "provider",
    "context_overflow": "window",
    "content_filter": "filter",
    "refusal": "refusal",
}


def rule_of(failure: Failure) -> Rule:
    """What follows from a failure. A class that this program does not know is tried again if whoever wrote it said so."""
    return RULES.get(failure.error) or ("again" if failure.retryable else "model")


def next_model_call(state: State, bounds: Bounds, now_ms: int) -> Command:
    """The next profile to ask; a rest, as a row, where none may be asked yet; the end, where none is left.

    A broken answer that stands is gone on with where that is possible: at once by the model that broke it off, if that had added to
    it, else by the one whose turn it is. Else clients drop it.
    """
    command = _next(state, bounds, now_ms)
    kept = state.kept
    if kept is None or isinstance(command, Finish):
        return command
    name = _goes_on(kept, command, state, bounds, now_ms)
    if name:
        at = bounds.profiles.index(name)
        return CallModel(state.iteration + 1, len(state.failures) + 1, at, continues=kept.seq, offset=kept.chars)
    return msgspec.structs.replace(command, drops=kept.seq) if isinstance(command, CallModel) else command


def _goes_on(kept: Kept, otherwise: Command, state: State, bounds: Bounds, now_ms: int) -> str:
    """Who goes on with a broken answer; empty if nobody does."""
    refused = {one.profile for one in state.failures if one.continued and one.error == "bad_request"}
    able = [name for name in bounds.continuing if name not in refused and not _is_out(name, state, bounds)]
    tried = sum(1 for one in state.failures if one.profile == kept.profile)
    at_once = kept.grew and tried < MODEL_ROUNDS_MAX and not _pause_ms(kept.profile, state, bounds, now_ms)
    if at_once and kept.profile in able:
        return kept.profile
    if isinstance(otherwise, CallModel) and bounds.profiles[otherwise.profile] in able:
        return bounds.profiles[otherwise.profile]
    return ""


def _next(state: State, bounds: Bounds, now_ms: int) -> Command:
    last = state.failures[-1] if state.failures else None
    if last is not None:
        if bounds.on_refusal != "next" and rule_of(last) in ("refusal", "filter"):
            return fail(state, "model_failed", f"{last.error}: {last.detail}")
        if bounds.model_retries_max and state.retries > bounds.model_retries_max:
            spent = f"{state.retries} model calls of the turn failed, its limit is {bounds.model_retries_max}"
            return fail(state, "model_retries_exceeded", f"{spent}; the last one: {last.error}: {last.detail}")
    tried = {name: sum(1 for one in state.failures if one.profile == name) for name in bounds.profiles}
    alive = [name for name in bounds.profiles if not _is_out(name, state, bounds)]
    left = [name for name in alive if tried[name] < MODEL_ROUNDS_MAX]
    if not left:
        return _nobody_left(state, bounds, tried_out=bool(alive))
    pause = {name: _pause_ms(name, state, bounds, now_ms) for name in left}
    ready = [name for name in left if not pause[name]]
    if not state.rested:
        if not ready:
            resting = ", ".join(name for name in left if bounds.resting.get(name))
            return _rest(
                state, min(pause.values()), 0, _why(last, f"no model may be asked yet: the circuits of {resting} are open")
            )
        fewest = min(tried[name] for name in ready)
        if fewest and all(tried[name] == fewest for name in ready):
            return _rest(state, 0, fewest - 1, _why(last, ""))
    # After a rest somebody is asked, whatever a circuit says: a turn comes to its end by asking.
    name = min(ready, key=lambda one: tried[one]) if ready else min(left, key=lambda one: (pause[one], tried[one]))
    joined = tuple(seq for seq, _ in state.offered)
    return CallModel(state.iteration + 1, len(state.failures) + 1, bounds.profiles.index(name), joined, anyway=not ready)


def _is_out(name: str, state: State, bounds: Bounds) -> bool:
    if name in bounds.blind and state.has_images:
        return True
    for failure in state.failures:
        rule = rule_of(failure)
        if failure.continued and failure.error == "bad_request":
            continue  # it may only be that this model goes on with no answer
        if rule in ("model", "refusal", "window") and failure.profile == name:
            return True
        if rule in ("provider", "filter") and (
            failure.profile == name or bounds.providers.get(name, name) == bounds.providers.get(failure.profile)
        ):
            return True
        if rule == "window" and 0 < bounds.windows.get(name, 0) <= bounds.windows.get(failure.profile, 0):
            return True
    return False


def _pause_ms(name: str, state: State, bounds: Bounds, now_ms: int) -> int:
    """How long this one is better left alone: until its own Retry-After is over, or while its circuit is open."""
    asked = next((one for one in reversed(state.failures) if one.profile == name), None)
    until_ms = asked.at_ms + int((asked.retry_after_s or 0.0) * 1000) if asked else 0
    return max(0, until_ms - now_ms, bounds.resting.get(name, 0))


def _rest(state: State, least_ms: int, rounds: int, detail: str) -> Wait:
    ceiling = min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2**rounds)
    return Wait("backoff", delay_ms=least_ms + jitter_ms(state, ceiling), detail=detail)


def jitter_ms(state: State, ceiling: int) -> int:
    """From 0 to `ceiling`, all alike probable over turns and times (full jitter), and the same for the same state."""
    drawn = hashlib.sha256(f"{state.turn_id}/{state.last_seq}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") * (ceiling + 1) >> 64


def _sees_nothing(bounds: Bounds) -> str:
    names = ", ".join(bounds.profiles)
    return f"the message has an image, and no model of the agent takes any ({names}): see `vision` in the catalogue of models"


def _why(last: Failure | None, otherwise: str) -> str:
    return f"{last.error}: {last.detail}" if last else otherwise


def _nobody_left(state: State, bounds: Bounds, *, tried_out: bool) -> Command:
    if not state.failures:
        if bounds.profiles and state.has_images:
            return finish(state, e.TurnDenied(reason="images_not_taken", detail=_sees_nothing(bounds)))
        return fail(state, "model_failed", "the turn has no model to ask")
    last = state.failures[-1]
    if not state.iteration and all(failure.error == "unresolved" for failure in state.failures):
        return finish(state, e.TurnDenied(reason="unresolved_reference", detail=last.detail))  # nobody was asked
    times = f" after {len(state.failures)} attempts" if tried_out else ""
    return fail(state, "model_failed", f"{last.error}{times}: {last.detail}")
