"""Lines of text to a file or to stderr, beside the event loop: a slow disk or a full pipe makes nobody wait."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import BinaryIO

#: Lines that wait to be written; beyond, new ones are lost, and said to be.
WAITING_MAX = 50_000
log = logging.getLogger(__name__)


class Lines:
    """Writes what it is given, line by line, in a thread of its own. `opened` opens the file anew for each group, so that a file
    that was moved away (logrotate) is followed."""

    def __init__(self, opened: Callable[[], BinaryIO]) -> None:
        self._opened = opened
        self._waiting: queue.Queue[bytes | None] = queue.Queue(WAITING_MAX)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="access lines", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Soon. Never waits and never raises."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits, and stop. Waits for it, up to 5 s."""
        try:
            self._waiting.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(5.0)

    def _run(self) -> None:
        over = False
        while not over:
            group = [self._waiting.get()]
            while not self._waiting.empty() and len(group) < 1000:
                group.append(self._waiting.get())
            over = None in group
            lines = [line for line in group if line is not None]
            try:
                if lines:
                    with self._opened() as out:
                        out.write(b"\n".join(lines) + b"\n")
            except OSError as error:
                log.warning("access lines: %d are lost: %s", len(lines), error.strerror)
            if self._lost:
                log.warning("access lines: %d are lost, they came faster than they could be written", self._lost)
                self._lost = 0
