"""How long the next commit on a run waits, after a lost race and for company, and how long callers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.timing import Clock

MIN_PAUSE_SECONDS = 0.02
MAX_PAUSE_SECONDS = 1.0
#: Firestore wants a document written about once a second. After a commit for many callers the next one waits
#: for company, so long for each of them; a step that is alone on its run never waits.
GATHERING_SECONDS_EACH = 0.02
MAX_GATHERING_SECONDS = 0.25


class CommitPace:
    """The pace of one run's commits in this process.

    Args:
        clock: Its monotonic clock is used.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._losses = 0
        self._last_size = 0
        self._last_commit_at = 0.0

    def committed(self, size: int) -> None:
        """A commit for so many callers stands."""
        self._last_size, self._last_commit_at = size, self._clock.monotonic()

    def went_well(self) -> None:
        """A turn ended without trouble."""
        self._losses = 0

    def failed(self) -> None:
        """A race was lost, or Firestore was away."""
        self._losses += 1

    def pause_seconds(self) -> float:
        """Seconds from now: full jitter after failures, else longer the more came last time; 0 if none."""
        if self._losses:
            bound = min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS * 2 ** min(self._losses, 10))
            return full_jitter_seconds(low=0.0, high=bound)
        company = self._last_size if self._last_size > 1 else 0
        gathering = min(MAX_GATHERING_SECONDS, GATHERING_SECONDS_EACH * company)
        return max(0.0, self._last_commit_at + gathering - self._clock.monotonic())


def within(seconds: float, clock: Clock) -> Callable[[], float]:
    """Patience that ends `seconds` from now."""
    deadline = clock.monotonic() + seconds
    return lambda: deadline - clock.monotonic()
