"""`talon chat`: talk to an agent, line by line.

Reading a line happens outside the event loop and a turn inside it, in turns, so that Ctrl-C always has one meaning:
at the prompt it leaves (the second time), while a turn runs it cancels the turn, and a second one leaves.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib import import_module
from typing import Any, Literal

import click

from talon.cli.connection import At, connection_options
from talon.cli.errors import Failed, WrongUse
from talon.cli.images import content_of
from talon.cli.output import note
from talon.cli.render import Answer, summary
from talon.cli.sse import Event

#: How long leaving waits for a cancel request to be answered.
CANCEL_S = 2.0


@click.command("chat")
@click.argument("agent")
@click.option("--session", metavar="ID", help="go on with this session, or begin it [a new one]")
@click.option("--image", "images", multiple=True, metavar="FILE", help="an image that goes with the first message")
@connection_options
def command(at: At, agent: str, session: str | None, images: tuple[str, ...]) -> None:
    """Talk to an agent.

    On a terminal: Ctrl-C cancels the running turn, twice leaves, Ctrl-D leaves; a line `/image FILE` puts an image to the next
    message. With piped input every line is a message, and only answers go to stdout.

    \b
    Examples:
      talon chat assistant
      talon chat assistant --session monday
      echo "What time is it?" | talon chat assistant
      talon chat assistant --image plan.png
    """
    content_of("", images)  # says what is wrong with a file before anything is begun
    with asyncio.Runner() as runner:
        chat = _Chat(at, agent, runner, images)
        try:
            runner.run(chat.open(session))
            failed = chat.talk()
        finally:
            runner.run(chat.close())
    if failed:
        raise Failed(f"{failed} of the turns did not complete")


class _Chat:
    def __init__(self, at: At, agent: str, runner: asyncio.Runner, images: tuple[str, ...]) -> None:
        self._at = at
        self._images = list(images)  # of the next message
        self._agent = agent
        self._runner = runner
        self._client = at.client()
        self._session = ""
        self._terminal = sys.stdin.isatty() and sys.stdout.isatty()

    async def open(self, session: str | None) -> None:
        """Find or begin the session."""
        await self._client.__aenter__()
        body: dict[str, Any] = {"id": session} if session else {}
        row = await self._client.call("POST", self._at.path("agents", self._agent, "sessions"), body=body)
        self._session = row["id"]
        note(f"session {self._session}; come back with: talon chat {self._agent} --session {self._session}")

    async def close(self) -> None:
        await self._client.__aexit__(None, None, None)

    def talk(self) -> int:
        """Until the input ends; -> how many turns did not complete (a turn that the user cancelled does not count)."""
        if self._terminal:
            import_module("readline")  # gives input() line editing and a history
        failed = 0
        while (line := self._read()) is not None:
            if not line.strip() or self._is_image(line):
                continue
            outcome = self._runner.run(self._turn(line))
            if outcome == "left":
                raise KeyboardInterrupt
            failed += outcome == "failed"
        return failed

    def _is_image(self, line: str) -> bool:
        """Whether a line of the terminal names an image for the next message, which it then keeps."""
        command, _, file = line.strip().partition(" ")
        if not self._terminal or command != "/image":
            return False
        try:
            content_of("", [file.strip()])
        except WrongUse as error:
            note(str(error))
        else:
            self._images.append(file.strip())
            note(f"{len(self._images)} of the next message's images")
        return True

    def _read(self) -> str | None:
        if not self._terminal:
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        try:
            return input("> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            note("\n(Ctrl-C again or Ctrl-D leaves)")
            try:
                return input("> ")
            except EOFError:
                return None

    async def _turn(self, text: str) -> Literal["done", "failed", "left"]:
        """Send one message and show its turn. `done`: it completed, or the user cancelled it. `left`: the user did not wait."""
        from talon.cli.follow import follow

        path = self._at.session_path(self._agent, self._session, "message")
        receipt = await self._client.call("POST", path, body={"content": content_of(text, self._images)})
        self._images.clear()
        stream = self._at.session_path(self._agent, self._session, "stream")
        watching = asyncio.ensure_future(follow(self._client, stream, receipt, Answer().show))
        cancels: list[asyncio.Future[Any]] = []

        def interrupted() -> None:
            if cancels:
                watching.cancel()
                return
            note("\ncancelling the turn … (Ctrl-C again leaves)")
            turn = self._at.session_path(self._agent, self._session, "turns", str(receipt["turn_id"]), "cancel")
            cancels.append(asyncio.ensure_future(self._client.call("POST", turn)))

        loop = asyncio.get_running_loop()
        if self._terminal:
            loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            await asyncio.wait([watching])
        finally:
            if self._terminal:
                loop.remove_signal_handler(signal.SIGINT)
            watching.cancel()
            await _settle(cancels)
        return "left" if watching.cancelled() else self._outcome(watching.result(), bool(cancels))

    def _outcome(self, end: Event, cancelled: bool) -> Literal["done", "failed"]:
        if end.type == "turn.completed" or (cancelled and end.type == "turn.cancelled"):
            return "done"
        note(f"{end.type}: {summary(end.type, end.payload)}")
        return "failed"


async def _settle(cancels: list[asyncio.Future[Any]]) -> None:
    """Give a cancel request that is on its way a moment; say what became of one that failed."""
    if not cancels:
        return
    done, late = await asyncio.wait(cancels, timeout=CANCEL_S)
    for request in late:
        request.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for request in done:
        if error := request.exception():
            note(f"cancelling: {error}")
