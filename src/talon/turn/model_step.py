"""One model call: announced, streamed, and what came of it as facts (K4)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

import msgspec

from talon.domain import entries as e
from talon.domain.entries import Money
from talon.domain.ids import Clock
from talon.manifest.effective import Profile
from talon.providers.estimate import estimate_usage, input_tokens
from talon.providers.protocol import (
    AnswerSchema,
    ChatMessage,
    ChatRequest,
    Finished,
    ProviderError,
    TextDelta,
    Thinking,
    ToolCall,
    ToolDef,
)
from talon.providers.registry import Providers
from talon.providers.traffic import Traffic
from talon.store.protocols import Journal
from talon.turn.attend import Attention
from talon.turn.context import ContextLimits, transcript
from talon.turn.definition import Pin
from talon.turn.fragments import FragmentStream, Pace
from talon.turn.history import history
from talon.turn.ledger import Draft, Intent, Ledger
from talon.turn.machine import CallModel, State, Wait
from talon.turn.pictures import choose, with_bytes
from talon.turn.seam import BROKEN, Seam, beginning, going_on, placed_behind

#: Of a cost: the vendor said it.
_REPORTED = "reported"


@dataclass(frozen=True, slots=True)
class ModelStep:
    """Performs `CallModel` and `Listen`, and accounts for calls whose worker is gone."""

    providers: Providers
    journal: Journal
    clock: Clock
    limits: ContextLimits
    traffic: Traffic
    pace: Pace = field(default_factory=Pace)

    async def announce(self, command: CallModel, ledger: Ledger, pin: Pin) -> Wait | None:
        """Make the intent durable, with all facts so far in one commit; not if somebody has written meanwhile, and not while the
        provider may not be called: then -> the wait for a place in its quota, or nothing, to decide again."""
        profile = pin.definition.profiles[command.profile]
        held = await self.traffic.admit(
            profile,
            f"{ledger.turn_id}/{command.iteration}/{command.attempt}",
            ledger.session.namespace,
            lambda: self._asked(self._request(ledger, pin, profile)),
            anyway=command.anyway,
        )
        if held is not None:
            return Wait("quota", delay_ms=held.wait_ms, detail=held.detail) if held.kind == "quota" else None
        dropped = (e.StreamReset(model_seq=command.drops, reason="broken"),) if command.drops else ()
        joined = tuple(e.InputSteered(message_seq=seq, state="joined") for seq in command.joined)
        drop = (command.drops,) if command.drops else ()
        await ledger.commit(Intent((*dropped, *joined, model_started(command, pin)), drop_fragments=drop))
        return None

    async def listen(self, ledger: Ledger, pin: Pin, attention: Attention) -> None:
        """Make the announced call and leave its outcome as facts."""
        announced = ledger.state.model
        if announced is None:
            raise AssertionError("a call is announced before it is made")
        seq = announced.text_seq
        profile = next(profile for profile in pin.definition.profiles if profile.name == announced.profile)
        begun = await self._begun(ledger.session.sid, seq) if announced.continues else ""
        request = await self._whole(ledger, going_on(self._request(ledger, pin, profile), begun))
        stream = FragmentStream(seq, ledger.fragments, self.pace, begun)
        asked = self.traffic.size(profile, lambda: self._asked(request))
        began_s = self.clock.monotonic_s()
        task = asyncio.create_task(self._consume(profile.provider, request, stream, Seam(begun), pin.definition.verbose))
        ended = asyncio.Event()
        kept = 0

        async def on_done(task: asyncio.Task[Finished], _: bool) -> None:
            task.exception()  # seen: if the stream has failed as well, its error is the one that is raised
            ended.set()

        try:
            await attention.watch({task}, on_done)
            if ended.is_set() and _stands(task, stream, pin):
                kept = await stream.settle()
        finally:
            await stream.close()
        if not ended.is_set():
            usage = estimate_usage(request, stream.length)
            cost = self.traffic.cost(profile, usage)
            failed = e.ModelFailed(error="cancelled", detail="the turn was stopped", usage=usage, cost=cost)
            ledger.fact(failed, drop_fragments=stream.to_drop)
            return
        duration_ms = int((self.clock.monotonic_s() - began_s) * 1000)
        outcome = self._outcome(task, ledger, request, profile, stream, seq, duration_ms, kept)
        if isinstance(outcome, e.ModelFailed):
            await self.traffic.went_wrong(profile, asked, outcome.usage, outcome.error, outcome.retry_after_s)
        else:
            await self.traffic.went_well(profile, asked, outcome.usage)

    def _outcome(
        self,
        task: asyncio.Task[Finished],
        ledger: Ledger,
        request: ChatRequest,
        profile: Profile,
        stream: FragmentStream,
        seq: int,
        duration_ms: int,
        kept: int,
    ) -> e.ModelFailed | e.ModelFinished:
        try:
            finished = task.result()
        except ProviderError as error:
            # Nothing was answered: nothing to pay for. Something was: the provider says how much, or we estimate.
            usage = estimate_usage(request, stream.length) if stream.length and error.usage == e.Usage() else error.usage
            reckoned = self.traffic.cost(profile, usage) if usage != e.Usage() else None
            failed = e.ModelFailed(
                error=error.error,
                detail=error.detail,
                status=error.status,
                retryable=error.retryable,
                retry_after_s=error.retry_after_s,
                usage=usage,
                cost=error.cost or reckoned,
                cost_source=_REPORTED if error.cost else "",
                kept=kept,
            )
            if kept:
                ledger.fact(failed)
                return failed
            facts: list[Draft] = [failed]
            if stream.streamed:
                facts.append(e.StreamReset(model_seq=seq, reason=error.error))
            ledger.fact(*facts, drop_fragments=stream.to_drop)
            return failed
        reckoned = None if finished.cost else self.traffic.cost(profile, finished.usage)
        answered, rest = answer_facts(finished, stream, ledger.state, seq, duration_ms, reckoned)
        ledger.fact(answered, *rest, drop_fragments=stream.to_drop)
        return answered

    async def _consume(self, provider: str, request: ChatRequest, stream: FragmentStream, seam: Seam, verbose: bool) -> Finished:
        try:
            async with aclosing(self.providers.get(provider).chat(request)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        stream.end()
                        return event
                    if isinstance(event, TextDelta):
                        if text := seam.join(event.text):
                            stream.add(text)
                    elif verbose:
                        stream.add(event.text, "reasoning")
        except ProviderError as error:
            if error.error == "empty" and stream.begun:  # it broke off behind its last word: there was nothing more to say
                stream.end()
                return Finished("stop", error.usage, cost=error.cost)
            raise
        raise ProviderError("connection", "the answer ended without an end")

    async def _begun(self, sid: int, text_seq: int) -> str:
        """The text of a broken answer, as clients have it."""
        return "".join(piece.text for piece in await self.journal.read_fragments(sid, text_seq) if piece.kind == "text")

    async def _whole(self, ledger: Ledger, request: ChatRequest) -> ChatRequest:
        """`request` with the bytes of its images."""
        sid = ledger.session.sid
        messages = await with_bytes(request.messages, lambda digests: self.journal.read_blobs(sid, digests))
        return msgspec.structs.replace(request, messages=messages)

    def _request(self, ledger: Ledger, pin: Pin, profile: Profile) -> ChatRequest:
        form = profile.answer_schema
        said = (*history(ledger.history, self.limits), *transcript(ledger.state, self.limits))
        system = ChatMessage(role="system", content=pin.definition.system_prompt)
        messages = (system, *choose(said, self.limits, blind=profile.name in pin.definition.blind))
        return ChatRequest(
            model=profile.model,
            messages=messages,
            tools=tuple(ToolDef(spec.name, spec.description, spec.parameters) for spec in pin.specs.values()),
            temperature=profile.temperature,
            max_output_tokens=profile.max_output_tokens,
            user=ledger.session.uid,
            top_p=profile.top_p,
            top_k=profile.top_k,
            stop=profile.stop,
            seed=profile.seed,
            thinking=cast(Thinking, profile.thinking),
            tool_choice=_tool_choice(profile, ledger.state),
            parallel_tool_calls=profile.parallel_tool_calls,
            answer_schema=AnswerSchema(form.name, form.schema, form.strict) if form else None,
        )

    @staticmethod
    def _asked(request: ChatRequest) -> int:
        """The tokens that a quota is asked for: the input by estimate, and the output's limit where the request names one."""
        return input_tokens(request) + (request.max_output_tokens or 0)

    async def abandoned(self, ledger: Ledger, pin: Pin, text_seq: int, *, may_keep: bool) -> e.StreamReset | e.ModelFailed:
        """What the call in flight cost, as far as anybody can tell: its worker is gone, its answer with it (K4). With `may_keep`
        the text that clients have stands, if it is one to go on with."""
        fragments = await self.journal.read_fragments(ledger.session.sid, text_seq)
        asked = ledger.state.model
        profiles = pin.definition.profiles
        profile = next((one for one in profiles if asked is not None and one.name == asked.profile), profiles[0])
        text = "".join(piece.text for piece in fragments if piece.kind == "text")
        came = sum(len(fragment.text) for fragment in fragments) - (asked.offset if asked is not None else 0)
        usage = estimate_usage(self._request(ledger, pin, profile), max(0, came))
        cost = self.traffic.cost(profile, usage)
        if may_keep and beginning(text) and all(piece.kind == "text" for piece in fragments):
            return e.ModelFailed(
                error="worker_lost", detail="the worker is gone", retryable=True, usage=usage, cost=cost, kept=len(text)
            )
        return e.StreamReset(model_seq=text_seq, reason="worker_lost", usage=usage, cost=cost)


