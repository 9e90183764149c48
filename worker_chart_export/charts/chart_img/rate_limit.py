"""How fast one account may be called: a token bucket, shared by the threads of the process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.budget import StepBudget
    from worker_chart_export.clock import Clock


class RateLimit:
    """So many calls a second on average, and so many at once after a rest.

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
        # When the calls let through so far would all be paid for (the generic cell rate algorithm).
        self._paid_at = clock.monotonic()

    def reserve_seconds(self) -> float:
        """Take the next place in the queue; seconds until its turn."""
        with self._lock:
            now = self._clock.monotonic()
            self._paid_at = max(self._paid_at, now)
            wait_seconds = max(0.0, self._paid_at - self._slack - now)
            self._paid_at += self._interval
            return wait_seconds

    def wait(self, budget: StepBudget) -> None:
        """Wait for one's turn.

        Raises:
            StepTimedOut: The step's time is over before that.
            WorkerError: What the step was stopped with.
        """
        seconds = self.reserve_seconds()
        if seconds > 0:
            budget.sleep(seconds)
