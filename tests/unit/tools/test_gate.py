"""The gate: what is denied before a call, and what becomes of a call that misbehaves."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from talon import EffectUnknown, Outcome, ToolContext, ToolError, tool
from talon.tools import gate
from talon.tools.gate import Denied, Limits, Ok, Past, Result, check
from talon.tools.protocol import ToolSpec

CONTEXT = ToolContext(key="tk_1", namespace="acme", agent="support", session="s1", turn_id="t1", call=1)
QUICK = Limits(timeout_s=0.05, cancel_grace_s=0.05)
BOUND_S = 20.0


@tool(effect="read")
async def search(
    text: str, limit: Annotated[int, Field(ge=1, le=50)] = 10, order: Literal["new", "old"] = "new", tag: int | None = None
) -> str:
    """Find things."""
    return f"{text} {limit} {order} {tag}"


SPECS = {"search": search.spec}


def denied(verdict: Ok | Denied) -> Denied:
    assert isinstance(verdict, Denied)
    return verdict


def test_a_good_call_passes_with_its_arguments_and_effect() -> None:
    assert check(SPECS, "search", '{"text":"a","limit":5}') == Ok({"text": "a", "limit": 5}, "read")


def test_no_arguments_at_all_mean_an_empty_object() -> None:
    @tool(effect="read")
    def ping() -> str:
        return "pong"

    assert check({"ping": ping.spec}, "ping", "") == Ok({}, "read")


def test_an_unknown_tool_is_denied_with_the_known_ones() -> None:
    verdict = denied(check(SPECS, "serch", "{}"))
    assert verdict == Denied("unknown_tool", "there is no tool 'serch'; the tools are: search")


def test_an_agent_without_tools_is_told_so() -> None:
    assert denied(check({}, "search", "{}")).message.endswith("the tools are: none")


@pytest.mark.parametrize("arguments", ["{", '{"text":}', "nonsense", '{"text":"a"} and more', "[" * 100_000, '{"limit":NaN}'])
def test_what_is_not_json_is_denied(arguments: str) -> None:
    assert denied(check(SPECS, "search", arguments)).reason == "malformed"


@pytest.mark.parametrize("arguments", ["[]", "5", '"text"', "null"])
def test_what_is_not_an_object_is_denied(arguments: str) -> None:
    verdict = denied(check(SPECS, "search", arguments))
    assert verdict == Denied("malformed", f"the arguments of 'search' must be a JSON object, not {arguments}")


def test_every_violation_is_named_by_its_path() -> None:
    verdict = denied(check(SPECS, "search", '{"limit":99,"order":"odd","tag":"x","colour":1}'))
    assert verdict.reason == "invalid"
    for part in ("'text' is a required property", "limit: 99", "order: 'odd'", "tag: 'x' is not of type 'integer' or", "'colour'"):
        assert part in verdict.message


def test_a_violation_quotes_no_more_than_a_little_of_a_huge_value() -> None:
    verdict = denied(check(SPECS, "search", '{"text":["' + "x" * 200_000 + '"]}'))
    assert verdict.reason == "invalid"
    assert len(verdict.message) < 1_000


def test_arguments_over_the_limit_are_not_even_read() -> None:
    verdict = denied(check(SPECS, "search", '{"text":"' + "x" * gate.ARGUMENTS_MAX + '"}'))
    assert verdict.reason == "too_large"
    assert str(gate.ARGUMENTS_MAX) in verdict.message


def test_a_schema_that_refers_to_another_place_is_not_fetched_and_nothing_passes() -> None:
    spec = ToolSpec("odd", "", {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}})
    assert "the schema cannot be evaluated" in denied(check({"odd": spec}, "odd", '{"a":1}')).message


def test_lone_surrogates_are_replaced_before_they_reach_the_journal() -> None:
    verdict = check(SPECS, "search", '{"text":"\ud800"}')
    assert isinstance(verdict, Ok)
    assert verdict.args["text"].encode()


@given(st.text(max_size=60), st.text(max_size=200))
def test_whatever_the_model_writes_is_answered(name: str, arguments: str) -> None:
    for asked in (name, "search"):
        verdict = check(SPECS, asked, arguments, [Past(asked, arguments, True)] * 3)
        assert isinstance(verdict, Ok | Denied)


# The repeat guard.


def test_the_identical_call_is_denied_after_three_failures() -> None:
    failed = Past("search", '{"text": "a", "limit": 5}', failed=True)
    same = '{"limit":5,"text":"a"}'  # another spelling of the same arguments
    assert isinstance(check(SPECS, "search", same, [failed] * 2), Ok)
    verdict = denied(check(SPECS, "search", same, [failed] * 3))
    assert verdict.reason == "repeated"
    assert "3 times" in verdict.message


def test_other_arguments_another_tool_and_a_success_in_between_do_not_count() -> None:
    failed, good = Past("search", '{"text":"a"}', True), Past("search", '{"text":"a"}', False)
    others = [Past("search", '{"text":"b"}', True)] * 5 + [Past("find", '{"text":"a"}', True)] * 5
    assert isinstance(check(SPECS, "search", '{"text":"a"}', [failed, failed, *others]), Ok)
    assert isinstance(check(SPECS, "search", '{"text":"a"}', [failed, failed, good, failed]), Ok)
    assert isinstance(check(SPECS, "search", '{"text":"a"}', [good, failed, *others, failed, failed]), Denied)


def test_calls_that_keep_being_denied_are_repeated_too() -> None:
    broken = "{broken"
    history: list[Past] = []
    reasons: list[str] = []
    for _ in range(5):
        reasons.append(denied(check(SPECS, "search", broken, history)).reason)
        history.append(Past("search", broken, True))
    assert reasons == ["malformed"] * 3 + ["repeated"] * 2


def test_the_effect_is_that_of_the_very_call() -> None:
    class ByArguments:
        spec = ToolSpec("send", "", {"type": "object"}, effect="unsafe")

        def effect_of(self, args: Any) -> Any:
            if "broken" in args:
                raise RuntimeError("no idea")
            return "read" if args.get("dry") else "idempotent"

        async def call(self, args: dict[str, Any], context: ToolContext) -> str:
            return ""

        async def probe(self, args: dict[str, Any], context: ToolContext) -> Outcome:
            return Outcome("unknown")

    specs, tools = {"send": ByArguments.spec}, {"send": ByArguments()}
    assert check(specs, "send", '{"dry":true}', (), tools) == Ok({"dry": True}, "read")
    assert check(specs, "send", "{}", (), tools) == Ok({}, "idempotent")
    assert check(specs, "send", '{"broken":1}', (), tools) == Ok({"broken": 1}, "unsafe")
    assert check(specs, "send", "{}") == Ok({}, "unsafe")


# Running.


async def test_a_good_call_has_a_result() -> None:
    result = await gate.run(search, {"text": "a"}, CONTEXT)
    assert (result.output, result.error, result.truncated) == ("a 10 new None", "", False)


async def test_output_is_cut_to_the_limit_with_a_mark() -> None:
    @tool(output_max=200)
    def long() -> str:
        return "x" * 5_000

    result = await gate.run(long, {}, CONTEXT)
    assert result.truncated
    assert len(result.output) == 200
    assert result.output.endswith("[cut: 5000 characters, of which the first are shown]")
    assert not (await gate.run(search, {"text": "y" * 190}, CONTEXT)).truncated


async def test_output_that_utf_8_cannot_carry_is_repaired() -> None:
    @tool
    def odd() -> str:
        return "a\ud800b\x00c\ud83d\ude00"

    assert (await gate.run(odd, {}, CONTEXT)).output == "a\N{REPLACEMENT CHARACTER}b\x00c\N{GRINNING FACE}"


async def test_an_expected_failure_is_told_in_the_tools_own_words() -> None:
    @tool
    def fail() -> str:
        raise ToolError("no such customer: 'c9'")

    result = await gate.run(fail, {}, CONTEXT)
    assert (result.error, result.message, result.uncertain) == ("exception", "no such customer: 'c9'", False)


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this works")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        (SystemExit(3), "SystemExit: 3"),
        (StopIteration(1), "RuntimeError: the function raised StopIteration(1)"),
        (Broken(), "Broken: (its message cannot be shown)"),
        (RuntimeError("\ud800"), "RuntimeError: \N{REPLACEMENT CHARACTER}"),
    ],
)
async def test_any_exception_is_a_failed_call_with_class_and_message_and_no_traceback(raised: BaseException, message: str) -> None:
    @tool
    def fail() -> None:
        raise raised

    result = await gate.run(fail, {}, CONTEXT)
    assert (result.error, result.message, result.output) == ("exception", message, "")
    assert "File" not in result.message


async def test_exit_in_an_async_tool_ends_the_call_and_not_the_worker() -> None:
    @tool
    async def leave() -> None:
        sys.exit("bye")

    assert (await gate.run(leave, {}, CONTEXT)).message == "SystemExit: bye"


async def test_a_long_message_is_bounded() -> None:
    @tool
    def fail() -> None:
        raise ValueError("x" * 1_000_000)

    assert len((await gate.run(fail, {}, CONTEXT)).message) <= gate.MESSAGE_MAX


async def test_a_call_over_its_time_is_cancelled() -> None:
    cancelled = asyncio.Event()

    @tool(effect="read", timeout_s=0.05)
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    result = await asyncio.wait_for(gate.run(hang, {}, CONTEXT), BOUND_S)
    assert (result.error, result.uncertain) == ("timeout", False)
    assert result.message == "'hang' did not finish within 0.05 s and was given up"
    assert result.duration_ms >= 45
    assert cancelled.is_set()


@pytest.mark.parametrize(("effect", "uncertain"), [("read", False), ("idempotent", False), ("unsafe", True)])
async def test_an_unsafe_call_that_was_given_up_is_uncertain(effect: Any, uncertain: bool) -> None:
    @tool(effect=effect)
    async def hang() -> None:
        await asyncio.Event().wait()

    result = await asyncio.wait_for(gate.run(hang, {}, CONTEXT, QUICK), BOUND_S)
    assert (result.error, result.uncertain) == ("timeout", uncertain)
    assert ("may or may not have taken effect" in result.message) == uncertain


async def test_a_tool_may_say_that_it_does_not_know() -> None:
    @tool(effect="unsafe")
    async def pay() -> None:
        raise EffectUnknown("the bank hung up")

    result = await gate.run(pay, {}, CONTEXT)
    assert (result.error, result.uncertain) == ("exception", True)
    assert result.message == "the bank hung up (it may or may not have taken effect)"


async def test_a_tool_that_ignores_its_cancellation_cannot_hold_the_turn() -> None:
    let_go = asyncio.Event()

    @tool(effect="read")
    async def stubborn() -> str:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    result = await asyncio.wait_for(gate.run(stubborn, {}, CONTEXT, QUICK), BOUND_S)
    assert result.error == "timeout"
    let_go.set()


async def test_a_receipt_that_comes_within_the_grace_is_believed() -> None:
    @tool(effect="unsafe")
    async def careful() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"
        return ""

    result = await asyncio.wait_for(gate.run(careful, {}, CONTEXT, QUICK), BOUND_S)
    assert result == Result("done all the same", duration_ms=result.duration_ms)


async def test_a_synchronous_tool_is_given_up_in_time_although_its_thread_goes_on() -> None:
    let_go, ended = threading.Event(), threading.Event()

    @tool(effect="read")
    def hang() -> None:
        let_go.wait(BOUND_S)
        ended.set()

    started = time.monotonic()
    result = await gate.run(hang, {}, CONTEXT, QUICK)
    assert result.error == "timeout"
    assert time.monotonic() - started < BOUND_S / 2
    assert not ended.is_set()
    let_go.set()
    assert await asyncio.to_thread(ended.wait, BOUND_S)


async def test_a_cancelled_caller_cancels_the_tool_and_stays_cancelled() -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    @tool
    async def hang() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = asyncio.create_task(gate.run(hang, {}, CONTEXT))
    await asyncio.wait_for(started.wait(), BOUND_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, BOUND_S)
    assert cleaned.is_set()


async def test_a_tool_that_cancels_itself_has_failed_and_the_caller_goes_on() -> None:
    @tool(effect="read")
    async def fold() -> None:
        raise asyncio.CancelledError

    assert (await gate.run(fold, {}, CONTEXT)).error == "cancelled"


async def test_a_pinned_tool_whose_code_is_gone_fails_as_missing() -> None:
    result = await gate.run(None, {}, CONTEXT, spec=search.spec)
    assert (result.error, result.message) == ("missing", "'search' is not installed here any more; the call was not made")


async def test_the_pinned_limits_count_not_those_of_newer_code() -> None:
    pinned = ToolSpec("search", "", search.spec.parameters, output_max=100)
    assert len((await gate.run(search, {"text": "x" * 500}, CONTEXT, spec=pinned)).output) == 100


# Probing.


def _probed(found: Any) -> Any:
    def send() -> None: ...

    return tool(effect="reconcilable", probe=found)(send)


async def test_a_probe_says_what_became_of_a_call() -> None:
    def found(context: ToolContext) -> Outcome:
        return Outcome("done", f"sent under {context.key}")

    assert await gate.probe(_probed(found), {}, CONTEXT) == Outcome("done", "sent under tk_1")


async def test_a_probe_that_fails_hangs_or_is_gone_knows_nothing() -> None:
    async def fails() -> Outcome:
        raise OSError("no route")

    async def hangs() -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    assert await gate.probe(_probed(fails), {}, CONTEXT) == Outcome("unknown", "OSError: no route")
    hung = await asyncio.wait_for(gate.probe(_probed(hangs), {}, CONTEXT, QUICK), BOUND_S)
    assert hung == Outcome("unknown", "the probe of 'send' did not finish within 0.05 s")
    assert (await gate.probe(None, {}, CONTEXT)).state == "unknown"
