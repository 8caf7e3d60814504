"""`talon auth …`: who you are for a server, keys and tokens, and who did what."""

from __future__ import annotations

import sys
from typing import Any

import click

from talon.access.roles import ROLES
from talon.cli import credentials
from talon.cli.connection import At, connection_options, run, server_option
from talon.cli.errors import WrongUse
from talon.cli.output import as_json, emit, note, output_option, table

Item = dict[str, Any]
WHOAMI, KEYS, TOKENS, LOG = (f"/v1/auth/{name}" for name in ("whoami", "keys", "tokens", "log"))


@click.group("auth", context_settings={"max_content_width": 110})
def command() -> None:
    """Log in, see who you are, make keys and tokens, see who did what.

    \b
    Examples:
      talon auth login < talon-data/admin.key
      talon auth key create ci --grant developer@acme --ttl 90d
      talon auth token --agent support --session s1 -n acme
      talon auth log --outcome '!ok'
    """


@command.command("login", short_help="Store a key or token for a server.")
@server_option
def login(at: At) -> None:
    """Store a key or token for a server, after asking the server whom it recognises.

    It is read from stdin, or at a prompt that shows nothing: never from the command line, which other users of the machine can
    read. All further commands send it to this server, and to no other. TALON_API_KEY, where it is set, goes before it.
    """
    from talon.cli.access_settings import is_loopback
    from talon.cli.client import Client

    if sys.stdin.isatty():
        text = str(click.prompt("key or token", hide_input=True, err=True))
    else:
        text = sys.stdin.read(credentials.SECRET_MAX + 2)
    secret = credentials.checked(text.strip(), "stdin")
    host = at.server.partition("://")[2].partition("/")[0].rpartition(":")[0]
    if at.server.startswith("http://") and not is_loopback(host or at.server.partition("://")[2]):
        note(f"warning: {at.server} is not encrypted: whoever is on the way can read the key; use https://")

    async def work() -> Item:
        async with Client(at.server, authorization=f"Bearer {secret}", tls=credentials.tls(at.server)) as client:
            return await client.get(WHOAMI)

    who = run(work())
    if not who["asked"]:
        note("this server asks nobody who he is (gateway.auth.mode is none): the key is stored, and not needed")
    file = credentials.store(at.server, secret)
    print(f"{at.server}: {who['id']} (stored in {file})")


@command.command("logout")
@server_option
def logout(at: At) -> None:
    """Forget what is stored for a server. A key that nobody is to use any more is ended by `talon auth key revoke`."""
    print(f"{at.server}: {'forgotten' if credentials.forget(at.server) else 'nothing was stored'}")


@command.command("whoami")
@output_option
@server_option
def whoami(at: At, output: str) -> None:
    """Show whom the server recognises, and what he may do where."""

    async def work() -> Item:
        async with at.client() as client:
            return await client.get(WHOAMI)

    emit(run(work()), output, _me)


def _me(who: Item) -> str:
    lines = [who["id"] + (f", until {who['expires_at']}" if who["expires_at"] else "")]
    if who["agent"]:
        lines.append(f"only {who['agent']}{'/' + who['session'] if who['session'] else ', all of its sessions'}")
    return "\n".join([*lines, *(f"  {grant}" for grant in who["grants"])])


@command.command("token", short_help="Make a short-lived token for a client.")
@click.option("--agent", required=True, metavar="AGENT", help="the agent that it is for")
@click.option("--session", default="", metavar="SESSION", help="the only session that it is for")
@click.option(
    "--role", type=click.Choice(["operator", "viewer"]), default="operator", show_default=True, help="viewer may only look"
)
@click.option("--ttl", default="1h", show_default=True, metavar="TIME", help="30m, 1h; a day at most")
@click.option("--name", default="", help="what it is for")
@output_option
@connection_options
def token(at: At, output: str, **asked: str) -> None:
    """Make a short-lived token for a client of an agent, or of one session of it. It is shown once, on stdout.

    It is never wider than you are, and ends with the key that you use now.
    """
    body = {"namespace": at.namespace, **asked, "ttl_s": seconds("--ttl", asked["ttl"])}
    del body["ttl"]
    _made(at, TOKENS, body, output)


@command.group("key")
def key() -> None:
    """API keys: create, list, revoke."""


