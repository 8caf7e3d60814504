"""What the programs beside the tests (soak, fuzz, bench) do alike."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def tell(result: Mapping[str, Any], out: Path | None) -> None:
    """The result as JSON, on stdout and in the file, if one is named."""
    text = json.dumps(result, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")


def in_order(work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to. SIGTERM ends it as Ctrl-C does: in order, so that no process and no mount stays behind; then the
    program exits with 130."""

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancellable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("given up; nothing that was started is left", file=sys.stderr)
        raise SystemExit(130) from None
