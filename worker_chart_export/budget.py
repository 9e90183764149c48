"""The time a step may take, and the one place where it learns that it must stop.

Every paid call, upload and manifest write asks `StepBudget.check` first, so that a step which ran out of
time or was told to stop pays for nothing more.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker_chart_export.errors import StepTimedOut, WorkerError

if TYPE_CHECKING:
    from worker_chart_export.clock import Clock


class StepBudget:
    """A deadline and a stop flag shared by the threads of one step.

    Args:
        seconds: Time from now until unfinished requests fail with STEP_TIMEOUT.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock.monotonic() + seconds
        self._stopped = threading.Event()
        self._stop_error: WorkerError | None = None

    def remaining_seconds(self) -> float:
        """Seconds left, never below zero; zero once the step was stopped."""
        return 0.0 if self._stopped.is_set() else max(0.0, self._deadline - self._clock.monotonic())

    def stop(self, error: WorkerError) -> None:
        """End the step: from now on every `check` and `sleep` raises `error`. The first error stays."""
        if self._stop_error is None:
            self._stop_error = error
        self._stopped.set()

    def check(self) -> None:
        """Return if work may go on.

        Raises:
            WorkerError: What `stop` was given.
            StepTimedOut: The budget is used up.
        """
        if self._stop_error is not None:
            raise self._stop_error
        if self.remaining_seconds() == 0.0:
            raise StepTimedOut(f"The step's time budget of {self._seconds:g} s is used up.")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, at most until the deadline; wakes and raises at once when the step is stopped."""
        self._stopped.wait(min(seconds, self.remaining_seconds()))
        self.check()
