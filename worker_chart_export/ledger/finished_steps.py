"""The steps that this process has finished lately, so that the rescue looks at each of them once more.

A service that writes a whole run may overwrite a result with an older copy of the run. No message tells the
workers, and no lease expires: without this look the step would stay RUNNING.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.timing import Clock

#: With more steps than this between two rescues, the oldest are forgotten.
MAX_STEPS = 10_000


class FinishedSteps:
    """The steps that were finished since they were last taken. Shared by all threads.

    Args:
        clock: Its monotonic clock is used.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: deque[tuple[float, str, str]] = deque(maxlen=MAX_STEPS)

    def add(self, run_id: str, step_id: str) -> None:
        """Note a step whose result was just written."""
        with self._lock:
            self._steps.append((self._clock.monotonic(), run_id, step_id))

    def take(self, *, older_than_seconds: float) -> dict[str, list[str]]:
        """Return the steps that were finished so long ago, by run, and forget them."""
        latest = self._clock.monotonic() - older_than_seconds
        steps_of: dict[str, list[str]] = {}
        with self._lock:
            while self._steps and self._steps[0][0] <= latest:
                _, run_id, step_id = self._steps.popleft()
                steps_of.setdefault(run_id, []).append(step_id)
        return steps_of
