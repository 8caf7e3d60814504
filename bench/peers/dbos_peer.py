"""Peer `dbos`: the loop as a workflow of DBOS, model calls and tools as its steps; what it streams is not durable."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from dbos import DBOS, SetWorkflowID
from front import Message, Model, Turn, arguments, run_tools, serve

OPTIONS = arguments()
DBOS(config={"name": "bench", "system_database_url": OPTIONS.database, "log_level": "WARNING", "run_admin_server": False})
MODEL = Model(OPTIONS.model_url)
#: The clients that wait, by workflow.
WAITING: dict[str, Turn] = {}


@DBOS.step()
async def ask(model: str, messages: list[Message]) -> Message:
    """One model call."""
    return await MODEL.ask(model, messages, WAITING[str(DBOS.workflow_id)].on_text)


@DBOS.step()
async def tools(answer: Message) -> list[Message]:
    """The tools that the model asked for."""
    return await run_tools(answer)


@DBOS.workflow()
async def turn_workflow(model: str, content: str) -> str:
    """message → model → tool → model → answer."""
    messages: list[Message] = [{"role": "user", "content": content}]
    while True:
        answer = await ask(model, messages)
        if "tool_calls" not in answer:
            return answer["content"]
        messages += [answer, *await tools(answer)]


async def run(turn: Turn) -> None:
    """Start the workflow and wait for its end."""
    workflow = str(uuid.uuid4())
    WAITING[workflow] = turn
    try:
        with SetWorkflowID(workflow):
            await turn_workflow(turn.model, turn.content)
    finally:
        del WAITING[workflow]


@asynccontextmanager
async def opened() -> AsyncGenerator[Callable[[Turn], Awaitable[None]]]:
    """DBOS launched."""
    DBOS.launch()
    yield run
    DBOS.destroy()
    await MODEL.close()


if __name__ == "__main__":
    serve(opened)
