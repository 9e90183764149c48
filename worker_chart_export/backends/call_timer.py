"""The limit of a whole call: a timeout for each read does not end an answer whose bytes arrive one by one."""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker_chart_export.backends.http import CancellableCall
    from worker_chart_export.errors import WorkerError


class CallTimer:
    """End calls that last too long, from one thread for all of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._limits: dict[CancellableCall, tuple[float, Callable[[], WorkerError]]] = {}
        self._is_closed = False
        self._wakes_at = math.inf
        self._thread = threading.Thread(target=self._stop_overdue, name="call-timer", daemon=True)
        self._thread.start()

    @contextmanager
    def limit(
        self, call: CancellableCall, seconds: float, error: Callable[[], WorkerError]
    ) -> Iterator[None]:
        """Stop the call with a new `error` if the context lasts longer.

        The stop may also come just after the end of the context.
        """
        until = time.monotonic() + seconds
        with self._changed:
            self._limits[call] = (until, error)
            if until < self._wakes_at:  # to wake the thread for each call would cost more than the calls
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._limits.pop(call, None)

    def close(self) -> None:
        """End the thread. No call may be in progress."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _stop_overdue(self) -> None:
        while not self._is_closed:
            with self._changed:
                now = time.monotonic()
                overdue = [(call, limit[1]) for call, limit in self._limits.items() if limit[0] <= now]
                for call, _ in overdue:
                    del self._limits[call]
                self._wakes_at = min((until for until, _ in self._limits.values()), default=math.inf)
                if not overdue and not self._is_closed:
                    self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
            for call, error in overdue:
                call.stop(error())
                del call, error  # else the last one keeps its answer until the next is overdue
            overdue.clear()


@cache
def shared_timer() -> CallTimer:
    """Return the timer of all calls to Cloud Storage. The first call starts its thread."""
    return CallTimer()
