"""Cancel scope: the deadline and the stop flag of a step.

Every paid call, upload and manifest write calls `CancelScope.check` first. So nothing more is paid for a step
whose time has ended, that was stopped, or that lost its lease.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker_chart_export.errors import StepTimedOut, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker_chart_export.timing import Clock

#: A wait for a lock notices a stop within this time.
LOCK_CHECK_SECONDS = 0.2


class CancelScope:
    """A deadline and a stop flag, shared by the threads of one step.

    Args:
        seconds: Time from now until unfinished work fails with STEP_TIMEOUT.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._deadline = clock.monotonic() + seconds
        self._lock = threading.Lock()
        self._stop_error: WorkerError | None = None
        self._on_stop: list[Callable[[WorkerError], None]] = []
        self._guards: tuple[Callable[[], None], ...] = ()

    def child(self, seconds: float) -> CancelScope:
        """Return a scope that ends in `seconds`, stops with this one and has its guards.

        It may end before or after this one. A stop of the child does not stop this scope.
        """
        child = CancelScope(seconds=seconds, clock=self._clock)
        child.guard(self.check_stopped)
        self.on_stop(child.stop)
        return child

    def guard(self, check: Callable[[], None]) -> None:
        """Call `check` with each later `check` and `check_stopped` of this scope.

        A WorkerError that it raises (for example: the lease is lost) stops the step in all its threads.
        """
        with self._lock:
            self._guards = (*self._guards, check)

    def on_stop(self, callback: Callable[[WorkerError], None]) -> None:
        """Call `callback` with the error when the scope is stopped; at once if it is stopped already."""
        with self._lock:
            self._on_stop.append(callback)
            error = self._stop_error
        if error is not None:
            callback(error)

    @contextmanager
    def while_running(self, callback: Callable[[WorkerError], None]) -> Iterator[None]:
        """Like `on_stop`, but only for the block. A stop at its end may call `callback` just after it."""
        self.on_stop(callback)
        try:
            yield
        finally:
            with self._lock:
                self._on_stop.remove(callback)

    def stop(self, error: WorkerError) -> None:
        """Stop the step: every later `check` and `sleep` raises `error`. The first stop counts."""
        with self._lock:
            if self._stop_error is not None:
                return
            self._stop_error = error
            callbacks = list(self._on_stop)
        for callback in callbacks:
            callback(error)

    def remaining_seconds(self) -> float:
        """Return the seconds that are left: never less than zero, and zero once the step is stopped."""
        return 0.0 if self._stop_error is not None else max(0.0, self._deadline - self._clock.monotonic())

    def check_stopped(self) -> None:
        """Return unless the step is stopped or a guard stops it. The deadline does not count here.

        Raises:
            WorkerError: The error of the stop, or of the guard.
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
        """Return if the work may go on.

        Raises:
            WorkerError: The error of the stop, or of a guard.
            StepTimedOut: The time has ended.
        """
        self.check_stopped()
        if self._clock.monotonic() >= self._deadline:
            raise StepTimedOut("The step's time ended before this was done.")

    def acquire(self, lock: threading.Lock) -> None:
        """Take `lock` as soon as it is free. A stop ends the wait; errors as `check`."""
        while not lock.acquire(timeout=LOCK_CHECK_SECONDS):
            self.check()

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, but not longer than the deadline. A stop ends the wait; errors as `check`."""
        stopped = threading.Event()
        with self.while_running(lambda _error: stopped.set()):
            stopped.wait(min(seconds, self.remaining_seconds()))
        self.check()
