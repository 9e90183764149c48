"""Threads that are kept for the next piece of work: starting one costs more than a small call."""

from __future__ import annotations

import contextvars
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadCache:
    """As many threads as there was ever work at a time. Shared by all threads.

    None of them is waited for at the end of the process: one that hangs holds nobody up.

    Args:
        name: What they are called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._handed: SimpleQueue[Callable[[], object]] = SimpleQueue()
        #: One for each thread that waits, or is just about to.
        self._idle = threading.Semaphore(0)

    def run(self, work: Callable[[], object]) -> None:
        """Have it done at once, in a thread of its own; what it raises ends that thread.

        Raises:
            RuntimeError: The system has no more threads.
        """
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._keep_working, name=self._name, daemon=True).start()
        self._handed.put(work)

    def _keep_working(self) -> None:
        while True:
            work = self._handed.get()
            contextvars.Context().run(work)  # nothing is bound that an earlier work has left behind
            del work  # and what it holds on to
            self._idle.release()
