"""The time a step may take, and the one place where it learns that it must stop.

Every paid call, upload and manifest write asks `CancelScope.check` first, so that a step which ran out of
time, was told to stop or lost its lease pays for nothing more.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker_chart_export.errors import StepTimedOut, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker_chart_export.timing import Clock


class CancelScope:
    """A deadline and a stop flag shared by the threads of one step.

    Args:
        seconds: Time from now until unfinished work fails with STEP_TIMEOUT.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._deadline = clock.monotonic() + seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stop_error: WorkerError | None = None
        self._on_stop: list[Callable[[WorkerError], None]] = []
        self._guards: tuple[Callable[[], None], ...] = ()

    def part(self, *, reserve_seconds: float) -> CancelScope:
        """A budget that ends `reserve_seconds` earlier; it stops with this one and has its guards."""
        return self._related(max(0.0, self.remaining_seconds() - reserve_seconds))

    def at_least(self, seconds: float) -> CancelScope:
        """A budget that ends with this one, but not within `seconds`: for what has to be tried in any case.

        It stops with this one and has its guards.
        """
        return self._related(max(self.remaining_seconds(), seconds))

    def _related(self, seconds: float) -> CancelScope:
        related = CancelScope(seconds=seconds, clock=self._clock)
        related.guard(self.check_stopped)
        self.on_stop(related.stop)
        return related

    def guard(self, check: Callable[[], None]) -> None:
        """Ask `check` too, each time that somebody asks whether the work may go on.

        A WorkerError that it raises (a lost lease) stops the step with that error, for all its threads.
        """
        with self._lock:
            self._guards = (*self._guards, check)

    def on_stop(self, callback: Callable[[WorkerError], None]) -> None:
        """Call `callback` with the error when the step is stopped; at once if it already is."""
        with self._lock:
            self._on_stop.append(callback)
            error = self._stop_error
        if error is not None:
            callback(error)

    @contextmanager
    def while_running(self, callback: Callable[[WorkerError], None]) -> Iterator[None]:
        """As `on_stop`, for the time of the context; a stop just then may still call it afterwards."""
        self.on_stop(callback)
        try:
            yield
        finally:
            with self._lock:
                self._on_stop.remove(callback)

    def stop(self, error: WorkerError) -> None:
        """End the step: from now on every `check` and `sleep` raises `error`. The first error stays."""
        with self._lock:
            if self._stop_error is not None:
                return
            self._stop_error = error
            callbacks = list(self._on_stop)
        self._stopped.set()
        for callback in callbacks:
            callback(error)

    def remaining_seconds(self) -> float:
        """Seconds left, never below zero; zero once the step was stopped."""
        return 0.0 if self._stopped.is_set() else max(0.0, self._deadline - self._clock.monotonic())

    def check_stopped(self) -> None:
        """Return unless the step was stopped or a guard forbids it; time that ran out is no matter here.

        Raises:
            WorkerError: What `stop` was given, or what the guard raised.
        """
        if self._stop_error is not None:
            raise self._stop_error
        for guard in self._guards:
            try:
                guard()
            except WorkerError as error:
                self.stop(error)
                raise

    def check(self) -> None:
        """Return if work may go on.

        Raises:
            WorkerError: What `stop` was given, or what a guard raised.
            StepTimedOut: The time is used up.
        """
        self.check_stopped()
        if self.remaining_seconds() == 0.0:
            raise StepTimedOut("The step's time ended before this was done.")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, at most until the deadline; wakes and raises at once when the step is stopped."""
        self._stopped.wait(min(seconds, self.remaining_seconds()))
        self.check()
