"""`ScriptedProvider`: the fake model in process, with the events, errors and time-outs that the wire would give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatRequest, ErrorClass, Finished, ProviderError, ToolCall
from talon.providers.scripted.model import Fault
from talon.providers.scripted.pieces import pieces, status_error, usage_of
from talon.providers.scripted.script import Script


class ScriptedProvider:
    """Answers from `script`. Keeps nothing but the script's counters; of `limits`, `first_token_s` and `idle_s` act."""

    def __init__(self, name: str, script: Script, *, limits: CallLimits | None = None) -> None:
        self._name = name
        self._script = script
        self._limits = limits or CallLimits()

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """Make one call; see `Provider.chat`."""
        reply = self._script.reply(request)
        fault, usage = reply.fault, usage_of(reply, request)
        await self._pause(reply.delay_ms / 1000, begun=False)
        self._fail_at_once(fault)
        for number, piece in enumerate(pieces(reply)):
            if fault is not None and number == fault.after:
                await self._break_off(fault, begun=number > 0)
            if number:
                await self._pause(reply.chunk_delay_ms / 1000, begun=True)
            if not isinstance(piece, ToolCall):
                yield piece
        if fault is not None:
            await self._break_off(fault, begun=True)
        yield Finished(reply.stop_reason, usage, reply.calls, request.model)

    async def close(self) -> None:
        """Nothing is open."""

    async def _pause(self, seconds: float, *, begun: bool) -> None:
        limit = self._limits.idle_s if begun else self._limits.first_token_s
        if seconds:
            await asyncio.sleep(min(seconds, limit))
        if seconds > limit:
            raise self._error(
                "timeout", f"nothing came within {'idle_timeout_s' if begun else 'first_token_timeout_s'} ({limit:g} s)"
            )

    def _fail_at_once(self, fault: Fault | None) -> None:
        match fault.kind if fault else "":
            case "status" if fault:
                raise status_error(self._name, fault)
            case "empty":
                raise self._error("empty", "status 200 with an empty body")
            case "garbage":
                raise self._error("malformed", "neither a stream nor a completion came")
            case _:
                return

    async def _break_off(self, fault: Fault, *, begun: bool) -> None:
        """End the answer as `fault` says, in its middle."""
        match fault.kind:
            case "stall":
                await self._pause(float("inf"), begun=begun)
            case "half_json":
                raise self._error("malformed", "an event cannot be read: it is half a JSON")
            case _:
                raise self._error("connection", "the stream was closed before the model said why it stopped")

    def _error(self, error: ErrorClass, detail: str) -> ProviderError:
        return ProviderError(error, f"providers.{self._name}: {detail}")
