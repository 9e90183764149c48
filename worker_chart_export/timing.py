"""Time, injected: what decides by time takes a `Clock`, so that tests own it."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The two clocks a worker needs."""

    def now(self) -> datetime:
        """The wall clock, timezone-aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back; for deadlines inside this process only."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()


def rfc3339(instant: datetime) -> str:
    """`instant` as RFC 3339 in UTC with microseconds, e.g. `2025-12-15T10:26:15.000001Z`."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def full_jitter_seconds(*, low: float, high: float) -> float:
    """Draw a delay evenly from `low` to `high` seconds."""
    return random.uniform(low, high)  # noqa: S311 - spreads load, guards nothing
