"""Peer `bare`: the loop and nothing durable. What the front, the model client and the loop cost by themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import loop
from front import Message, Model, Turn, arguments, serve

OPTIONS = arguments()


async def forget(kind: str, message: Message) -> None:
    """Nothing is kept."""


@asynccontextmanager
async def opened() -> AsyncGenerator[Callable[[Turn], Awaitable[None]]]:
    """The model client."""
    model = Model(OPTIONS.model_url)
    yield lambda turn: loop.run(turn, model, forget)
    await model.close()


if __name__ == "__main__":
    serve(opened)
