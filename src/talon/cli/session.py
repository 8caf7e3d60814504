"""`talon session …`."""

from __future__ import annotations

from typing import Any

import click

from talon.cli.connection import At, agent_and_session, agent_option, connection_options, pairs, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.output import as_json, emit, note, output_option, table
from talon.cli.render import summary
from talon.cli.send import send, stream
from talon.cli.tables import sessions_table
from talon.cli.wishes import config_of, config_options


@click.group("session", context_settings={"max_content_width": 110})
def command() -> None:
    """Sessions: durable threads around an agent.

    \b
    Examples:
      talon session create customer-support renewals
      talon session send customer-support renewals "Review renewals due in 14 days." --wait
      talon session journal customer-support renewals
    """


def _details(session: dict[str, Any]) -> str:
    rows = [(key, as_json(value) if isinstance(value, (dict, list)) else value) for key, value in session.items()]
    return table(("FIELD", "VALUE"), rows)


@command.command("create")
@click.argument("words", nargs=-1, metavar="AGENT [SESSION]")
@agent_option
@click.option("--metadata", multiple=True, metavar="KEY=TEXT", help="metadata; KEY:=JSON for other values than text")
@click.option("--feature", multiple=True, metavar="KEY=TEXT", help="a feature's value; KEY:=JSON for other values than text")
@click.option("--profile", default="", help="model profile by name")
@config_options
@output_option
@connection_options
def create(
    at: At,
    words: tuple[str, ...],
    agent: str | None,
    metadata: tuple[str, ...],
    feature: tuple[str, ...],
    profile: str,
    output: str,
    **wishes: Any,
) -> None:
    """Create a session; without SESSION under a new id. One that exists is shown as it is.

    \b
    Examples:
      talon session create customer-support renewals --feature customer_id=acme-7
      talon session create customer-support --model openai/gpt-5-mini --thinking-level low
      talon session create customer-support -o json
    """
    names = words if agent is None else (agent, *words)
    if len(names) not in (1, 2):
        raise WrongUse("expected AGENT [SESSION]")
    body: dict[str, Any] = {"id": names[1]} if len(names) == 2 else {}
    if metadata:
        body["metadata"] = pairs("--metadata", metadata)
    if feature:
        body["features"] = pairs("--feature", feature)
    if profile:
        body["profile"] = profile
    if config := config_of(wishes):
        body["config"] = config

    async def work() -> Any:
        async with at.client() as client:
            return await client.call("POST", at.path("agents", names[0], "sessions"), body=body)

    emit(run(work()), output, _details)


@command.command("list")
@click.argument("agent")
@output_option
@connection_options
def list_(at: At, agent: str, output: str) -> None:
    """List the sessions of an agent, newest first."""

    async def work() -> Any:
        async with at.client() as client:
            return await client.items(at.path("agents", agent, "sessions"))

    emit(run(work()), output, sessions_table)


@command.command("show")
@click.argument("words", nargs=-1, metavar="AGENT SESSION")
@agent_option
@output_option
@connection_options
def show(at: At, words: tuple[str, ...], agent: str | None, output: str) -> None:
    """Show one session."""
    name, session, _ = agent_and_session(words, agent, "AGENT SESSION")

    async def work() -> Any:
        async with at.client() as client:
            return await client.get(at.session_path(name, session))

    emit(run(work()), output, _details)


@command.command("cancel", short_help="Cancel a turn, the running one or by its id.")
@click.argument("words", nargs=-1, metavar="AGENT SESSION")
@agent_option
@click.option("--turn", metavar="ID", help="this turn [the one that runs or waits]")
@connection_options
def cancel(at: At, words: tuple[str, ...], agent: str | None, turn: str | None) -> None:
    """Cancel a turn: the one that runs or waits, or a queued one by its id."""
    name, session, _ = agent_and_session(words, agent, "AGENT SESSION")

    async def work() -> str:
        async with at.client() as client:
            target = turn or (await client.get(at.session_path(name, session)))["turn_id"]
            if not target:
                raise Failed(f"no turn of session {session!r} runs or waits")
            await client.call("POST", at.session_path(name, session, "turns", target, "cancel"))
            return str(target)

    note(f"turn {run(work())} is being cancelled")


@command.command("journal")
@click.argument("words", nargs=-1, metavar="AGENT SESSION")
@agent_option
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="only entries after this one")
@output_option
@connection_options
def journal(at: At, words: tuple[str, ...], agent: str | None, after: int, output: str) -> None:
    """Show a session's journal: everything that happened, in order.

    \b
    Examples:
      talon session journal customer-support renewals
      talon session journal customer-support renewals --after 120 -o json
    """
    name, session, _ = agent_and_session(words, agent, "AGENT SESSION")

    async def work() -> Any:
        async with at.client() as client:
            return await client.items(at.session_path(name, session, "journal"), {"cursor": str(after)} if after else {})

    emit(run(work()), output, journal_table)


def journal_table(entries: list[dict[str, Any]]) -> str:
    """Entries, one a row; turns numbered by their order here, as their ids are long."""
    turns: dict[str, int] = {}
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        turn = turns.setdefault(entry["turn_id"], len(turns) + 1) if entry.get("turn_id") else None
        rows.append((entry["seq"], entry["at"], turn, entry["type"], summary(entry["type"], entry["payload"], 80)))
    return table(("SEQ", "AT", "TURN", "TYPE", "WHAT"), rows, empty="the journal is empty")


@command.command("delete", short_help="Delete a session.")
@click.argument("words", nargs=-1, metavar="AGENT SESSION")
@agent_option
@connection_options
def delete(at: At, words: tuple[str, ...], agent: str | None) -> None:
    """Delete a session: its turns are cancelled, its journal is kept as evidence."""
    name, session, _ = agent_and_session(words, agent, "AGENT SESSION")

    async def work() -> None:
        async with at.client() as client:
            await client.delete(at.session_path(name, session))

    run(work())
    note(f"session {session} deleted")


command.add_command(send)
command.add_command(stream)
