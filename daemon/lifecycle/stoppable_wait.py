"""Waits of the main thread: in short intervals, so that it ticks. A request to stop ends them."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: The longest single part of a wait.
TICK_SECONDS = 1.0


class StopRequested(Exception):
    """A stop of the process was requested. This is not an error; it ends every wait at once.

    Attributes:
        reason: Why, e.g. the signal's name.
        at: The time of the request, by the monotonic clock.
    """

    def __init__(self, reason: str, at: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at


class StoppableWait:
    """Waits of one thread, which other threads may end.

    Args:
        on_tick: Called by the waiting thread at least every `TICK_SECONDS`.
    """

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self._on_tick = on_tick
        self._woken = threading.Event()
        self._stop: StopRequested | None = None

    def wake(self) -> None:
        """Make the waiting thread check its condition now."""
        self._woken.set()

    def request_stop(self, reason: str) -> None:
        """Request a stop, from any thread; the first reason and time count."""
        if self._stop is None:
            self._stop = StopRequested(reason, time.monotonic())
        self._woken.set()

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until `holds()`, at most `seconds`. Return False if the time has passed.

        Raises:
            StopRequested: A stop was requested, before or during the wait.
        """
        deadline = time.monotonic() + seconds
        while True:
            # Cleared before the check: a change after the check sets it again.
            self._woken.clear()
            self._on_tick()
            if self._stop is not None:
                raise self._stop
            if holds():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._woken.wait(min(left, TICK_SECONDS))

    def start(self, work: Callable[[], T], *, name: str) -> Future[T]:
        """Start `work` in a daemon thread of that name; its end wakes the waiting thread.

        Without a free thread the future carries the error.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - the future carries every error to the caller
                future.set_exception(error)
            self.wake()

        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            future.set_exception(error)
        return future

    def wait_for(self, work: Callable[[], T], *, name: str) -> T:
        """Run `work` in a thread of that name and return its result; raises what it raises.

        Raises:
            StopRequested: A stop was requested, before or during the wait.
        """
        future = self.start(work, name=name)
        self.wait_until(future.done, math.inf)
        return future.result()

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`.

        Raises:
            StopRequested: A stop was requested, before or during the wait.
        """
        self.wait_until(lambda: False, seconds)
