"""For every annotation that a tool may have: what the annotation accepts, its schema accepts, and it arrives unchanged."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talon import ToolContext, tool
from talon.tools.gate import Ok, check
from talon.tools.python import to_text

CONTEXT = ToolContext(key="tk_1", namespace="acme", agent="support", session="s1", turn_id="t1", call=1)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Point:
    x: int
    label: str | None = None


@dataclasses.dataclass
class Shape:
    points: list[Point]
    mood: Mood = Mood.GOOD


class Struct(msgspec.Struct):
    name: str
    points: list[Point] = []


class Options(TypedDict):
    limit: int
    sort: Literal["up", "down"]


class Pair(NamedTuple):
    left: int
    right: str


ANNOTATIONS: list[Any] = [
    str,
    int,
    float,
    bool,
    None,
    int | None,
    list[int],
    list[list[str]],
    dict[str, float],
    Literal["a", "b", 3],
    Level,
    Mood,
    Point,
    Shape,
    Struct,
    list[Struct] | None,
    Options,
    Pair,
    tuple[int, str],
    tuple[int, ...],
    set[int],
    int | str | list[bool],
    datetime.date,
    datetime.datetime,
    uuid.UUID,
    decimal.Decimal,
    dict[str, Point | None],
]
_PLAIN: dict[Any, Any] = {
    Struct: st.builds(Struct, name=st.text(), points=st.lists(st.from_type(Point), max_size=3)),
    float: st.floats(allow_nan=False, allow_infinity=False),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=3),
    datetime.datetime: st.datetimes(timezones=st.just(datetime.UTC)),
}
for _type, _strategy in _PLAIN.items():
    st.register_type_strategy(_type, _strategy)


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_what_an_annotation_accepts_its_schema_accepts_and_the_function_gets_it_unchanged(annotation: Any) -> None:
    arrived: list[Any] = []

    async def take(value: Any) -> None:
        arrived.append(value)

    take.__annotations__["value"] = annotation
    made = tool(take)

    @settings(max_examples=40, deadline=None)
    @given(st.from_type(annotation if annotation is not None else type(None)))
    def holds(value: Any) -> None:
        arguments = f'{{"value":{to_text(value) if not isinstance(value, str) else msgspec.json.encode(value).decode()}}}'
        verdict = check({"take": made.spec}, "take", arguments)
        assert isinstance(verdict, Ok), verdict
        arrived.clear()
        loop.run(made.call(verdict.args, CONTEXT))
        assert arrived == [value]

    with asyncio.Runner() as loop:
        holds()


@pytest.mark.parametrize(
    ("annotation", "wrong"),
    [
        (str, "5"),
        (int, '"5"'),
        (int, "5.5"),
        (int, "true"),
        (bool, "1"),
        (Mood, '"fair"'),
        (Literal["a"], '"b"'),
        (list[int], '[1,"2"]'),
        (Point, '{"label":"a"}'),
        (Struct, '{"name":"a","points":[{"x":"1"}]}'),
        (Options, '{"limit":1,"sort":"sideways"}'),
        (int | None, '"x"'),
        (str, "null"),
    ],
    ids=str,
)
def test_what_an_annotation_does_not_accept_its_schema_refuses(annotation: Any, wrong: str) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__["value"] = annotation
    assert not isinstance(check({"take": tool(take).spec}, "take", f'{{"value":{wrong}}}'), Ok)
