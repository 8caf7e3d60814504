"""`talon session …`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import Any

import click

from talon.cli.connection import At, agent_and_session, connection_options, pairs, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.output import as_json, emit, note, output_option, table
from talon.cli.render import Answer, summary
from talon.cli.sse import Event
from talon.cli.text import one_line, styled

STRATEGIES = ("enqueue", "steer", "interrupt", "rollback", "reject")
agent_option = click.option("--agent", metavar="AGENT", help="the agent, instead of the first word")


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


def sessions_table(sessions: list[dict[str, Any]]) -> str:
    """Sessions, one a row."""
    rows = [(s["namespace"], s["agent"], s["id"], s["state"], s["last_seq"], s["queued"], s["updated_at"]) for s in sessions]
    return table(("NAMESPACE", "AGENT", "SESSION", "STATE", "SEQ", "QUEUED", "UPDATED"), rows, empty="no sessions")


@command.command("create")
@click.argument("words", nargs=-1, metavar="AGENT [SESSION]")
@agent_option
@click.option("--metadata", multiple=True, metavar="KEY=TEXT", help="metadata; KEY:=JSON for other values than text")
@click.option("--feature", multiple=True, metavar="KEY=TEXT", help="a feature's value; KEY:=JSON for other values than text")
@click.option("--profile", default="", help="model profile by name")
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
) -> None:
    """Create a session; without SESSION under a new id. One that exists is shown as it is.

    \b
    Examples:
      talon session create customer-support renewals --feature customer_id=acme-7
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


def _content(rest: tuple[str, ...]) -> str:
    """The message: the argument, or stdin for `-` and when something is piped in."""
    if rest and rest[0] != "-":
        return rest[0]
    if not rest and sys.stdin.isatty():
        raise WrongUse('expected AGENT SESSION "text", or - to read the text from standard input')
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise WrongUse(f"standard input is not UTF-8 (byte {error.start})") from None


def _print_json(event: Event) -> None:
    print(as_json(event.data), flush=True)


@command.command("send")
@click.argument("words", nargs=-1, metavar="AGENT SESSION TEXT|-")
@agent_option
@click.option("--wait", is_flag=True, help="stream the turn to its end; exit code 0 only if it was completed")
@click.option(
    "--timeout-s", type=click.FloatRange(min=0), metavar="S", help="with --wait: stop waiting after S seconds (the turn goes on)"
)
@click.option("--strategy", type=click.Choice(STRATEGIES), default="enqueue", show_default=True, help="what to do when it is busy")
@click.option("--key", default="", help="idempotency key: sending again under it sends nothing twice")
@click.option("--metadata", multiple=True, metavar="KEY=TEXT", help="metadata of the message; KEY:=JSON for other values")
@click.option("--create", "make", is_flag=True, help="create the session if it does not exist")
@output_option
@connection_options
def send(
    at: At, words: tuple[str, ...], agent: str | None, output: str, wait: bool, timeout_s: float | None, **options: Any
) -> None:
    """Send a message. With --wait the answer goes to stdout and the steps to stderr; with `-o json` every event is a line of JSON.

    \b
    Examples:
      talon session send customer-support renewals "Review renewals due in 14 days." --wait
      talon session send customer-support renewals "Only those above 5,000 EUR" --strategy steer
      cat notes.txt | talon session send customer-support renewals - --key notes-2026-11-20
    """
    from talon.cli.follow import follow, must_be_completed

    name, session, rest = agent_and_session(words, agent, "AGENT SESSION TEXT", rest=1)
    body: dict[str, Any] = {"content": _content(rest), "strategy": options["strategy"]}
    if options["metadata"]:
        body["metadata"] = pairs("--metadata", options["metadata"])
    params = {"create": "true"} if options["make"] else {}

    async def work() -> None:
        async with at.client() as client:
            receipt = await client.call(
                "POST", at.session_path(name, session, "message"), body=body, params=params, key=options["key"]
            )
            if not wait:
                emit(receipt, output, lambda r: f"turn {r['turn_id']} accepted at {r['seq']} ({r['strategy']})")
                return
            show = _print_json if output == "json" else Answer().show
            try:
                async with asyncio.timeout(timeout_s):
                    end = await follow(client, at.session_path(name, session, "stream"), receipt, show)
            except TimeoutError:
                raise Failed(f"turn {receipt['turn_id']} has not ended within {timeout_s:g} s; it goes on") from None
            must_be_completed(end)

    run(work())


@command.command("stream")
@click.argument("words", nargs=-1, metavar="AGENT SESSION")
@agent_option
@click.option("--after", metavar="CURSOR", help="start after this entry; 0 from the beginning [now]")
@output_option
@connection_options
def stream(at: At, words: tuple[str, ...], agent: str | None, after: str | None, output: str) -> None:
    """Follow a session's journal, until Ctrl-C. Survives a restart of the server; with `-o json` every event is a line of JSON.

    \b
    Examples:
      talon session stream customer-support renewals
      talon session stream customer-support renewals --after 0 -o json
    """
    name, session, _ = agent_and_session(words, agent, "AGENT SESSION")

    async def work() -> None:
        async with at.client() as client:
            # Starting at a position, not at "now": what comes while a connection is lost is not missed.
            start = after if after is not None else str((await client.get(at.session_path(name, session)))["last_seq"])
            async with aclosing(client.events(at.session_path(name, session, "stream"), {}, start)) as events:
                async for event in events:
                    if output == "json":
                        _print_json(event)
                    elif event.type not in ("text.delta", "reasoning.delta"):
                        head = styled(f"{event.seq:>6}  {one_line(str(event.data.get('at', '')))}", "dim")
                        print(f"{head}  {one_line(event.type):<22}  {summary(event.type, event.payload)}", flush=True)

    run(work())


@command.command("cancel")
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


@command.command("delete")
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
