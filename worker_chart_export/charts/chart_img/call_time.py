"""The time that calls may take in all: one thread looks after all that are under way.

A read timeout alone ends no call whose bytes keep dripping in.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CallTimes:
    """Ends calls that last too long. Shared by all threads; `close` ends its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[object, tuple[float, Callable[[], None]]] = {}
        self._closed = False
        self._wakes_at = math.inf
        self._watcher = threading.Thread(target=self._watch, name="chart-img-calls", daemon=True)
        self._watcher.start()

    @contextmanager
    def at_most(self, seconds: float, end: Callable[[], None]) -> Iterator[None]:
        """Call `end` once, from another thread, if the block lasts longer; perhaps also just after it."""
        call, until = object(), time.monotonic() + seconds
        with self._changed:
            self._calls[call] = (until, end)
            if until < self._wakes_at:  # a watcher woken for each call would cost more than the calls
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._calls.pop(call, None)

    def close(self) -> None:
        """No call is under way any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._watcher.join()

    def _watch(self) -> None:
        while (overdue := self._next_overdue()) is not None:
            overdue()

    def _next_overdue(self) -> Callable[[], None] | None:
        """Waits for it; None once closed."""
        with self._changed:
            while not self._closed:
                call = min(self._calls, key=self._until, default=None)
                self._wakes_at = math.inf if call is None else self._until(call)
                left = self._wakes_at - time.monotonic()
                if call is not None and left <= 0:
                    return self._calls.pop(call)[1]
                self._changed.wait(None if call is None else left)
            return None

    def _until(self, call: object) -> float:
        return self._calls[call][0]
