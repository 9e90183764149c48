"""The drain: count the deliveries and steps in progress, and stop them in stages.

Stage one takes no new work and lets running steps finish. Stage two stops the steps and settles their
messages. Stage three releases the leases of steps that hang. Then `main` ends the process.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from worker_chart_export.errors import Interrupted
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker_chart_export.concurrency.cancel_scope import CancelScope

SHUTDOWN = "the worker is shutting down"
#: The shares of the drain's time for its last two stages, and the most seconds they need.
SETTLE_SHARE, MAX_SETTLE_SECONDS = 0.5, 4.0
RELEASE_SHARE, MAX_RELEASE_SECONDS = 0.2, 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    """The end of each stage of a drain, by the monotonic clock.

    Attributes:
        finish: Until then running steps may finish.
        settle: Until then stopped steps are released, messages are settled and acks are sent.
        end: Until then the leases of steps that hang are released. Then the process ends.
    """

    finish: float
    settle: float
    end: float

    @classmethod
    def of(cls, *, start: float, seconds: float) -> Self:
        """Compute the stages of a drain that starts at `start` and may take `seconds`."""
        settle = start + seconds - min(MAX_RELEASE_SECONDS, RELEASE_SHARE * seconds)
        finish = settle - min(MAX_SETTLE_SECONDS, SETTLE_SHARE * seconds)
        return cls(finish=finish, settle=settle, end=start + seconds)


class Drain:
    """The deliveries and steps in progress in this process. Shared by all threads.

    Args:
        clock: A monotonic clock, in seconds. It may stand still while the machine is suspended.
        max_delivery_seconds: A delivery that is older hangs. It shows no more that messages arrive.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, max_delivery_seconds: float = math.inf
    ) -> None:
        self._clock = clock
        self._max_delivery_seconds = max_delivery_seconds
        self._changed = threading.Condition()
        self._draining = False
        self._started = 0.0
        self._stopped = False
        self._deliveries: dict[object, float] = {}  # by delivery in progress: when it arrived
        self._last_delivery = clock()
        self._scopes: dict[CancelScope, float] = {}  # by running step: when it started
        self._on_start: list[Callable[[], None]] = []

    @property
    def is_draining(self) -> bool:
        """True once new work is refused."""
        return self._draining

    @property
    def steps_running(self) -> int:
        """How many steps are running."""
        with self._changed:
            return len(self._scopes)

    def oldest_step_seconds(self) -> float:
        """Return the age of the oldest running step, or 0."""
        with self._changed:
            return self._clock() - min(self._scopes.values()) if self._scopes else 0.0

    def draining_seconds(self) -> float:
        """Return the time since the drain started, or 0."""
        with self._changed:
            return self._clock() - self._started if self._draining else 0.0

    def quiet_seconds(self) -> float:
        """Return the time since a delivery arrived or was settled; 0 while one is in progress.

        A delivery in progress that hangs counts as one that ended at the time limit.
        """
        with self._changed:
            ends = [arrived + self._max_delivery_seconds for arrived in self._deliveries.values()]
            return max(0.0, self._clock() - max([self._last_delivery, *ends]))

    def on_start(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the drain starts; at once if it has started already. It must be quick."""
        with self._changed:
            self._on_start.append(callback)
            started = self._draining
        if started:
            callback()

    def start(self) -> None:
        """Take no new work from now on."""
        with self._changed:
            if self._draining:
                return
            self._draining = True
            self._started = self._clock()
            callbacks = list(self._on_start)
        for callback in callbacks:
            _call_safely(callback, "Starting the drain")

    @contextmanager
    def delivery(self) -> Iterator[None]:
        """Count a delivery from its arrival to its settlement."""
        delivery = object()
        with self._changed:
            self._deliveries[delivery] = self._clock()
        try:
            yield
        finally:
            with self._changed:
                del self._deliveries[delivery]
                self._last_delivery = self._clock()
                self._changed.notify_all()

    @contextmanager
    def running(self, scope: CancelScope) -> Iterator[None]:
        """Count a running step; the drain stops it through its scope."""
        with self._changed:
            self._scopes[scope] = self._clock()
            stopped = self._stopped
        try:
            if stopped:
                scope.stop(Interrupted(SHUTDOWN))
            yield
        finally:
            with self._changed:
                self._scopes.pop(scope, None)
                self._changed.notify_all()

    def stop_steps(self) -> None:
        """Stop every running step, and every step that starts later."""
        with self._changed:
            self._stopped = True
            running = list(self._scopes)
        for scope in running:
            _call_safely(partial(scope.stop, Interrupted(SHUTDOWN)), "Stopping a step")

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until no delivery and no step is in progress. Return False if the time has passed."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._deliveries or self._scopes), timeout_seconds)


def _call_safely(action: Callable[[], None], what: str) -> None:
    """Log an error, so that the other callbacks and steps still get their call."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - see above
        log.error(Event.INTERNAL_ERROR, f"{what} failed: {error!r:.300}", exc_info=error)
