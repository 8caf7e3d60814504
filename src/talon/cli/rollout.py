"""`talon rollout`: an agent's revisions, what differs between them, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.errors import WrongUse
from talon.cli.kinds import kind_of
from talon.cli.objects import label
from talon.cli.output import as_yaml, emit, note, output_option
from talon.cli.unified import unified

if TYPE_CHECKING:
    from talon.cli.client import Client

#: What a revision says beside what it is: no difference in how turns run.
_ABOUT = ("revision", "digest", "cause", "template", "created_at")


@click.group("rollout", context_settings={"max_content_width": 110})
def command() -> None:
    """Revisions of an agent: every change of what its turns run by, numbered and kept.

    \b
    Examples:
      talon rollout history customer-support
      talon rollout diff customer-support 3 4
      talon rollout undo customer-support
    """


@command.command("history", short_help="List the revisions of an agent.")
@click.argument("agent")
@output_option
@connection_options
def history(at: At, agent: str, output: str) -> None:
    """List the revisions of an agent, newest first: what made each, and when. Also of one that was deleted.

    \b
    Example:
      talon rollout history customer-support
    """

    async def work() -> Any:
        async with at.client() as client:
            return await client.items(at.path("agents", agent, "revisions"))

    emit(run(work()), output, kind_of("revisions").table)


@command.command("diff", short_help="Show how two revisions differ.")
@click.argument("agent")
@click.argument("one", type=click.IntRange(min=1), metavar="A")
@click.argument("other", type=click.IntRange(min=1), metavar="[B]", required=False)
@connection_options
def diff(at: At, agent: str, one: int, other: int | None) -> None:
    """Show how revision A differs from B (without B: from the newest), as turns see it: after template and defaults.

    \b
    Example:
      talon rollout diff customer-support 3 4
    """

    async def work() -> tuple[Any, Any]:
        async with at.client() as client:
            newest = other or (await client.get(at.path("agents", agent)))["status"]["revision"]
            return await _revision(client, at, agent, one), await _revision(client, at, agent, newest)

    before, after = run(work())
    texts = [as_yaml({key: value for key, value in found.items() if key not in _ABOUT}) for found in (before, after)]
    names = [f"{agent} revision {found['revision']} ({found['cause']})" for found in (before, after)]
    print(unified(*texts, *names), end="")


async def _revision(client: Client, at: At, agent: str, number: int) -> Any:
    return await client.get(at.path("agents", agent, "revisions", str(number)))


@command.command("undo")
@click.argument("agent")
@click.option("--to-revision", type=click.IntRange(min=1), metavar="N", help="this one [the one before the newest]")
@connection_options
def undo(at: At, agent: str, to_revision: int | None) -> None:
    """Bring an agent back to what it was at an earlier revision. That makes a new revision: nothing is taken out of history, and
    turns that run go on with theirs.

    \b
    Examples:
      talon rollout undo customer-support
      talon rollout undo customer-support --to-revision 3
    """
    if "/" in agent:
        raise WrongUse(f"{agent!r}: expected the name of an agent")

    async def work() -> tuple[Any, Any]:
        async with at.client() as client:
            before = await client.get(at.path("agents", agent))
            body = {"revision": to_revision} if to_revision else {}
            return before, await client.call("POST", at.path("agents", agent, "rollback"), body=body)

    before, after = run(work())
    revision = after["status"]["revision"]
    if revision == before["status"]["revision"]:
        note(f"{label(after)} runs by that already")
    print(f"{label(after)} revision {revision}")
