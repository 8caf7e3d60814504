"""`talon secret …`: values go in and never come out again; who used one is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.errors import Failed, WrongUse
from talon.cli.kinds import kind_of
from talon.cli.output import emit, note, output_option, table
from talon.cli.text import counted
from talon.domain import errors as err

Item = dict[str, Any]


@click.group("secret", context_settings={"max_content_width": 110})
def command() -> None:
    """Store secrets, see who used them, change the key that they are encrypted with.

    \b
    Examples:
      talon secret set openai                        # asks, and shows nothing
      talon secret set openai -n acme < key.txt
      talon secret uses openai
    """


@command.command("set")
@click.argument("name")
@click.option("--from-file", metavar="FILE", help="take the value from this file (- is stdin)")
@connection_options
def set_(at: At, name: str, from_file: str | None) -> None:
    """Give a secret its value; one that does not exist is made.

    The value comes from a file, from stdin, or from a prompt that shows nothing: never from the command line, which other users of
    the machine can read. One newline at its end is not part of it. Who uses the secret has the new value with the next call.

    \b
    Examples:
      talon secret set openai
      pass show openai | talon secret set openai
      talon secret set ca --from-file ca.pem
    """
    value = _value(name, from_file)

    async def work() -> bool:
        async with at.client() as client:
            patch = ("application/merge-patch+json", _json({"spec": {"value": value}}))
            try:
                await client.call("PATCH", at.path("secrets", name), text=patch)
            except err.NotFound as error:
                if error.code != "secret_not_found":
                    raise
                manifest = {
                    "apiVersion": "talon.dev/v1alpha1",
                    "kind": "Secret",
                    "metadata": {"name": name},
                    "spec": {"value": value},
                }
                await client.call("PUT", at.path("secrets", name), body=manifest)
                return True
            return False

    print(f"Secret {at.namespace}/{name} {'created' if run(work()) else 'set'}")


def _json(data: Any) -> bytes:
    import json

    return json.dumps(data).encode()


def _value(name: str, from_file: str | None) -> str:
    """The value from where it is; no message shows anything of it."""
    from talon.manifest.environment import SECRET_MAX_BYTES

    if from_file is None and sys.stdin.isatty():
        value = str(click.prompt(f"value of {name}", hide_input=True, confirmation_prompt="once more", err=True))
        data = value.encode()
    else:
        try:
            if from_file in (None, "-"):
                data = sys.stdin.buffer.read(SECRET_MAX_BYTES + 3)
            else:
                with Path(str(from_file)).open("rb") as file:
                    data = file.read(SECRET_MAX_BYTES + 3)
        except OSError as error:
            raise WrongUse(f"--from-file {from_file}: {error.strerror}") from None
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise WrongUse(f"the value of {name} is empty: give it on stdin, with --from-file FILE, or at the prompt")
    if len(data) > SECRET_MAX_BYTES:
        raise WrongUse(f"the value of {name} is longer than {SECRET_MAX_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise WrongUse(f"the value of {name} is not UTF-8 text: encode it first, for example as base64") from None


@command.command("list", short_help="List the secrets of a namespace.")
@output_option
@connection_options
def list_(at: At, output: str) -> None:
    """List the secrets of a namespace: their names, never their values."""
    kind = kind_of("secrets")

    async def work() -> list[Item]:
        async with at.client() as client:
            return await client.items(kind.path(at))

    emit(run(work()), output, kind.table)


@command.command("uses")
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="how many at most")
@output_option
@connection_options
def uses(at: At, name: str, limit: int, output: str) -> None:
    """Show who used a secret's value, the latest first.

    A process is noted when it first uses a value, when the value has changed, and then once a minute; uses are kept for 90 days.
    """

    async def work() -> list[Item]:
        async with at.client() as client:
            return await client.items(at.path("secrets", name, "uses"), limit=limit)

    emit(run(work()), output, _uses_table)


def _uses_table(found: list[Item]) -> str:
    rows = [(use["at"], use["used_by"], use["purpose"]) for use in found]
    return table(("AT", "BY", "FOR"), rows, empty="it was not used")


@command.command("rotate-key")
@output_option
@connection_options
def rotate_key(at: At, output: str) -> None:
    """Encrypt all secrets under a new key, without downtime.

    On SQLite Talon makes the new key and puts it first into its key file. Where the keys are given to it (TALON_SECRETS_KEY, or a
    key file on PostgreSQL), put the new one first there, for all processes; this command then moves every value to it. It may
    be run again at any time, and goes on where one that was cut off stopped.
    """
    from talon.cli.client import path_of

    async def work() -> Item:
        async with at.client() as client:
            return await client.call("POST", path_of("secrets", "rotate-key"))

    done = run(work())
    emit(done, output, _rotation)
    if not done["generated"] and not done["rewrapped"]:
        note("no value had another key: to rotate, put a new key first where the server's keys are, and run this again")
    if done["unreadable"]:
        names = ", ".join(done["unreadable"])
        raise Failed(f"no key of the server opens these, set them again or bring their key back: {names}")


def _rotation(done: Item) -> str:
    made = "a new key" if done["generated"] else "the newest key"
    dropped = f"; dropped {', '.join(done['dropped'])}" if done["dropped"] else ""
    return f"{counted(done['rewrapped'], 'value')} moved to {made}, {done['key_id']}{dropped}"


@command.command("delete")
@click.argument("name")
@click.option("--cascade", is_flag=True, help="also everything that uses it")
@click.option("-y", "--yes", is_flag=True, help="ask nothing")
@connection_options
@click.pass_context
def delete(ctx: click.Context, at: At, name: str, cascade: bool, yes: bool) -> None:
    """Delete a secret with its value. Refused while others refer to it, except with --cascade."""
    from talon.cli import delete as deleting

    ctx.invoke(deleting.command, words=("secret", name), cascade=cascade, yes=yes, server=at.server, namespace=at.namespace)
