"""The `talon` command: finds the command's module when it is asked for, and turns every error into words and an exit code.

    0 done · 1 failed, or the server is not there · 2 wrong use · 3 refused by the server · 130 interrupted

`talon --help` imports no command: the table below has the words.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from talon.cli.errors import Failed, WrongUse
from talon.domain.errors import TalonError

#: command -> (module, its attribute, what it does). The order is that of the help page.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("init", "command", "Write a first agent, its tool and talon.yaml."),
    "up": ("up", "up", "Run Talon here: gateway and worker in one process."),
    "apply": ("apply", "command", "Create or change what manifests describe."),
    "diff": ("diff", "command", "Show what an apply would change."),
    "get": ("get", "command", "List and watch resources of any kind, sessions, revisions, turns, approvals."),
    "describe": ("describe", "command", "Show all about one: conditions, what it uses, who uses it."),
    "edit": ("edit", "command", "Change a resource in an editor."),
    "patch": ("patch", "command", "Change fields of a resource or session."),
    "label": ("patch", "label", "Set or take away labels."),
    "delete": ("delete", "command", "Delete resources and, if wanted, what uses them."),
    "rollout": ("rollout", "command", "An agent's revisions: list, compare, go back."),
    "graph": ("graph", "command", "Show what refers to what in a namespace."),
    "explain": ("explain", "command", "Explain a kind and its fields."),
    "schema": ("schema", "command", "Write JSON Schemas of manifests, for editors."),
    "export": ("export", "command", "Write a namespace as manifests that apply again."),
    "secret": ("secret", "command", "Store secrets, see who used them, change the key of all."),
    "auth": ("auth", "command", "Log in, make keys and tokens, see who did what."),
    "schedule": ("schedule", "command", "Schedules: next times, history, trigger, pause, resume."),
    "model": ("model", "command", "Models: which there are, whether one answers, which one a turn gets and why."),
    "session": ("session", "command", "Create sessions, send messages, follow and cancel turns."),
    "chat": ("chat", "command", "Talk to an agent in the terminal."),
    "approval": ("approval", "command", "Decide what a turn waits for."),
    "gateway": ("up", "gateway", "Run a gateway: HTTP and streams, no turns (PostgreSQL)."),
    "worker": ("up", "worker", "Run a worker: turns, no API (PostgreSQL)."),
    "scheduler": ("up", "scheduler", "Run a scheduler: schedules, no turns, no API (PostgreSQL)."),
    "db": ("db", "command", "Migrate the database, or show its state."),
    "version": ("version", "command", "Show the version."),
}

EPILOG = """\b
Begin:
  talon init hello && cd hello    write an agent, its tools and talon.yaml
  talon up                        start Talon here
  talon chat assistant            talk to the agent, from another terminal

\b
Each command explains itself: talon session send --help
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(import_module(f"talon.cli.{module}"), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest command named when there is none."""
        if args and args[0] not in COMMANDS:
            from talon.cli.text import nearest

            ctx.fail(f"no such command {args[0]!r}{nearest(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, _, words) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def app() -> None:
    """The runtime for AI agents that have to keep working."""


#: What helps with an answer that does not know who reads it.
HINTS = {
    "agent_not_found": "see: talon get agents -A; talon apply -f FILE makes what its manifests describe",
    "namespace_not_found": "see: talon get namespaces; an apply makes those that its manifests name",
    "session_not_found": "see: talon session list AGENT; talon session create makes one, as does --create of talon session send",
    "unauthenticated": "log in with `talon auth login`, or set TALON_API_KEY",
}


def run(args: list[str] | None = None) -> int:
    """Run one command; -> its exit code. Errors are words on stderr; a traceback only with TALON_DEBUG=1."""
    debug = os.environ.get("TALON_DEBUG") == "1"
    try:
        result = app.main(args=args, prog_name="talon", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else error.format_message(), file=sys.stderr)
        return 2
    except click.MissingParameter as error:
        where = error.ctx.command_path if error.ctx else "talon"
        return _say(2, error.format_message(), *_may_be(error), hint=f"see: {where} --help")
    except click.UsageError as error:
        where = f"{error.ctx.command_path} --help" if error.ctx else "talon --help"
        return _say(2, error.format_message(), hint=f"see: {where}")
    except click.ClickException as error:
        return _say(2, error.format_message())
    except WrongUse as error:
        return _say(2, *error.lines)
    except (KeyboardInterrupt, click.Abort):
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`talon … | head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Failed as error:
        return _say(1, str(error))
    except TalonError as error:
        if debug:
            raise
        fields = [f"{f.field + ': ' if f.field else ''}{f.message}" for f in error.errors]
        more = [f"  {one}" for one in fields if one not in error.detail]
        return _say(error.exit_code, f"{error.detail} [{error.code}]", *more, hint=HINTS.get(error.code, ""))
    except Exception as error:
        if debug:
            raise
        return _say(1, f"a mistake in Talon: {type(error).__name__}: {error}", hint="TALON_DEBUG=1 shows where")


def _may_be(missing: click.MissingParameter) -> list[str]:
    """What could stand where nothing stands."""
    if missing.param is None or missing.param.name != "kind":
        return []
    from talon.cli.kinds import KNOWN

    return [f"KIND is one of: {KNOWN}"]


def _say(code: int, first: str, *more: str, hint: str = "") -> int:
    print(f"error: {first}", *more, *([hint] if hint else []), sep="\n", file=sys.stderr)
    return code


def main() -> NoReturn:
    """Entry point of the `talon` script."""
    sys.exit(run())
