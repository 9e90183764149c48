"""Count calls per method, so that tests and benchmarks can read the counts afterwards."""

from __future__ import annotations

import threading
from collections import Counter


class Calls:
    """A thread-safe counter per method name. A method that was never called counts 0."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()

    def add(self, method: str, count: int = 1) -> None:
        """Add `count` calls of `method`."""
        with self._changed:
            self._counts[method] += count
            self._changed.notify_all()

    def __getitem__(self, method: str) -> int:
        with self._changed:
            return self._counts[method]

    def as_dict(self) -> dict[str, int]:
        """Return a copy of all counts by method name."""
        with self._changed:
            return dict(self._counts)

    def reset(self) -> None:
        """Set all counts to zero."""
        with self._changed:
            self._counts.clear()

    def wait_for(self, method: str, count: int, *, timeout_seconds: float) -> bool:
        """Wait until `method` was called at least `count` times; return False on a timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts[method] >= count, timeout_seconds)
