"""How many steps and charts were finished in each minute of the last hour."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SECONDS = 60
MINUTES = 60


@dataclass(slots=True)
class Minute:
    """One minute's counts.

    Attributes:
        index: Minutes since 1970.
        unfinished: Steps that were given back or lost.
        charts: Charts that were made; those of an earlier attempt are not.
        failed_charts: Charts that failed, in whatever step.
    """

    index: int
    succeeded: int = 0
    failed: int = 0
    unfinished: int = 0
    charts: int = 0
    failed_charts: int = 0


class LastHour:
    """Counts by minute of the wall clock. Not guarded: its owner lets one thread in at a time."""

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def at(self, now: float) -> Minute:
        """The minute to count in; a clock that was set back counts in the last one."""
        index = int(now // SECONDS)
        if not self._minutes or self._minutes[-1].index < index:
            self._minutes.append(Minute(index))
        return self._minutes[-1]

    def series(self, now: float) -> list[Minute]:
        """A count for each of the last 60 minutes, the present one last; see `at` for a clock set back."""
        latest = self._minutes[-1].index if self._minutes else 0
        last = max(int(now // SECONDS), latest)
        known = {minute.index: minute for minute in self._minutes}
        return [known.get(index) or Minute(index) for index in range(last - MINUTES + 1, last + 1)]
