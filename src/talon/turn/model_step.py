"""One model call: announced, streamed, and what came of it as facts (K4)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from talon.domain import entries as e
from talon.domain.ids import Clock
from talon.manifest.effective import Profile
from talon.providers.estimate import estimate_usage
from talon.providers.protocol import ChatMessage, ChatRequest, Finished, ProviderError, TextDelta, ToolCall, ToolDef
from talon.providers.registry import Providers
from talon.store.protocols import Journal
from talon.turn.attend import Attention
from talon.turn.context import ContextLimits, transcript
from talon.turn.definition import Pin
from talon.turn.fragments import FragmentStream, Pace
from talon.turn.history import history
from talon.turn.ledger import Draft, Intent, Ledger
from talon.turn.machine import CallModel, State


@dataclass(frozen=True, slots=True)
class ModelStep:
    """Performs `CallModel` and `Listen`, and accounts for calls whose worker is gone."""

    providers: Providers
    journal: Journal
    clock: Clock
    limits: ContextLimits
    pace: Pace = field(default_factory=Pace)

    async def announce(self, command: CallModel, ledger: Ledger, pin: Pin) -> None:
        """Make the intent durable, with all facts so far in one commit; not if somebody has written meanwhile."""
        joined = tuple(e.InputSteered(message_seq=seq, state="joined") for seq in command.joined)
        await ledger.commit(Intent((*joined, model_started(command, pin))))

    async def listen(self, ledger: Ledger, pin: Pin, attention: Attention) -> None:
        """Make the announced call and leave its outcome as facts."""
        announced = ledger.state.model
        if announced is None:
            raise AssertionError("a call is announced before it is made")
        seq = announced.seq
        profile = next(profile for profile in pin.definition.profiles if profile.name == announced.profile)
        request = self._request(ledger, pin, profile)
        stream = FragmentStream(seq, ledger.fragments, self.pace)
        began_s = self.clock.monotonic_s()
        task = asyncio.create_task(self._consume(profile.provider, request, stream))
        ended = asyncio.Event()

        async def on_done(task: asyncio.Task[Finished], _: bool) -> None:
            task.exception()  # seen: if the stream has failed as well, its error is the one that is raised
            ended.set()

        try:
            await attention.watch({task}, on_done)
        finally:
            await stream.close()
        if not ended.is_set():
            usage = estimate_usage(request, stream.length)
            failed = e.ModelFailed(error="cancelled", detail="the turn was stopped", usage=usage)
            ledger.fact(failed, drop_fragments=stream.to_drop)
            return
        duration_ms = int((self.clock.monotonic_s() - began_s) * 1000)
        self._outcome(task, ledger, request, stream, seq, duration_ms)

    def _outcome(
        self,
        task: asyncio.Task[Finished],
        ledger: Ledger,
        request: ChatRequest,
        stream: FragmentStream,
        seq: int,
        duration_ms: int,
    ) -> None:
        try:
            finished = task.result()
        except ProviderError as error:
            # Nothing was answered: nothing to pay for. Something was: the provider says how much, or we estimate.
            usage = estimate_usage(request, stream.length) if stream.length and error.usage == e.Usage() else error.usage
            facts: list[Draft] = [
                e.ModelFailed(
                    error=error.error,
                    detail=error.detail,
                    status=error.status,
                    retryable=error.retryable,
                    retry_after_s=error.retry_after_s,
                    usage=usage,
                )
            ]
            if stream.streamed:
                facts.append(e.StreamReset(model_seq=seq, reason=error.error))
            ledger.fact(*facts, drop_fragments=stream.to_drop)
            return
        ledger.fact(*answer_facts(finished, stream, ledger.state, seq, duration_ms), drop_fragments=stream.to_drop)

    async def _consume(self, provider: str, request: ChatRequest, stream: FragmentStream) -> Finished:
        async with aclosing(self.providers.get(provider).chat(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    stream.end()
                    return event
                stream.add(event.text, "text" if isinstance(event, TextDelta) else "reasoning")
        raise ProviderError("connection", "the answer ended without an end")

    def _request(self, ledger: Ledger, pin: Pin, profile: Profile) -> ChatRequest:
        messages = (
            ChatMessage(role="system", content=pin.definition.system_prompt),
            *history(ledger.history, self.limits),
            *transcript(ledger.state, self.limits),
        )
        return ChatRequest(
            model=profile.model,
            messages=messages,
            tools=tuple(ToolDef(spec.name, spec.description, spec.parameters) for spec in pin.specs.values()),
            temperature=profile.temperature,
            max_output_tokens=profile.max_output_tokens,
            user=ledger.session.uid,
        )

    async def abandoned(self, ledger: Ledger, pin: Pin, model_seq: int) -> e.StreamReset:
        """What the call at `model_seq` cost, as far as anybody can tell: its worker is gone, its answer with it (K4)."""
        fragments = await self.journal.read_fragments(ledger.session.sid, model_seq)
        request = self._request(ledger, pin, pin.definition.profiles[0])
        usage = estimate_usage(request, sum(len(fragment.text) for fragment in fragments))
        return e.StreamReset(model_seq=model_seq, reason="worker_lost", usage=usage)


def model_started(command: CallModel, pin: Pin) -> e.ModelStarted:
    """The announcement of a call."""
    profile = pin.definition.profiles[command.profile]
    return e.ModelStarted(
        iteration=command.iteration,
        provider=profile.provider,
        model=profile.model,
        profile=profile.name,
        attempt=command.attempt,
    )


def answer_facts(finished: Finished, stream: FragmentStream, state: State, seq: int, duration_ms: int) -> list[Draft]:
    """A good answer as facts: the calls it asks for, or the message that it is. Its text is written once."""
    text, calls = stream.text(), finished.tool_calls
    facts: list[Draft] = [
        e.ModelFinished(
            stop_reason=finished.stop_reason,
            content=text if calls else "",
            reasoning=stream.text("reasoning"),
            calls=len(calls),
            usage=finished.usage,
            model=finished.model,
            duration_ms=duration_ms,
            opaque=finished.opaque,
        )
    ]
    facts += [_requested(len(state.calls) + number, call) for number, call in enumerate(calls, 1)]
    if not calls:
        facts.append(e.MessageCompleted(content=text, model_seq=seq))
    return facts


def _requested(number: int, call: ToolCall) -> e.ToolRequested:
    return e.ToolRequested(call=number, call_id=call.id, name=call.name, arguments=call.arguments, opaque=call.opaque)
