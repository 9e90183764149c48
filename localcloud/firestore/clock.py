"""Firestore's clock: microseconds that increase with every commit."""

from __future__ import annotations

import threading
import time
from typing import Any

_MICROSECONDS = 1_000_000


class CommitClock:
    """Instants in microseconds since 1970. Commits strictly increase; no read is before the last commit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def commit_time(self) -> int:
        """Return an instant later than all earlier ones."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last + 1)
            return self._last

    def read_time(self) -> int:
        """Return an instant that is not earlier than any earlier one."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last)
            return self._last


def set_timestamp(timestamp: Any, instant: int) -> None:
    """Write `instant` (microseconds since 1970) into a raw `Timestamp`."""
    timestamp.seconds, rest = divmod(instant, _MICROSECONDS)
    timestamp.nanos = rest * 1000


def to_instant(timestamp: Any) -> int:
    """Return a raw `Timestamp` as microseconds since 1970."""
    return int(timestamp.seconds) * _MICROSECONDS + int(timestamp.nanos) // 1000
