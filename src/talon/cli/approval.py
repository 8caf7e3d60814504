"""`talon approval …`: what a turn waits for, and the decision."""

from __future__ import annotations

from typing import Any

import click

from talon.cli.connection import At, connection_options, run
from talon.cli.errors import WrongUse
from talon.cli.output import emit, note, output_option
from talon.cli.tables import approvals_table


@click.group("approval", context_settings={"max_content_width": 110})
def command() -> None:
    """Decide what a turn waits for.

    \b
    Examples:
      talon approval list
      talon approval resolve 0199… --outcome done --result "refund R-17 was made"
    """


@command.command("list")
@click.option("--state", type=click.Choice(["open", "resolved", "cancelled", "all"]), default="open", show_default=True)
@output_option
@connection_options
def list_(at: At, state: str, output: str) -> None:
    """List approvals, newest first."""

    async def work() -> Any:
        async with at.client() as client:
            return await client.items(at.path("approvals"), {} if state == "all" else {"state": state})

    emit(run(work()), output, approvals_table)


@command.command("resolve")
@click.argument("approval", metavar="ID")
@click.option("--outcome", type=click.Choice(["retry", "done", "failed"]), required=True, help="what became of the call")
@click.option("--result", help="what the agent is told: the call's output for done, the reason for failed")
@click.option("--note", "remark", default="", help="a remark for the journal")
@connection_options
def resolve(at: At, approval: str, outcome: str, result: str | None, remark: str) -> None:
    """Say what became of a call that nobody knows the end of.

    \b
      retry    it did not happen: make it again
      done     it happened: go on with --result as its output
      failed   it did not happen and shall not: the agent is told --result

    \b
    Example:
      talon approval resolve 0199… --outcome done --result '{"refund": "R-17"}'
    """
    if outcome == "retry" and result:
        raise WrongUse("--result does not go with --outcome retry: the call gives its own")
    if outcome == "done" and result is None:
        raise WrongUse("--outcome done needs --result: what the call answered, as the agent is to see it")
    body = {"outcome": outcome, **({} if result is None else {"result": result}), **({"note": remark} if remark else {})}

    async def work() -> None:
        async with at.client() as client:
            await client.call("POST", at.path("approvals", approval), body=body)

    run(work())
    note(f"approval {approval}: {outcome}")
