"""Small states that all workers share: a provider's circuits and quotas. What they mean, and each step, is `talon.domain`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

T = TypeVar("T")
#: (state, the store's time in ms) -> (the new state, what the caller is answered). Pure: it may be made again after a lost commit.
Step = Callable[[bytes, int], tuple[bytes, T]]


class SharedStates(Protocol):
    """States by name. One that was never written is `b""`."""

    async def change_shared(self, name: str, step: Step[T]) -> T:
        """Make one step of the state `name`, alone: of several at once each sees what the one before it left. A step that leaves
        the state as it is writes nothing. A step whose answer was lost in the middle of its commit may be made twice."""
        ...

    async def read_shared(self, prefix: str) -> tuple[Mapping[str, bytes], int]:
        """-> (the states that are not empty and whose names begin with `prefix`, the store's time in ms)."""
        ...
