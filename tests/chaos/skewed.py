"""Run the daemon with a wall clock that is wrong by `CLOCK_OFFSET_SECONDS`."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from daemon.__main__ import main
from worker_chart_export.timing import SystemClock


def skewed_now(_clock: SystemClock) -> datetime:
    """Return the wrong time."""
    return datetime.now(UTC) + timedelta(seconds=float(os.environ["CLOCK_OFFSET_SECONDS"]))


if __name__ == "__main__":
    SystemClock.now = skewed_now  # type: ignore[method-assign]
    main()
