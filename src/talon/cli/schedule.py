"""`talon schedule`: what is due next, what became of what was, and firing, pausing and resuming by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.describe import describe
from talon.cli.get import listing
from talon.cli.kinds import Item, kind_of
from talon.cli.objects import label
from talon.cli.output import emit, note, output_option, table

_HEADS = ("SCHEDULED", "OUTCOME", "LAG", "SESSION", "TURN", "REASON")


@click.group("schedule", context_settings={"max_content_width": 110})
def command() -> None:
    """Schedules as they run. They are made, changed and deleted as all resources: apply, edit, patch, delete.

    \b
    Examples:
      talon schedule list
      talon schedule next renewal-check --count 10
      talon schedule trigger renewal-check
      talon schedule pause renewal-check
    """


@command.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="of all namespaces")
@output_option
@connection_options
def listed(at: At, all_namespaces: bool, output: str) -> None:
    """List schedules with their next times. `talon get schedules` can do more: --selector,
    --watch.

    \b
    Examples:
      talon schedule list -n acme
      talon schedule list -A
    """
    kind = kind_of("schedules")

    async def work() -> list[Any]:
        async with at.client() as client:
            return await listing(client, at, kind, (), {}, all_namespaces=all_namespaces, limit=None)

    emit(run(work()), output, kind.table)


@command.command("describe")
@click.argument("name")
@connection_options
def described(at: At, name: str) -> None:
    """Show its manifest, next times and history. Also whether it can fire, and if not, why.

    \b
    Example:
      talon schedule describe renewal-check
    """
    describe(at, "schedule", name)


@command.command("next")
@click.argument("name")
@click.option("--count", type=click.IntRange(1, 100), default=5, show_default=True, help="how many")
@output_option
@connection_options
def following(at: At, name: str, count: int, output: str) -> None:
    """Show when it fires next, in its own zone and in UTC. Nothing while it is paused, or when it is over.

    \b
    Example:
      talon schedule next renewal-check --count 10
    """

    async def work() -> tuple[list[Any], Item | None]:
        async with at.client() as client:
            times = (await client.get(at.path("schedules", name, "next"), {"count": str(count)}))["items"]
            return times, None if times else await client.get(at.path("schedules", name))

    times, silent = run(work())
    emit(times, output, times_table)
    if silent is not None and output == "table":
        note(_why_not(name, silent))


@command.command("history")
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="how many, the newest")
@output_option
@connection_options
def history(at: At, name: str, limit: int, output: str) -> None:
    """Show what became of its occurrences. The newest come first, each with the turn that it woke and how that ended, or why it
    woke none.

    \b
    Example:
      talon schedule history renewal-check
    """

    async def work() -> list[Any]:
        async with at.client() as client:
            return await client.items(at.path("schedules", name, "history"), limit=limit)

    emit(run(work()), output, occurrences_table)


@command.command("trigger")
@click.argument("name")
@click.option("--key", default="", metavar="KEY", help="idempotency key: the same key fires once")
@output_option
@connection_options
def trigger(at: At, name: str, key: str, output: str) -> None:
    """Fire it now, also while it is paused. Its next occurrence stays as it is.

    \b
    Example:
      talon schedule trigger renewal-check
    """

    async def work() -> Any:
        async with at.client() as client:
            return await client.call("POST", at.path("schedules", name, "trigger"), body={}, key=key)

    emit(run(work()), output, _fired)


@command.command("pause")
@click.argument("name")
@connection_options
def pause(at: At, name: str) -> None:
    """Stop firing it, until it is resumed. What passes meanwhile is not made up for.

    \b
    Example:
      talon schedule pause renewal-check
    """
    _enable(at, name, "pause")


@command.command("resume")
@click.argument("name")
@connection_options
def resume(at: At, name: str) -> None:
    """Fire it again, from its next time on.

    \b
    Example:
      talon schedule resume renewal-check
    """
    _enable(at, name, "resume")


def _enable(at: At, name: str, verb: str) -> None:
    async def work() -> Any:
        async with at.client() as client:
            return await client.call("POST", at.path("schedules", name, verb), body={})

    print(f"{label(run(work()))} {verb}d")


def times_table(items: Sequence[dict[str, Any]]) -> str:
    """Times, one a row."""
    return table(("LOCAL", "UTC"), [(one["local"], utc(one)) for one in items])


def utc(time: dict[str, Any]) -> str:
    """A time for people: whole seconds without their milliseconds."""
    return time["at"].replace(".000Z", "Z")


def _why_not(name: str, schedule: Item) -> str:
    """Why there is no next time."""
    if schedule["spec"].get("enabled") is False:
        return f"it is paused; `talon schedule resume {name}` goes on with it"
    return "it has fired for the last time; give it later times, or delete it"


def occurrences_table(items: Sequence[dict[str, Any]]) -> str:
    """Occurrences, one a row."""
    return table(_HEADS, [_row(one) for one in items], empty="nothing in its history")


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    when = one["local"] + (" (by hand)" if one["manual"] else f" and {one['count'] - 1} more" if one["count"] > 1 else "")
    woke = f"{one['agent']}/{one['session_id']}" if one["session_id"] else ""
    lag = f"{one['lag_ms'] / 1000:.1f}s" if one["turn_id"] else ""
    return when, one["outcome"], lag, woke, one["turn_id"], one["reason"]


def _fired(answer: dict[str, Any]) -> str:
    where = f"{answer['agent']}/{answer['session_id']}"
    return f"fired: turn {answer['turn_id']} of {where}" if answer["turn_id"] else f"skipped: {where} is at work"
