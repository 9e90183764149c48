"""How long a message waits while a backend is away."""

from __future__ import annotations

import threading

from worker_chart_export.timing import full_jitter_seconds

MIN_SECONDS = 1.0
MAX_SECONDS = 60.0
#: The bound doubles with each failure in a row: 4, 8, 16, 32, 60 s.
FIRST_BOUND_SECONDS = 4.0
DOUBLINGS = 4


class OutageBackoff:
    """Counts failures in a row, over all threads; a blip costs seconds, an outage up to a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0

    def delay_seconds(self) -> float:
        """The delay after one more failure: 1 s up to a growing bound, full jitter."""
        with self._lock:
            bound = FIRST_BOUND_SECONDS * 2 ** min(self._failures, DOUBLINGS)
            self._failures += 1
        return full_jitter_seconds(low=MIN_SECONDS, high=min(MAX_SECONDS, bound))

    def reset(self) -> None:
        """The backends answered."""
        with self._lock:
            self._failures = 0
