"""Liveness and readiness of the process, for `/livez` and `/readyz`.

Liveness never calls a backend: a slow or unavailable backend is no reason to restart a worker.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """The health of the process at one moment.

    Attributes:
        parts: By the name of the part: `ok`, or what is wrong with it.
        reason: Why the process as a whole is not healthy, or None.
        warnings: What a person has to know although the process takes work.
    """

    parts: Mapping[str, str]
    reason: str | None
    warnings: tuple[str, ...] = ()


def readiness(
    *, is_draining: bool, stream_is_open: bool, pauses: Mapping[str, str], warnings: tuple[str, ...] = ()
) -> HealthReport:
    """Report if the daemon takes work: its stream is open, it is not draining, its intake is not paused.

    Args:
        is_draining: The daemon stops.
        stream_is_open: Messages may arrive. A long pause closes the stream, so the pause is the reason then.
        pauses: Why the intake is paused, by name.
        warnings: What a person has to know; it changes nothing else.
    """
    why_paused = "; ".join(pauses.values())
    parts = {
        "stream": OK if stream_is_open else "closed",
        "drain": "draining" if is_draining else OK,
        "intake": f"paused: {why_paused}" if pauses else OK,
    }
    reason = None if stream_is_open else "no stream is open"
    if pauses:
        reason = f"intake is paused: {why_paused}"
    return HealthReport(parts=parts, reason="draining" if is_draining else reason, warnings=warnings)


@dataclass(slots=True)
class _Loop:
    within_seconds: float
    ticked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _AgeLimit:
    age: Callable[[], float]
    max_seconds: float
    failure: str


class Liveness:
    """Watches the loops of this process. Shared by all threads.

    Args:
        clock: A monotonic clock, in seconds, that stands still while the machine is suspended: no loop ticks
            during that time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loops: dict[str, _Loop] = {}
        self._age_limits: dict[str, _AgeLimit] = {}
        self._failures: dict[str, str] = {}
        self._is_retired = False

    def expect(self, name: str, *, within_seconds: float) -> Callable[[], None]:
        """Expect the loop `name` to tick at least this often from now on; return its tick function."""
        with self._lock:
            self._loops[name] = _Loop(within_seconds, self._clock())
        return lambda: self.tick(name)

    def tick(self, name: str) -> None:
        """Record that the loop runs; a loop that is not expected is ignored."""
        with self._lock:
            if name in self._loops:
                self._loops[name].ticked = self._clock()

    def limit_age(self, name: str, age: Callable[[], float], *, max_seconds: float, failure: str) -> None:
        """Fail from now on while something is too old.

        Args:
            name: The name of the part.
            age: Returns the age in seconds, 0 if there is nothing. It must not block.
            max_seconds: The oldest age of a healthy process.
            failure: What is wrong then, e.g. `has run`; the age follows it.
        """
        with self._lock:
            self._age_limits[name] = _AgeLimit(age=age, max_seconds=max_seconds, failure=failure)

    def fail(self, name: str, reason: str) -> None:
        """Record a failure that only a restart may fix."""
        with self._lock:
            self._failures[name] = reason

    def clear(self, name: str) -> None:
        """Remove a recorded failure."""
        with self._lock:
            self._failures.pop(name, None)

    def retire(self) -> None:
        """Report the process as alive from now on: it is stopping, and the drain has its own time limit."""
        self._is_retired = True

    def why_dead(self) -> str | None:
        """Return why the process should be restarted, or None."""
        return self.health_report().reason

    def health_report(self) -> HealthReport:
        """Report the state of each loop and each failure."""
        if self._is_retired:
            return HealthReport(parts={}, reason=None)
        with self._lock:
            age_limits = dict(self._age_limits)
        old = {name: why for name, limit in age_limits.items() if (why := _why_too_old(limit))}
        silent = {}
        with self._lock:
            now = self._clock()
            for name, loop in self._loops.items():
                seconds = now - loop.ticked
                if seconds > loop.within_seconds:
                    silent[name] = f"silent for {seconds:.0f} s, more than {loop.within_seconds:g} s"
            failures = self._failures | old
            parts = dict.fromkeys([*self._loops, *age_limits], OK) | silent | failures
            reasons = [f"loop {name} is {why}" for name, why in silent.items()]
            reasons += [f"{name}: {why}" for name, why in failures.items()]
        return HealthReport(parts=parts, reason="; ".join(reasons) or None)


def _why_too_old(limit: _AgeLimit) -> str | None:
    seconds = limit.age()
    if seconds <= limit.max_seconds:
        return None
    return f"{limit.failure} for {seconds:.0f} s, more than {limit.max_seconds:g} s"
