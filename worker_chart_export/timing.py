"""Clocks, timestamps, durations as text, delays. Code takes a `Clock`, so that tests can set the time."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

#: Linux's clock that counts a suspend. None: this system has no such clock.
BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
#: From here on a duration is shown in whole seconds: 9.95 s is 10 s.
WHOLE_SECONDS_FROM = 9.95


class Clock(Protocol):
    """A wall clock and a monotonic clock."""

    def now(self) -> datetime:
        """Return the time of the wall clock: timezone-aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back, for deadlines inside this process.

        Leases and days go on while the machine is suspended, so this clock has to count that time too.
        """


def boot_seconds() -> float:
    """Return seconds that never go back, with the time for which the machine was suspended.

    Linux stops `time.monotonic` during a suspend. Systems without the boot clock get `time.monotonic`.
    """
    return time.monotonic() if BOOT_CLOCK is None else time.clock_gettime(BOOT_CLOCK)


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the time of the wall clock in UTC."""
        return datetime.now(UTC)

    monotonic = staticmethod(boot_seconds)


class SteadyTime:
    """The wall clock of the start of the process, continued by the boot clock.

    Differences of its times are right, also if the wall clock was set meanwhile.
    """

    def __init__(self) -> None:
        self._start = time.time() - boot_seconds()

    def __call__(self) -> float:
        """Return the time in seconds since 1970."""
        return self._start + boot_seconds()

    def correction_seconds(self) -> float:
        """Return what to add to its times since the wall clock was set; 0 for less than a second."""
        seconds = time.time() - self()
        return 0.0 if abs(seconds) < 1 else seconds


def rfc3339(instant: datetime) -> str:
    """Format an instant as RFC 3339 in UTC with microseconds, e.g. `2025-12-15T10:26:15.000001Z`."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def span(seconds: float, *, units: int = 2) -> str:
    """Format a duration for people: `850 ms`, `3.4 s`, `44 s`, `1 min 5 s`, `2 h`. A negative one is `0 s`.

    Args:
        seconds: The duration.
        units: The most units; the smaller ones are left out.
    """
    milliseconds = max(round(seconds * 1000), 0)
    if 0 < milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds} ms"
    if seconds < WHOLE_SECONDS_FROM:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + " s"
    rest, parts = int(seconds + 10 - WHOLE_SECONDS_FROM), []
    for size, unit in UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
        if parts and (len(parts) == units or not rest):
            break
    return " ".join(parts)


def is_rfc3339(text: object) -> bool:
    """Return whether this is an RFC 3339 timestamp: date, time and time zone."""
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:  # e.g. a month 13
        return False
    return True


def full_jitter_seconds(*, low: float, high: float) -> float:
    """Return a random delay from `low` to `high` seconds."""
    return random.uniform(low, high)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that grow with the number of failures in a row, with full jitter.

    Attributes:
        low_seconds: The shortest delay.
        first_seconds: The upper bound of the first delay; it doubles with each further failure.
        max_seconds: The longest delay.
    """

    low_seconds: float = 0.0
    first_seconds: float
    max_seconds: float

    def delay_seconds(self, failures: int) -> float:
        """Return a random delay after `failures` failures in a row (1 or more), in seconds."""
        bound = self.first_seconds * 2.0 ** min(failures - 1, 30)
        return full_jitter_seconds(low=self.low_seconds, high=min(self.max_seconds, bound))
