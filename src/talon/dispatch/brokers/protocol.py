"""What a broker is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from talon.domain.bell import Bell

#: Called on the event loop, for each bell; does not wait and does not raise.
Listener = Callable[[Bell], None]


class Broker(Protocol):
    """Carries bells to listeners, at most a moment late as a rule, and with no promise: bells may be lost, repeated, merged,
    reordered. Belongs to one event loop."""

    async def start(self) -> None:
        """Begin to carry bells. Does not raise because others cannot be reached: it goes on trying."""
        ...

    async def close(self) -> None:
        """Stop; no listener is called afterwards."""
        ...

    def ring(self, bell: Bell) -> None:
        """Tell the listeners, those of other processes too where the broker reaches them. Does not wait and does not raise."""
        ...

    def listen(self, listener: Listener) -> None:
        """Call `listener` for every bell from now on. One that raises is logged, and the others are called all the same."""
        ...
