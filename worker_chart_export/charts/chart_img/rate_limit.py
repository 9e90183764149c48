"""How fast one account may be called: a token bucket with a queue, shared by the threads of the process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

#: Who waits looks this often whether somebody before it has left the queue.
LOOK_SECONDS = 1.0


class RateLimit:
    """So many calls a second on average, and so many at once after a rest.

    A call is paid for when it is let through, not when it queues: who leaves takes nothing with it.

    Args:
        per_second: Calls a second.
        burst: Calls at once.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, per_second: float, burst: int, clock: Clock) -> None:
        self._interval = 1.0 / per_second
        self._slack = (burst - 1) * self._interval
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: list[object] = []
        # When the calls let through so far are all paid for (the generic cell rate algorithm).
        self._paid_at = clock.monotonic()

    def wait(self, scope: CancelScope) -> bool:
        """Wait for one's turn; False, at once, when that would take longer than the step has left.

        Raises:
            StepTimedOut: The step's time is over.
            WorkerError: What the step was stopped with.
        """
        ticket = self._join(scope.remaining_seconds())
        if ticket is None:
            scope.check()  # a step that was stopped has no time left either
            return False
        try:
            while (seconds := self._seconds_until(ticket)) > 0:
                scope.sleep(min(seconds, LOOK_SECONDS))
        finally:
            self._leave(ticket)
        return True

    def _join(self, most_seconds: float) -> object | None:
        with self._lock:
            if self._seconds_behind(len(self._queue)) > most_seconds:
                return None
            ticket = object()
            self._queue.append(ticket)
            return ticket

    def _seconds_until(self, ticket: object) -> float:
        """Seconds until its turn; when there are none, it is let through."""
        with self._lock:
            seconds = self._seconds_behind(self._queue.index(ticket))
            if seconds == 0:
                self._queue.remove(ticket)
                self._paid_at = max(self._paid_at, self._clock.monotonic()) + self._interval
            return seconds

    def _seconds_behind(self, others: int) -> float:
        """Seconds until the turn of who has so many others before it."""
        now = self._clock.monotonic()
        return max(0.0, max(self._paid_at, now) + others * self._interval - self._slack - now)

    def _leave(self, ticket: object) -> None:
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
