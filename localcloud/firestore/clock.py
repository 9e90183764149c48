"""Firestore's clock: microseconds that never stand still from commit to commit."""

from __future__ import annotations

import threading
import time
from typing import Any

_MICROSECONDS = 1_000_000


class CommitClock:
    """Instants in microseconds since 1970: commits strictly grow, a read is never before the last commit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def commit_time(self) -> int:
        """An instant later than all given out so far."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last + 1)
            return self._last

    def read_time(self) -> int:
        """An instant not earlier than any given out so far."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last)
            return self._last


def set_timestamp(timestamp: Any, instant: int) -> None:
    """Write `instant` (microseconds since 1970) into a raw `Timestamp`."""
    timestamp.seconds, rest = divmod(instant, _MICROSECONDS)
    timestamp.nanos = rest * 1000


def to_instant(timestamp: Any) -> int:
    """A raw `Timestamp` as microseconds since 1970."""
    return int(timestamp.seconds) * _MICROSECONDS + int(timestamp.nanos) // 1000
