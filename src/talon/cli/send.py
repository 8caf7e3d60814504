"""`talon session send` and `talon session stream`: say something, and follow what comes of it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import Any

import click

from talon.cli.client import Client
from talon.cli.connection import At, agent_and_session, agent_option, connection_options, pairs, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.images import content_of
from talon.cli.output import as_json, emit, output_option
from talon.cli.render import Answer, summary
from talon.cli.sse import Event
from talon.cli.text import one_line, styled
from talon.cli.wishes import config_of, config_options
from talon.domain.session import STRATEGIES


def _content(rest: tuple[str, ...], images: tuple[str, ...]) -> str:
    """The message's text: the argument, or stdin for `-` and when something is piped in; with images there may be none."""
    if rest and rest[0] != "-":
        return rest[0]
    if not rest and images:
        return ""
    if not rest and sys.stdin.isatty():
        raise WrongUse('expected AGENT SESSION "text", or - to read the text from standard input')
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise WrongUse(f"standard input is not UTF-8 (byte {error.start})") from None


def _print_json(event: Event) -> None:
    print(as_json(event.data), flush=True)


@click.command("send")
@click.argument("words", nargs=-1, metavar="AGENT SESSION TEXT|-")
@agent_option
@click.option("--wait", is_flag=True, help="stream the turn to its end; exit code 0 only if it was completed")
@click.option(
    "--timeout-s", type=click.FloatRange(min=0), metavar="S", help="with --wait: stop waiting after S seconds (the turn goes on)"
)
@click.option("--strategy", type=click.Choice(STRATEGIES), default="enqueue", show_default=True, help="what to do when it is busy")
@click.option("--key", default="", help="idempotency key: sending again under it sends nothing twice")
@click.option("--metadata", multiple=True, metavar="KEY=TEXT", help="metadata of the message; KEY:=JSON for other values")
@click.option("--image", multiple=True, metavar="FILE", help="an image that goes with the text: PNG, JPEG, WebP or GIF")
@click.option("--create", "make", is_flag=True, help="create the session if it does not exist")
@config_options
@output_option
@connection_options
def send(
    at: At, words: tuple[str, ...], agent: str | None, output: str, wait: bool, timeout_s: float | None, **options: Any
) -> None:
    """Send a message. With --wait the answer goes to stdout and the steps to stderr; with `-o json` every event is a line of JSON.

    --model, --thinking-level and --verbose-level are the session's from this message on, until others are given.

    \b
    Examples:
      talon session send customer-support renewals "Review renewals due in 14 days." --wait
      talon session send customer-support renewals "Only those above 5,000 EUR" --strategy steer
      cat notes.txt | talon session send customer-support renewals - --key notes-2026-11-20
      talon session send customer-support renewals "Which of these is due?" --image page1.png --image page2.png --wait
    """
    from talon.cli.follow import follow, must_be_completed

    name, session, rest = agent_and_session(words, agent, "AGENT SESSION TEXT", rest=1)
    images: tuple[str, ...] = options["image"]
    body: dict[str, Any] = {"content": content_of(_content(rest, images), images), "strategy": options["strategy"]}
    if options["metadata"]:
        body["metadata"] = pairs("--metadata", options["metadata"])
    params = {"create": "true"} if options["make"] else {}
    config = config_of(options)

    async def work() -> None:
        async with at.client() as client:
            if config:
                await _configure(client, at, name, session, config, make=options["make"])
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


async def _configure(client: Client, at: At, agent: str, session: str, config: dict[str, Any], *, make: bool) -> None:
    """Give the session these wishes, and leave its others as they are."""
    if make:  # one that exists is left as it is
        await client.call("POST", at.path("agents", agent, "sessions"), body={"id": session, "config": config})
    row = await client.get(at.session_path(agent, session))
    kept = {field: value for field, value in row["config"].items() if value not in ("", None)}
    if kept != kept | config:
        await client.call("PATCH", at.session_path(agent, session), body={"config": kept | config})


@click.command("stream")
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
