"""Whether the process is alive: its own loops tick, and nothing it needs to work failed for good.

No backend is ever asked: a slow or absent one is no reason to restart a worker.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.lifecycle.health_report import WELL, HealthReport

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class _Loop:
    within_seconds: float
    ticked: float


class Liveness:
    """What `/livez` answers from. Shared by all threads.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loops: dict[str, _Loop] = {}
        self._failures: dict[str, str] = {}
        self._is_retired = False

    def expect(self, name: str, *, within_seconds: float) -> Callable[[], None]:
        """Expect the loop `name` to tick at least so often from now on; the result ticks for it."""
        with self._lock:
            self._loops[name] = _Loop(within_seconds, self._clock())
        return lambda: self.tick(name)

    def tick(self, name: str) -> None:
        """The loop is alive; one that is not expected is passed over."""
        with self._lock:
            if name in self._loops:
                self._loops[name].ticked = self._clock()

    def fail(self, name: str, reason: str) -> None:
        """Something went wrong that only a restart may mend."""
        with self._lock:
            self._failures[name] = reason

    def mend(self, name: str) -> None:
        """It works again."""
        with self._lock:
            self._failures.pop(name, None)

    def retire(self) -> None:
        """Expect nothing any more: the process is stopping, and that has an end of its own."""
        self._is_retired = True

    def why_dead(self) -> str | None:
        """The loop that is silent for too long, or what failed; None while all is well."""
        return self.health_report().reason

    def health_report(self) -> HealthReport:
        """How each loop is, and what failed; why the process is dead is the reason."""
        if self._is_retired:
            return HealthReport(parts={}, reason=None)
        with self._lock:
            now = self._clock()
            silent = {name: why for name, loop in self._loops.items() if (why := _why_silent(loop, now))}
            parts = dict.fromkeys(self._loops, WELL) | silent | self._failures
            reasons = [f"loop {name} is {why}" for name, why in silent.items()]
            reasons += [f"{name}: {why}" for name, why in self._failures.items()]
        return HealthReport(parts=parts, reason="; ".join(reasons) or None)


def _why_silent(loop: _Loop, now: float) -> str | None:
    silent_seconds = now - loop.ticked
    if silent_seconds <= loop.within_seconds:
        return None
    return f"silent for {silent_seconds:.0f} s, more than {loop.within_seconds:g} s"
