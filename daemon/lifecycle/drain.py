"""Stopping: who is still working, and how long they may.

Stage one takes no new work and lets running steps finish; stage two stops them and settles their messages;
stage three lets go of what hangs. What follows is the hard exit, which is `main`'s.
"""

from __future__ import annotations

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

#: The parts of a drain's time that its last two stages get, and the most seconds they need.
SETTLE_SHARE, MAX_SETTLE_SECONDS = 0.5, 4.0
RELEASE_SHARE, MAX_RELEASE_SECONDS = 0.2, 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    """When each stage of a drain is over, by the monotonic clock.

    Attributes:
        finish: Until then running steps may finish by themselves.
        settle: Until then stopped steps are given back, messages settled and acks sent.
        end: Until then the leases of what hangs are released; then the process is gone.
    """

    finish: float
    settle: float
    end: float

    @classmethod
    def of(cls, *, start: float, seconds: float) -> Self:
        """The stages of a drain that started then and may take so long."""
        settle = start + seconds - min(MAX_RELEASE_SECONDS, RELEASE_SHARE * seconds)
        finish = settle - min(MAX_SETTLE_SECONDS, SETTLE_SHARE * seconds)
        return cls(finish=finish, settle=settle, end=start + seconds)


class Drain:
    """Knows the deliveries and steps under way in this process. Shared by all threads.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._draining = False
        self._started = 0.0
        self._stopped = False
        self._deliveries = 0
        self._last_delivery = clock()
        self._scopes: dict[CancelScope, float] = {}  # and since when it runs
        self._on_start: list[Callable[[], None]] = []

    @property
    def is_draining(self) -> bool:
        """Whether new work is refused."""
        return self._draining

    @property
    def steps_running(self) -> int:
        """How many steps are being worked right now."""
        with self._changed:
            return len(self._scopes)

    def oldest_step_seconds(self) -> float:
        """For how long the oldest of them has been; 0 without any."""
        with self._changed:
            return self._clock() - min(self._scopes.values()) if self._scopes else 0.0

    def draining_seconds(self) -> float:
        """For how long new work has been refused; 0 while it is not."""
        with self._changed:
            return self._clock() - self._started if self._draining else 0.0

    def quiet_seconds(self) -> float:
        """For how long no delivery came or was settled; 0 while one is under way."""
        with self._changed:
            return 0.0 if self._deliveries else self._clock() - self._last_delivery

    def on_start(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the drain starts, at once if it has; it must not take long."""
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
            _call(callback, "Starting the drain")

    @contextmanager
    def delivery(self) -> Iterator[None]:
        """A delivery from its arrival until it is settled."""
        with self._changed:
            self._deliveries += 1
        try:
            yield
        finally:
            with self._changed:
                self._deliveries -= 1
                self._last_delivery = self._clock()
                self._changed.notify_all()

    @contextmanager
    def running(self, scope: CancelScope) -> Iterator[None]:
        """A step under way; it is stopped through its budget."""
        with self._changed:
            self._scopes[scope] = self._clock()
            stopped = self._stopped
        try:
            if stopped:
                scope.stop(_shutting_down())
            yield
        finally:
            with self._changed:
                self._scopes.pop(scope, None)
                self._changed.notify_all()

    def stop_steps(self) -> None:
        """Stop every step that still runs, and any that starts from now on."""
        with self._changed:
            self._stopped = True
            running = list(self._scopes)
        for scope in running:
            _call(partial(scope.stop, _shutting_down()), "Stopping a step")

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until no delivery and no step is under way; whether that happened in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._deliveries or self._scopes), timeout_seconds)


def _shutting_down() -> Interrupted:
    return Interrupted("the worker is shutting down")


def _call(action: Callable[[], None], what: str) -> None:
    """What goes wrong for one must not keep the others from being told."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - see above
        log.error(Event.INTERNAL_ERROR, f"{what} failed: {error!r:.300}", exc_info=error)
