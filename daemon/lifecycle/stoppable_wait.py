"""How the main thread waits: never for long, so that it ticks, and never past a request to stop."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: The longest single wait.
TICK_SECONDS = 1.0


class StopRequested(Exception):
    """The process was asked to stop. No error; it leaves every wait at once.

    Attributes:
        reason: Why, e.g. the signal's name.
        at: When, by the monotonic clock.
    """

    def __init__(self, reason: str, at: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at


class StoppableWait:
    """Waits of one thread, which the others may end.

    Args:
        on_tick: Called by the waiting thread at least every `TICK_SECONDS`.
    """

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self._on_tick = on_tick
        self._rung = threading.Event()
        self._stop: StopRequested | None = None

    def ring(self) -> None:
        """Something may have changed: look now."""
        self._rung.set()

    def request_stop(self, reason: str) -> None:
        """Ask for a stop, from any thread; the first reason and time count."""
        if self._stop is None:
            self._stop = StopRequested(reason, time.monotonic())
        self._rung.set()

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until `holds()`, at most `seconds`; whether it came to hold.

        Raises:
            StopRequested: A stop was asked for, before or meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            # Cleared before looking: what changes after the look rings again.
            self._rung.clear()
            self._on_tick()
            if self._stop is not None:
                raise self._stop
            if holds():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._rung.wait(min(left, TICK_SECONDS))

    def start(self, work: Callable[[], T], *, name: str) -> Future[T]:
        """Begin `work` in a thread of that name, which nobody has to wait for; its end rings."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
                future.set_exception(error)
            self.ring()

        threading.Thread(target=run, name=name, daemon=True).start()
        return future

    def wait_for(self, work: Callable[[], T], *, name: str) -> T:
        """The result of `work`, which is done in a thread of that name; raises what it raises.

        Raises:
            StopRequested: A stop was asked for meanwhile.
        """
        future = self.start(work, name=name)
        self.wait_until(future.done, math.inf)
        return future.result()

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`.

        Raises:
            StopRequested: A stop was asked for, before or meanwhile.
        """
        self.wait_until(lambda: False, seconds)
