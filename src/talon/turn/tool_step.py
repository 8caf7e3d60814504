"""Tool calls: intent before, receipt after, and what becomes of those without a receipt (K5)."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from talon.domain import entries as e
from talon.domain.ids import Ids
from talon.store.model import NewApproval
from talon.tools import gate
from talon.tools.keys import idempotency_key
from talon.tools.protocol import Outcome, Tool, ToolContext, ToolSpec
from talon.turn.attend import Attention
from talon.turn.definition import Pin
from talon.turn.ledger import Draft, Intent, Ledger
from talon.turn.machine import Call, RunTools, State

MISSING = "This tool is not available any more."


class Started(msgspec.Struct, frozen=True):
    """A call that passed the gate: its tool, checked arguments and effect class."""

    call: Call
    spec: ToolSpec
    tool: Tool
    args: dict[str, Any]
    effect: str


class Doubt(msgspec.Struct, frozen=True):
    """A call came back, and nobody knows whether it took effect."""

    reason: str


Receipt = e.ToolFinished | e.ToolFailed | Doubt


@dataclass(frozen=True, slots=True)
class ToolStep:
    """Performs `RunTools`. The calls of one answer run together; each has its own entries."""

    ids: Ids

    async def perform(self, command: RunTools, ledger: Ledger, pin: Pin, attention: Attention) -> None:
        """Gate, intent, run, receipts. The last receipt stays a fact, to be durable together with what follows it."""
        state = ledger.state
        drafts: list[Draft] = [_settled(state.call(number)) for number in command.settle]
        again, doubtful = list(command.run), list(command.uncertain)
        if command.probe:
            found = await asyncio.gather(*(self._probe(state.call(number), ledger, pin) for number in command.probe))
            for number, receipt in zip(command.probe, found, strict=True):
                if isinstance(receipt, e.ToolFinished):
                    drafts.append(receipt)
                else:
                    (again if receipt == "not_done" else doubtful).append(number)
        started: list[Started] = []
        for number in sorted(again):
            passed = self._check(state, number, pin)
            if isinstance(passed, Started):
                started.append(passed)
                drafts.append(_intent(passed, ledger.session.uid))
            elif state.call(number).attempt and state.call(number).effect != "read":
                doubtful.append(number)  # it cannot run again, and "it was not made" might be a lie
            else:
                drafts.append(passed)
        approvals: list[NewApproval] = []
        for number in sorted(doubtful):
            more, approval = uncertain_drafts(state, number, self.ids.uuid7(), "its receipt was lost")
            drafts += more
            approvals.append(approval)
        if not await ledger.commit(Intent(tuple(drafts), approvals=tuple(approvals))) or not started:
            return
        await self._run(started, ledger, pin, attention)

    def _check(self, state: State, number: int, pin: Pin) -> Started | e.Payload:
        """Through the gate, and to the code behind the pinned schema. The repeat guard asks once: what ran before has passed it."""
        call = state.call(number)
        closed = () if call.attempt else state.with_status("closed")
        past = [gate.Past(c.name, c.arguments, failed=not c.ok) for c in closed]
        verdict = gate.check(pin.specs, call.name, call.arguments, past, pin.tools)
        if isinstance(verdict, gate.Denied):
            return e.ToolDenied(call=number, reason=verdict.reason, message=verdict.message)
        tool = pin.tools.get(call.name)
        if tool is None:
            return e.ToolFailed(call=number, error="missing", message=MISSING)
        return Started(call, pin.specs[call.name], tool, verdict.args, verdict.effect)

    async def _probe(self, call: Call, ledger: Ledger, pin: Pin) -> e.ToolFinished | str:
        """Ask the tool itself what became of the call: its receipt, `not_done`, or `unknown`."""
        passed = self._check(ledger.state, call.call, pin)
        if not isinstance(passed, Started):
            return "unknown"
        context = self._context(call, ledger, pin)
        outcome = await gate.probe(passed.tool, passed.args, context, spec=passed.spec)
        if outcome.state == "done":
            return e.ToolFinished(call=call.call, output=outcome.output, source="probe")
        return outcome.state

    async def _run(self, started: list[Started], ledger: Ledger, pin: Pin, attention: Attention) -> None:
        tasks: dict[asyncio.Task[Receipt], int] = {}
        for one in started:
            context = self._context(ledger.state.call(one.call.call), ledger, pin)
            tasks[asyncio.create_task(_attempt(one, context))] = one.call.call

        async def on_done(task: asyncio.Task[Receipt], others_run: bool) -> None:
            receipt = task.result()
            if isinstance(receipt, Doubt):
                drafts, approval = uncertain_drafts(ledger.state, tasks[task], self.ids.uuid7(), receipt.reason)
                ledger.fact(*drafts, approval=approval)
            else:
                ledger.fact(receipt)
            if others_run:
                await ledger.settle()

        if await attention.watch(set(tasks), on_done):
            return
        # Stopped. What only reads, or honours its key, is closed; of the rest nobody knows what happened.
        for call in ledger.state.with_status("started"):
            if call.effect in ("read", "idempotent"):
                ledger.fact(e.ToolFailed(call=call.call, error="cancelled", message="The call was stopped before it answered."))

    def _context(self, call: Call, ledger: Ledger, pin: Pin) -> ToolContext:
        session = ledger.session
        return ToolContext(
            key=call.key,
            namespace=session.namespace,
            agent=session.agent,
            session=session.id,
            turn_id=ledger.turn_id,
            call=call.call,
            attempt=call.attempt,
            features=pin.definition.features,
        )


def _intent(started: Started, session_uid: str) -> Draft:
    """`tool.started`; its key derives from a seq that is only known where the append lands."""

    def make(state: State) -> e.Payload:
        call = state.call(started.call.call)
        return e.ToolStarted(
            call=call.call,
            key=idempotency_key(session_uid, call.requested_seq),
            attempt=call.attempt + 1,
            effect=started.effect,
            code=started.tool.spec.code,
        )

    return make


async def _attempt(one: Started, context: ToolContext) -> Receipt:
    """Run once; a reconcilable tool that does not know what it did is asked by its probe before a person is."""
    number = one.call.call
    result = await gate.run(one.tool, one.args, context, spec=one.spec)
    failed = e.ToolFailed(call=number, error=result.error, message=result.message, duration_ms=result.duration_ms)
    if not result.uncertain:
        finished = e.ToolFinished(call=number, output=result.output, truncated=result.truncated, duration_ms=result.duration_ms)
        return failed if result.error else finished
    outcome = Outcome("unknown")
    if one.effect == "reconcilable":
        outcome = await gate.probe(one.tool, one.args, context, spec=one.spec)
    match outcome.state:
        case "done":
            return e.ToolFinished(call=number, output=outcome.output, duration_ms=result.duration_ms, source="probe")
        case "not_done":
            return msgspec.structs.replace(failed, message=f"{result.message}; the tool found that it did not happen")
        case _:
            return Doubt(result.message)


def _settled(call: Call) -> Draft:
    outcome, result = call.human or ("failed", "")
    if outcome == "done":
        return e.ToolFinished(call=call.call, output=result or "Done, as a person found out.", source="human")
    return e.ToolFailed(call=call.call, error="human", message=result or "It did not happen, as a person found out.")


def uncertain_drafts(state: State, number: int, approval: str, reason: str) -> tuple[list[Draft], NewApproval]:
    """`tool.uncertain`, and the question to a human about it."""
    call = state.call(number)
    asked = e.ApprovalRequested(
        approval=approval,
        kind="uncertain",
        call=number,
        name=call.name,
        arguments=call.arguments,
        arguments_sha256=hashlib.sha256(call.arguments.encode()).hexdigest(),
    )
    uncertain = e.ToolUncertain(call=number, key=call.key, approval=approval, reason=reason)
    return [uncertain, asked], NewApproval(approval, state.turn_id, number, "uncertain", msgspec.json.encode(asked))
