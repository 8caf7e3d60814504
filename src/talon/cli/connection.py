"""What every command that talks to a server has: where it is, which namespace, and one event loop that ends cleanly."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from talon.cli import credentials
from talon.cli.errors import WrongUse
from talon.cli.output import note

if TYPE_CHECKING:
    from talon.cli.client import Client

DEFAULT_SERVER = "http://127.0.0.1:19789"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

agent_option = click.option("--agent", metavar="AGENT", help="the agent, instead of the first word")


@dataclass(frozen=True, slots=True)
class At:
    """Where a command works."""

    server: str
    namespace: str

    def client(self) -> Client:
        """A client for the server that shows what is stored for it; says on stderr when it waits for a lost one."""
        from talon.cli.client import Client

        shown = credentials.authorization(self.server)
        return Client(self.server, authorization=shown, tls=credentials.tls(self.server), on_wait=note)

    def path(self, *segments: str) -> str:
        """A route below the namespace."""
        from talon.cli.client import path_of

        return path_of("ns", self.namespace, *segments)

    def session_path(self, agent: str, session: str, *more: str) -> str:
        """A route below one session."""
        return self.path("agents", agent, "sessions", session, *more)


def connection_options(function: F) -> F:
    """`--server`, `--namespace`: handed to the command as `at`."""

    @functools.wraps(function)
    def wrapped(*args: Any, server: str, namespace: str, **kwargs: Any) -> Any:
        return function(*args, at=At(server, namespace), **kwargs)

    wrapped = click.option(
        "-n", "--namespace", envvar="TALON_NAMESPACE", default="default", show_default=True, help="namespace [TALON_NAMESPACE]"
    )(wrapped)
    return _server(wrapped)


def server_option(function: F) -> F:
    """`--server` alone: handed to the command as `at`, with no namespace."""

    @functools.wraps(function)
    def wrapped(*args: Any, server: str, **kwargs: Any) -> Any:
        return function(*args, at=At(server, ""), **kwargs)

    return _server(wrapped)


def _server(function: Any) -> Any:
    return click.option(
        "--server", envvar="TALON_SERVER", default=DEFAULT_SERVER, show_default=True, metavar="URL", help="address [TALON_SERVER]"
    )(function)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on an event loop of its own. Ctrl-C cancels it, lets it close its connections, and ends as KeyboardInterrupt."""
    import asyncio  # takes as long as click: commands that ask no server do without

    return asyncio.run(work)


def agent_and_session(words: tuple[str, ...], agent: str | None, usage: str, rest: int = 0) -> tuple[str, str, tuple[str, ...]]:
    """`AGENT SESSION rest…`, or `SESSION rest…` with `--agent`; -> (agent, session, rest). At most `rest` further words."""
    names = words if agent is None else (agent, *words)
    if not 2 <= len(names) <= 2 + rest:
        raise WrongUse(f"expected {usage} (or --agent AGENT and the rest)")
    return names[0], names[1], names[2:]


def pairs(option: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """`key=text` and `key:=json` of a repeated option as an object."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.rstrip(":"):
            raise WrongUse(f"{option} {text}: expected KEY=TEXT, or KEY:=JSON for a number, true, false or a list")
        if not key.endswith(":"):
            found[key] = value
            continue
        try:
            found[key[:-1]] = json.loads(value)
        except ValueError as error:
            raise WrongUse(f"{option} {text}: {value!r} is no JSON: {error}") from None
    return found