def _stands(task: asyncio.Task[Finished], stream: FragmentStream, pin: Pin) -> bool:
    """Whether the text of a call that failed stays: that of one that broke off in the middle, where a model can go on with it; what
    had stood before stands, whatever failed."""
    error = task.exception()
    if not isinstance(error, ProviderError):
        return False
    broke = error.error in BROKEN and bool(beginning(stream.text())) and not stream.text("reasoning")
    return bool(stream.begun) or (broke and bool(pin.definition.continuing))


def _tool_choice(profile: Profile, state: State) -> str:
    """A forced call is forced once: a turn whose every answer is a call has no end."""
    if profile.tool_choice in ("", "auto", "none") or not state.calls:
        return profile.tool_choice
    return "auto"


def model_started(command: CallModel, pin: Pin) -> e.ModelStarted:
    """The announcement of a call."""
    profile = pin.definition.profiles[command.profile]
    return e.ModelStarted(
        iteration=command.iteration,
        provider=profile.provider,
        model=profile.model,
        profile=profile.name,
        attempt=command.attempt,
        continues=command.continues,
        offset=command.offset,
    )


def answer_facts(
    finished: Finished, stream: FragmentStream, state: State, seq: int, duration_ms: int, reckoned: Money | None
) -> tuple[e.ModelFinished, Sequence[Draft]]:
    """A good answer as facts: the calls it asks for, or the message that it is. Its text is written once."""
    text, calls = stream.text(), finished.tool_calls
    answered = e.ModelFinished(
        stop_reason=finished.stop_reason,
        content=text if calls else "",
        reasoning=stream.text("reasoning"),
        calls=len(calls),
        usage=finished.usage,
        model=finished.model,
        duration_ms=duration_ms,
        opaque=placed_behind(stream.begun, finished.opaque),
        cost=finished.cost or reckoned,
        cost_source=_REPORTED if finished.cost else "",
    )
    facts: list[Draft] = [_requested(len(state.calls) + number, call) for number, call in enumerate(calls, 1)]
    if not calls:
        facts.append(e.MessageCompleted(content=text, model_seq=seq))
    return answered, facts


def _requested(number: int, call: ToolCall) -> e.ToolRequested:
    return e.ToolRequested(call=number, call_id=call.id, name=call.name, arguments=call.arguments, opaque=call.opaque)