@key.command("create")
@click.argument("name")
@click.option(
    "--grant",
    "grants",
    multiple=True,
    required=True,
    metavar="ROLE@NAMESPACE",
    help=f"what it may do, there and below; roles: {', '.join(ROLES)}; * is every namespace",
)
@click.option("--ttl", metavar="TIME", help="12h, 90d: when it expires (default: it does not)")
@output_option
@server_option
def create(at: At, name: str, grants: tuple[str, ...], ttl: str | None, output: str) -> None:
    """Make a key. It is shown once, on stdout; the server keeps only its hash.

    \b
      viewer     sees manifests, sessions and approvals
      operator   + creates sessions, sends and cancels, runs schedules, makes tokens for clients
      approver   viewer + decides approvals
      developer  operator + writes manifests and secrets
      admin      everything: keys, namespaces, the access log
    """
    from talon.access.grants import grant_of

    try:
        wanted = [grant_of(text) for text in grants]
    except ValueError as error:
        raise WrongUse(f"--grant {error}") from None
    body: Item = {"name": name, "grants": [{"role": one.role, "namespace": one.namespace} for one in wanted]}
    if ttl is not None:
        body["ttl_s"] = seconds("--ttl", ttl)
    _made(at, KEYS, body, output)


def _made(at: At, route: str, body: Item, output: str) -> None:
    async def work() -> Item:
        async with at.client() as client:
            return await client.call("POST", route, body=body)

    made = run(work())
    row = made["credential"]
    if output == "table":
        print(made["secret"])
        ends = f"until {row['expires_at']}" if row["expires_at"] else "does not expire"
        note(f"{row['kind']} {row['id']}, {ends}; not shown again")
    else:
        emit(made, output, str)


@key.command("list", short_help="List the keys that you may manage.")
@click.option("--kind", type=click.Choice(["key", "token", "browser"]), default="key", show_default=True, help="which")
@output_option
@server_option
def list_(at: At, kind: str, output: str) -> None:
    """List the keys that you may manage, newest first, without their secrets; clients' tokens and browsers' sessions too."""

    async def work() -> list[Item]:
        async with at.client() as client:
            return await client.items(KEYS, {"kind": kind})

    emit(run(work()), output, _keys)


def _keys(found: list[Item]) -> str:
    def state(row: Item) -> str:
        return f"revoked {row['revoked_at']}" if row["revoked_at"] else f"until {row['expires_at']}" if row["expires_at"] else "-"

    rows = [
        (
            row["id"],
            row["name"],
            ", ".join(row["grants"]),
            row["agent"],
            row["session"],
            state(row),
            row["used_at"],
            row["created_by"],
        )
        for row in found
    ]
    return table(("ID", "NAME", "GRANTS", "AGENT", "SESSION", "ENDS", "USED", "BY"), rows, empty="none")


@key.command("revoke", short_help="End keys, tokens or browsers' sessions.")
@click.argument("ids", nargs=-1, required=True)
@server_option
def revoke(at: At, ids: tuple[str, ...]) -> None:
    """End keys, tokens or browsers' sessions by their ids, with all that was made with them: everywhere within a second."""
    from talon.cli.client import path_of

    async def work() -> None:
        async with at.client() as client:
            for one in ids:
                await client.call("DELETE", path_of("auth", "keys", one))
                print(f"{one} revoked")

    run(work())


@command.command("log")
@click.option("--who", default="", metavar="PRINCIPAL", help="only of this one: key:ID, token:ID, user:ISSUER#SUBJECT, local")
@click.option("--verb", default="", help="only this verb, as sessions.write")
@click.option("--outcome", default="", help="only this outcome: ok, the code of an error, or !ok for all of them")
@click.option("-n", "--namespace", default="", help="only of this namespace")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="how many at most")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "yaml", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="form of the output; jsonl: an object a line",
)
@server_option
def log(at: At, limit: int, output: str, **which: str) -> None:
    """Show who did what to what, and how it went, the latest first. For admins; kept for 90 days."""

    async def work() -> list[Item]:
        async with at.client() as client:
            return await client.items(LOG, {name: value for name, value in which.items() if value}, limit=limit)

    found = run(work())
    if output == "jsonl":
        for entry in found:
            print(as_json(entry))
    else:
        emit(found, output, _entries)


def _entries(found: list[Item]) -> str:
    heads = ("at", "who", "operation", "namespace", "object", "outcome", "request_id")
    return table([head.upper() for head in heads], [[entry[head] for head in heads] for entry in found], empty="nothing")


def seconds(option: str, text: str) -> int:
    """A duration (`90d`, `1h30m`) in whole seconds. Raises `WrongUse`."""
    from pydantic import TypeAdapter, ValidationError

    from talon.manifest.fields import Duration, duration_ms

    try:
        TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise WrongUse(f"{option} {text}: expected whole numbers with d, h, m or s, largest first: 90d, 1h30m") from None
    return max(1, duration_ms(text) // 1000)
