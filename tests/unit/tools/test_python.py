"""`@tool` on Python functions: schema, conversion, results, and what is refused at import."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import enum
import functools
import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field

from talon import Outcome, ToolContext, ToolError, tool
from talon.tools.check import check_schema
from talon.tools.docstring import describe
from talon.tools.python import PythonTool
from talon.tools.threads import Threads

CONTEXT = ToolContext(key="tk_1", namespace="acme", agent="support", session="s1", turn_id="t1", call=1)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Line:
    sku: str
    quantity: int = 1


class Address(BaseModel):
    """A postal address."""

    city: str
    zip_code: Annotated[str, Field(pattern=r"^\d{5}$")]


class Money(msgspec.Struct):
    cents: int
    currency: Literal["EUR", "USD"] = "EUR"


class Filter(TypedDict, total=False):
    owner: str


@tool
def order(
    customer: Annotated[str, "The customer's id"],
    lines: list[Line],
    ship_to: Address,
    budget: Money,
    colour: Colour = Colour.RED,
    note: str | None = None,
    tags: dict[str, int] | None = None,
    filters: Filter | None = None,
) -> str:
    """Place an order.
    It is binding.

    More about orders that the model need not know.

    Args:
        lines: What is ordered,
            line by line.
        customer: not shown, the annotation wins.
        colour (Colour): Which one.

    Returns:
        note: this is not an argument's description.
    """
    assert isinstance(lines[0], Line)
    assert isinstance(ship_to, Address)
    assert isinstance(budget, Money)
    return f"{customer} {lines[0].quantity}×{lines[0].sku} {ship_to.city} {budget.cents} {colour.name} {note} {tags} {filters}"


async def test_the_schema_says_types_descriptions_defaults_and_what_is_required() -> None:
    parameters = order.spec.parameters
    assert check_schema(order.spec) == ""
    assert order.spec.description == "Place an order. It is binding."
    assert parameters["required"] == ["customer", "lines", "ship_to", "budget"]
    assert parameters["additionalProperties"] is False
    properties = parameters["properties"]
    assert properties["customer"] == {"type": "string", "description": "The customer's id"}
    assert properties["lines"]["description"] == "What is ordered, line by line."
    assert properties["colour"]["default"] == "red"
    assert properties["colour"]["description"] == "Which one."
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert parameters["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert parameters["$defs"]["Address"]["properties"]["zip_code"] == {"type": "string", "pattern": r"^\d{5}$"}
    assert parameters["$defs"]["msgspec.Money"]["required"] == ["cents"]


async def test_arguments_arrive_as_the_types_that_the_function_asks_for() -> None:
    args: dict[str, Any] = {
        "customer": "c1",
        "lines": [{"sku": "x"}],
        "ship_to": {"city": "Kiel", "zip_code": "24103"},
        "budget": {"cents": 5},
        "colour": "blue",
        "tags": {"a": 1},
        "filters": {"owner": "me"},
    }
    assert await order.call(args, CONTEXT) == "c1 1×x Kiel 5 BLUE None {'a': 1} {'owner': 'me'}"


async def test_what_only_the_type_can_check_is_an_error_that_names_every_wrong_argument() -> None:
    @tool
    def book(day: datetime.date, until: datetime.date, room: str) -> str:
        return room

    with pytest.raises(ToolError) as caught:
        await book.call({"day": "tomorrow", "until": "2026-02-31", "room": "blue"}, CONTEXT)
    assert "day: " in str(caught.value)
    assert "until: " in str(caught.value)
    assert "room" not in str(caught.value)
    assert await book.call({"day": "2026-02-01", "until": "2026-02-02", "room": "blue"}, CONTEXT) == "blue"


async def test_the_context_is_given_and_is_not_in_the_schema() -> None:
    @tool(effect="idempotent", key_ttl_s=60)
    async def pay(cents: int, context: ToolContext) -> str:
        return f"{cents} under {context.key}"

    assert list(pay.spec.parameters["properties"]) == ["cents"]
    assert (pay.spec.effect, pay.spec.key_ttl_s) == ("idempotent", 60)
    assert await pay.call({"cents": 5}, CONTEXT) == "5 under tk_1"


def test_who_declares_nothing_is_unsafe() -> None:
    @tool
    def erase() -> None: ...

    assert erase.spec.effect == "unsafe"
    assert erase.effect_of({}) == "unsafe"


def test_a_decorated_function_can_still_be_called_and_keeps_its_name() -> None:
    @tool(effect="read")
    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    assert double(4) == 8
    assert (getattr(double, "__name__", ""), double.__doc__) == ("double", "Twice n.")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("plain", "plain"),
        (None, "null"),
        ({"a": [1, 2.5, True]}, '{"a":[1,2.5,true]}'),
        (Line("x", 2), '{"sku":"x","quantity":2}'),
        (Money(5), '{"cents":5,"currency":"EUR"}'),
        ([Address(city="Kiel", zip_code="24103")], '[{"city":"Kiel","zip_code":"24103"}]'),
        (Colour.BLUE, '"blue"'),
        (datetime.date(2026, 11, 20), '"2026-11-20"'),
        ("ü\n", "ü\n"),
        ({"name": "Zoë"}, '{"name":"Zoë"}'),
    ],
)
async def test_results_become_text(result: object, text: str) -> None:
    @tool
    def answer() -> object:
        return result

    assert await answer.call({}, CONTEXT) == text


async def test_a_result_without_a_json_form_says_that_the_call_was_made() -> None:
    @tool
    def answer() -> object:
        return threading.Lock()

    with pytest.raises(TypeError, match="the call was made, but its result cannot be written as JSON"):
        await answer.call({}, CONTEXT)


async def test_a_synchronous_function_runs_in_a_thread_with_the_callers_context() -> None:
    where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")

    @tool
    def look() -> list[str]:
        return [threading.current_thread().name, where.get()]

    where.set("here")
    thread, seen = msgspec.json.decode(await look.call({}, CONTEXT), type=list[str])
    assert thread.startswith("talon-tool-")
    assert seen == "here"


async def test_an_asynchronous_function_behind_a_plain_wrapper_is_awaited() -> None:
    async def fetch(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @functools.wraps(fetch)
    def logged(n: int) -> Any:
        return fetch(n)

    assert await tool(logged).call({"n": 3}, CONTEXT) == "3"


async def test_a_probe_gets_the_context_and_the_arguments_that_it_names() -> None:
    def found(context: ToolContext, invoice: int) -> Outcome:
        return Outcome("done", f"{invoice} was sent under {context.key}")

    @tool(effect="reconcilable", probe=found)
    def send(invoice: int, text: str) -> str:
        return f"{invoice} {text}"

    assert await send.probe({"invoice": 7, "text": "hi"}, CONTEXT) == Outcome("done", "7 was sent under tk_1")


async def test_a_tool_without_a_probe_knows_nothing() -> None:
    assert (await order.probe({}, CONTEXT)).state == "unknown"


async def test_a_probe_that_returns_something_else_is_a_mistake_that_is_named() -> None:
    def found() -> Any:
        return True

    @tool(effect="reconcilable", probe=found)
    def send() -> None: ...

    with pytest.raises(TypeError, match="the probe of 'send' returned bool; it must return an Outcome"):
        await send.probe({}, CONTEXT)


def _probe(other: int) -> Outcome:
    return Outcome("unknown")


def _typed(n: int) -> int:
    return n


def _bare(n):  # pyright: ignore
    return n  # pyright: ignore


def _many(*n: int) -> int:
    return len(n)


def _positional(n: int, /) -> int:
    return n


def _function_argument(n: Callable[[], int]) -> int:
    return n()


def _unknown_name(n: Nowhere) -> int:  # type: ignore # noqa: F821
    return 1


def _generator(n: int) -> Any:
    yield n


def _two_contexts(a: ToolContext, b: ToolContext) -> str:
    return a.key + b.key


def _odd_default(n: int = object()) -> int:  # pyright: ignore
    return n


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (_bare, {}, "tool '_bare': parameter 'n' has no annotation; say its type, as in `n: str`"),
    (_many, {}, "tool '_many': parameter *n: 'int' cannot be given by name"),
    (_positional, {}, "cannot be given by name"),
    (_function_argument, {}, "parameter 'n': type .* cannot be given as JSON"),
    (_unknown_name, {}, "an annotation cannot be resolved: name 'Nowhere' is not defined"),
    (_generator, {}, "a generator cannot be a tool"),
    (_two_contexts, {}, "both 'a' and 'b' are a ToolContext"),
    (_odd_default, {}, "the default of 'n' cannot be written as JSON"),
    (_typed, {"effect": "harmless"}, "effect 'harmless' is none of read, idempotent, reconcilable, unsafe"),
    (_typed, {"effect": "reconcilable"}, "a reconcilable tool needs `probe=`"),
    (_typed, {"effect": "read", "probe": _probe}, "only a reconcilable tool has a probe"),
    (_typed, {"effect": "reconcilable", "probe": _probe}, "wants 'other', which is no parameter of the tool"),
    (_typed, {"key_ttl_s": 5.0}, "only an idempotent tool honours keys"),
    (_typed, {"timeout_s": 0}, "timeout_s is 0; it must be above 0"),
    (_typed, {"name": "not a name"}, "a tool's name has 1 to 64 characters"),
]


@pytest.mark.parametrize(("function", "options", "message"), REFUSED)
def test_what_cannot_be_a_tool_is_refused_at_import(function: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message.replace("*n", r"\*n")):
        tool(**options)(function) if options else tool(function)


def test_the_code_digest_tells_versions_of_the_source_apart() -> None:
    def make(version: int) -> PythonTool[[], int]:
        if version == 1:

            @tool
            def answer() -> int:
                return 1
        else:

            @tool
            def answer() -> int:
                return 2

        return answer

    assert make(1).spec.code == make(1).spec.code != make(2).spec.code
    assert len(make(1).spec.code) == 64


def test_code_without_a_source_has_a_digest_too() -> None:
    space: dict[str, Any] = {}
    exec("def f(n: int) -> int:\n    return n", space)
    assert len(tool(space["f"]).spec.code) == 64


DOCSTRINGS: list[tuple[str | None, tuple[str, dict[str, str]]]] = [
    (None, ("", {})),
    ("One line.", ("One line.", {})),
    ("Args:\n    a: first", ("", {"a": "first"})),
    (
        "Do.\n\nArguments:\n  a (int): one: two\n  b: three\n\n  c: four\nNot: here",
        ("Do.", {"a": "one: two", "b": "three", "c": "four"}),
    ),
    ("Do.\n\nArgs:\n    a: first\n        sub: still a\n", ("Do.", {"a": "first sub: still a"})),
]


@pytest.mark.parametrize(("docstring", "expected"), DOCSTRINGS)
def test_docstrings_are_read_in_googles_style(docstring: str | None, expected: tuple[str, dict[str, str]]) -> None:
    assert describe(docstring) == expected


async def test_threads_are_bounded_and_a_call_that_is_given_up_while_it_waits_never_starts() -> None:
    threads, hold, ran = Threads(threads_max=2), threading.Event(), list[int]()

    def work(n: int) -> int:
        hold.wait(20)
        ran.append(n)
        return n

    running = [asyncio.create_task(threads.run(functools.partial(work, n))) for n in range(2)]
    waiting = [asyncio.create_task(threads.run(functools.partial(work, n))) for n in (2, 3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    hold.set()
    assert await asyncio.wait_for(asyncio.gather(*running, waiting[1]), 20) == [0, 1, 3]
    assert sorted(ran) == [0, 1, 3]
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("talon-tool-")]
    assert len(set(names)) <= 32


@pytest.mark.parametrize("raised", [StopIteration(5), SystemExit(3), ValueError("no")])
async def test_whatever_a_thread_raises_comes_back(raised: BaseException) -> None:
    def work() -> None:
        raise raised

    with pytest.raises((RuntimeError, SystemExit, ValueError)):
        async with asyncio.timeout(20):
            await Threads(1).run(work)
