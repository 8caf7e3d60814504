"""Peer `langgraph`: the same loop as a graph, with its PostgreSQL or SQLite checkpointer and `durability="sync"`.

Messages are plain dictionaries, which is the cheapest state that it takes; the session is the thread.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from front import Message, Model, Turn, arguments, run_tools, serve
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

OPTIONS = arguments()


class State(TypedDict):
    """The graph's state: a growing list of messages."""

    messages: Annotated[list[Message], operator.add]


def build(model: Model, saver: Any) -> Any:
    """The compiled graph."""

    async def ask(state: State, config: RunnableConfig) -> State:
        write = get_stream_writer()

        async def on_text(piece: str) -> None:
            write(piece)

        return {"messages": [await model.ask(config["configurable"]["model"], state["messages"], on_text)]}

    async def tools(state: State) -> State:
        return {"messages": await run_tools(state["messages"][-1])}

    graph = StateGraph(State)
    graph.add_node("model", ask)
    graph.add_node("tools", tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "tools" if "tool_calls" in state["messages"][-1] else END)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


@asynccontextmanager
async def checkpointer() -> AsyncGenerator[Any]:
    """Its own checkpointer, set up as its documentation says."""
    if OPTIONS.database.startswith("postgresql://"):
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(OPTIONS.database, max_size=20, kwargs=settings, open=False) as pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            yield saver
    else:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(OPTIONS.database) as saver:
            yield saver


@asynccontextmanager
async def opened() -> AsyncGenerator[Callable[[Turn], Awaitable[None]]]:
    """The graph."""
    model = Model(OPTIONS.model_url)
    async with checkpointer() as saver:
        graph = build(model, saver)

        async def run(turn: Turn) -> None:
            config = {"configurable": {"thread_id": turn.session, "model": turn.model}}
            message = {"messages": [{"role": "user", "content": turn.content}]}
            async for piece in graph.astream(message, config, stream_mode="custom", durability="sync"):
                await turn.on_text(piece)

        yield run
    await model.close()


if __name__ == "__main__":
    serve(opened)
