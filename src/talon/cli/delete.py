"""`talon delete`: one, or all that files name; waits until what is being deleted is gone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from talon.cli.client import Client, path_of
from talon.cli.connection import At, connection_options, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.kinds import BY_NAME, Kind, resource_of
from talon.cli.output import note
from talon.domain import errors as err

LOOK_S = (0.05, 1.0)  # how often is looked whether it is gone: ever less often


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to delete."""

    at: At
    kind: Kind
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        """Its route."""
        return self.kind.path(self.at, self.names)

    @property
    def label(self) -> str:
        """`Agent acme/customer-support`."""
        place = "" if self.kind.manifest == "Namespace" else f"{self.at.namespace}/"
        return f"{self.kind.manifest} {place}{'/'.join(self.names)}"


@click.command("delete", context_settings={"max_content_width": 110})
@click.argument("words", nargs=-1, metavar="[KIND NAME… | KIND/NAME…]")
@click.option("-f", "--file", "files", multiple=True, metavar="DIR|FILE|-", help="what these manifests name; may be given again")
@click.option("--cascade", is_flag=True, help="also everything that uses it")
@click.option("--wait/--no-wait", "waiting", default=True, show_default=True, help="until it is gone, when it takes time")
@click.option("--timeout-s", type=click.FloatRange(min=0), metavar="S", help="how long to wait at most [for ever]; it goes on")
@click.option("--ignore-not-found", is_flag=True, help="what does not exist is as good as deleted")
@click.option("-y", "--yes", is_flag=True, help="ask nothing")
@connection_options
def command(
    at: At,
    words: tuple[str, ...],
    files: tuple[str, ...],
    cascade: bool,
    waiting: bool,
    timeout_s: float | None,
    ignore_not_found: bool,
    yes: bool,
) -> None:
    """Delete resources.

    What others use is not deleted, and its users are shown; --cascade deletes them too, on a terminal after asking. An agent with
    sessions and a namespace with anything in it are Terminating until their sessions have ended; this command waits for that, and
    the server goes on with it whether anybody waits or not.

    \b
    Examples:
      talon delete session customer-support/renewals
      talon delete template customer-support --cascade --yes
      talon delete namespace acme --cascade --no-wait
      talon delete -f agents/ --ignore-not-found
      talon get agents -l app=test -o name | xargs talon delete
    """
    targets = _targets(at, words, files)
    errors: list[Exception] = []
    for target in targets:
        try:
            _delete(target, cascade, waiting, timeout_s, ask=not yes and sys.stdin.isatty())
        except err.NotFound as error:
            if not ignore_not_found:
                errors.append(error)
        except (err.Refused, Failed) as error:
            errors.append(error)
    for error in errors[:-1]:
        note(f"error: {error.detail if isinstance(error, err.TalonError) else error}")
    if errors:
        raise errors[-1]


def _targets(at: At, words: Sequence[str], files: Sequence[str]) -> list[Target]:
    """Everything that the command line names, users before what they use."""
    if bool(words) == bool(files):
        raise WrongUse("expected talon delete KIND NAME, or talon delete -f FILE")
    if files:
        return _of_files(at, files)
    if "/" in words[0]:  # as `talon get -o name` writes them
        named = [resource_of(word, None, "deleted") for word in words]
    else:
        named = [resource_of(words[0], name, "deleted") for name in words[1:] or (None,)]
    return [Target(at, found, tuple(names)) for found, names in named]


def _of_files(at: At, files: Sequence[str]) -> list[Target]:
    from talon.cli.documents import collect, placed, placed_in
    from talon.manifest.kinds import KINDS
    from talon.manifest.read import read

    sources = collect(files)
    data = [placed_in(at.namespace, source.document.data) for source in sources]
    reading = read(
        [replace(source.document, index=i, data=one) for i, (source, one) in enumerate(zip(sources, data, strict=True), 1)]
    )
    if reading.errors:
        raise WrongUse(*(placed(sources, {"field": one.field, "message": one.message}) for one in reading.errors))
    manifests = sorted(reading.manifests, key=lambda manifest: KINDS.index(manifest.kind), reverse=True)
    return [
        Target(replace(at, namespace=namespace or at.namespace), BY_NAME[kind.lower()], tuple(name.split("/")))
        for namespace, kind, name in (manifest.identity for manifest in manifests)
    ]


def _delete(target: Target, cascade: bool, waiting: bool, timeout_s: float | None, *, ask: bool) -> None:
    """Delete one; without leave to cascade it is tried without first, so that a person sees the users before they go."""
    try:
        there = run(_call(target, cascade and not ask))
    except err.Conflict as error:
        if error.code != "in_use" or target.kind.manifest == "Session":
            raise
        if not (cascade and ask):
            raise err.Conflict(error.code, error.detail.replace("cascade=true", "--cascade"), error.errors) from None
        for user in error.errors:
            note(f"  {user.field}: {user.message}")
        click.confirm(f"delete {target.label} and everything that uses it?", abort=True, err=True)
        there = run(_call(target, True))
    if not waiting:
        there_now = run(_now(target, there))
        print(f"{target.label} {'is being deleted' if there_now else 'deleted'}")
        return
    try:
        run(_gone(target, there, timeout_s))
    except TimeoutError:
        raise Failed(f"{target.label} is not gone within {timeout_s:g} s; it goes on being deleted") from None
    print(f"{target.label} deleted")


async def _call(target: Target, cascade: bool) -> Any:
    async with target.at.client() as client:
        return await client.delete(target.path, {"cascade": "true"} if cascade and target.kind.is_resource else None)


async def _now(target: Target, there: Any) -> Any:
    """What is there under its name, if it is still the same one."""
    async with target.at.client() as client:
        return await _same(client, target, there)


async def _same(client: Client, target: Target, there: Any) -> Any:
    try:
        found = await client.get(target.path)
    except err.NotFound:
        return None
    return found if _uid(found) == _uid(there) else None


def _uid(item: Any) -> Any:
    return item["metadata"]["uid"] if "kind" in item else item["uid"]  # a session's own `metadata` is its people's


async def _gone(target: Target, there: Any, timeout_s: float | None) -> None:
    """Return when it is no longer there. Says what is still to go. Raises `TimeoutError`."""
    told = ""
    pause = LOOK_S[0]
    async with asyncio.timeout(timeout_s), target.at.client() as client:
        while await _same(client, target, there) is not None:
            words = await _left(client, target)
            if words != told:
                note(f"{target.label} is being deleted: {words}")
                told = words
            await asyncio.sleep(pause)
            pause = min(pause * 2, LOOK_S[1])


async def _left(client: Client, target: Target) -> str:
    """What must go before it."""
    try:
        if target.kind.manifest == "Namespace":
            nodes = (await client.get(path_of("ns", target.names[0], "graph")))["nodes"]
            count = sum(node["namespace"] == target.names[0] for node in nodes)
            return f"{count} resources are left"
        sessions = await client.items(target.at.path("agents", *target.names, "sessions"))
        return f"{len(sessions)} sessions are left"
    except err.TooLarge:
        return "thousands of resources are left"
    except err.NotFound:
        return "nothing is left"
