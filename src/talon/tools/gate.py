"""The gate: what stands before and around each tool call.

`check` decides, without any I/O, whether a call that the model asks for may be made at all; `run` makes it, under limits, and
always comes back with a `Result` (or is cancelled); `probe` asks what became of a lost one. Nothing that a tool does (raise,
hang, return a gigabyte, call `sys.exit`) ends the turn or the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from talon.tools.check import ARGUMENTS_MAX, REPEATS_MAX, Denied, Ok, Past, check, effect_of
from talon.tools.protocol import EffectUnknown, Outcome, Tool, ToolContext, ToolError, ToolSpec
from talon.tools.text import cut, said

__all__ = ["ARGUMENTS_MAX", "MESSAGE_MAX", "REPEATS_MAX", "Denied", "Limits", "Ok", "Past", "Result", "check", "probe", "run"]

MESSAGE_MAX = 2_000

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True):
    """Bounds beside the tool's own; the smaller one holds. `cancel_grace_s`: how long a cancelled tool may take to clean up."""

    timeout_s: float = float("inf")
    output_max: int = 1_000_000
    cancel_grace_s: float = 2.0


class Result(msgspec.Struct, frozen=True):
    """What became of a call. `error` is empty or exception | timeout | cancelled | missing; then `message` is for the model.

    `uncertain`: an `unsafe` or `reconcilable` call ended so that nobody knows whether it took effect (given up, or the tool says
    so). It must not be taken for a failure that may simply be tried again.
    """

    output: str = ""
    truncated: bool = False
    error: str = ""
    message: str = ""
    uncertain: bool = False
    duration_ms: int = 0


async def run(
    tool: Tool | None, args: dict[str, Any], context: ToolContext, limits: Limits | None = None, spec: ToolSpec | None = None
) -> Result:
    """Make the call. `args` have passed `check`. `tool` None: the code of a pinned tool is gone (`missing`). `spec` is the pinned
    one; by default the tool's own.

    Never raises but `CancelledError`, when the caller is cancelled: the tool is cancelled first and given `cancel_grace_s`. A tool
    that does not stop then is left behind; a synchronous one always is (a thread cannot be killed). A tool that comes to its
    end within the grace after a timeout is believed: its receipt wins.
    """
    limits = limits or Limits()
    if tool is None:
        what = repr(spec.name) if spec else "the tool"
        return Result(error="missing", message=f"{what} is not installed here any more; the call was not made")
    spec = spec or tool.spec
    now = asyncio.get_running_loop().time
    started = now()
    timeout_s = min(spec.timeout_s, limits.timeout_s)
    try:
        outcome = await _bounded(_attempt(lambda: tool.call(args, context)), timeout_s, limits.cancel_grace_s)
    except TimeoutError:
        outcome = _Failure("timeout", f"{spec.name!r} did not finish within {timeout_s:g} s and was given up")
    duration_ms = round((now() - started) * 1000)
    if isinstance(outcome, _Failure):
        uncertain = outcome.unknown and effect_of(tool, args) in ("unsafe", "reconcilable")
        message = outcome.message + (" (it may or may not have taken effect)" if uncertain else "")
        return Result(error=outcome.error, message=message, uncertain=uncertain, duration_ms=duration_ms)
    if not isinstance(outcome, str):
        message = f"the call of {spec.name!r} was made, but it returned {type(outcome).__name__} instead of text"
        return Result(error="exception", message=message, duration_ms=duration_ms)
    output, truncated = cut(outcome, min(spec.output_max, limits.output_max))
    return Result(output, truncated, duration_ms=duration_ms)


async def probe(
    tool: Tool | None, args: dict[str, Any], context: ToolContext, limits: Limits | None = None, spec: ToolSpec | None = None
) -> Outcome:
    """Ask a reconcilable tool what became of the call with `context.key`, under the limits of a call. A probe that fails, hangs or
    is gone knows nothing: `unknown`, with the reason as output. Raises only `CancelledError`, as `run` does."""
    limits = limits or Limits()
    if tool is None:
        return Outcome("unknown", "the tool is not installed here any more")
    spec = spec or tool.spec
    timeout_s = min(spec.timeout_s, limits.timeout_s)
    try:
        found = await _bounded(_attempt(lambda: tool.probe(args, context)), timeout_s, limits.cancel_grace_s)
    except TimeoutError:
        return Outcome("unknown", f"the probe of {spec.name!r} did not finish within {timeout_s:g} s")
    if isinstance(found, _Failure):
        return Outcome("unknown", found.message)
    return Outcome(found.state, cut(found.output, min(spec.output_max, limits.output_max))[0])


class _Failure(msgspec.Struct, frozen=True):
    """An attempt that gave no result. `unknown`: it may have taken effect all the same."""

    error: str
    message: str
    unknown: bool = True


async def _attempt(start: Callable[[], Awaitable[T]]) -> T | _Failure:
    """Start and await a tool; whatever it raises becomes a `_Failure`, only a cancellation from outside goes through."""
    try:
        return await start()
    except EffectUnknown as error:
        return _Failure("exception", _bound(said(error) or "the tool does not know whether it took effect"))
    except ToolError as error:
        return _Failure("exception", _bound(said(error) or "the tool failed without saying why"), unknown=False)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return _Failure("cancelled", "the tool cancelled itself")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool may raise anything, and `sys.exit` must not end the worker
        return _Failure("exception", _bound(f"{type(error).__name__}: {said(error)}".removesuffix(": ")), unknown=False)


async def _bounded(work: Coroutine[Any, Any, T], timeout_s: float, grace_s: float) -> T:
    """The result of `work`, in a task of its own: one which ignores its cancellation cannot hold us. Raises `TimeoutError`."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=None if timeout_s == float("inf") else timeout_s)
        if not task.done():
            await _stop(task, grace_s)
    except asyncio.CancelledError:
        await _stop(task, grace_s)
        raise
    if not task.done() or task.cancelled():
        raise TimeoutError
    return task.result()


_left_behind: set[asyncio.Task[Any]] = set()


async def _stop(task: asyncio.Task[Any], grace_s: float) -> None:
    """Cancel `task` and wait up to `grace_s` for its end; keep hold of one that goes on, so that it is not lost half-way."""
    if not task.done():
        task.cancel()
        _left_behind.add(task)
        task.add_done_callback(_left_behind.discard)
        await asyncio.wait({task}, timeout=grace_s)


def _bound(text: str) -> str:
    return cut(text, MESSAGE_MAX)[0]
