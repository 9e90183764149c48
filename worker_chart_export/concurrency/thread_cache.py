"""A cache of threads, because starting a thread costs more than a small call."""

from __future__ import annotations

import contextvars
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadCache:
    """Keeps its threads for later work: as many as ever worked at a time. Shared by all threads.

    The threads are daemon threads: one that hangs does not delay the end of the process.

    Args:
        name: The name of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        #: One permit for each thread that waits for work, or is about to.
        self._idle = threading.Semaphore(0)

    def run(self, work: Callable[[], object]) -> None:
        """Run `work` at once in a thread of its own, in an empty context. An error ends that thread.

        Raises:
            RuntimeError: The system has no more threads.
        """
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._keep_working, name=self._name, daemon=True).start()
        self._work.put(work)

    def _keep_working(self) -> None:
        while True:
            work = self._work.get()
            contextvars.Context().run(work)  # no variable of earlier work is left
            del work  # frees what it refers to
            self._idle.release()
