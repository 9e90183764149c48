"""The live page: observe the work, and report it as JSON.

Names in the report are in camelCase. It holds no secret. Times are in seconds since 1970. Those of the past
are measured by a clock that is never set, and corrected if the wall clock was set since.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any

from daemon.http.page import items
from daemon.http.page.activity import Activity
from daemon.http.page.history import History
from daemon.http.page.messages import Messages
from daemon.http.page.routes import page_routes
from daemon.http.page.thumbnails import Thumbnails
from daemon.settings import effective_settings
from worker_chart_export.charts.chart_img.usage_document import seconds_of_day_left
from worker_chart_export.observability import metrics
from worker_chart_export.observability.observers import watched_by
from worker_chart_export.timing import SteadyTime, boot_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.http.server import Responder
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport
    from daemon.settings import Settings
    from worker_chart_export.charts.chart_img.account_state import AccountState
    from worker_chart_export.ledger.lease import HeldLease


class LivePage:
    """The page of one daemon.

    Args:
        settings: The settings of the daemon.
        drain: The drain of the daemon.
        readiness: Returns the report of `/readyz`.
        liveness: Returns the report of `/livez`.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        drain: Drain,
        readiness: Callable[[], HealthReport],
        liveness: Callable[[], HealthReport],
    ) -> None:
        self._settings = settings
        self._drain = drain
        self._readiness = readiness
        self._liveness = liveness
        self._thumbnails = Thumbnails()
        self._clock = SteadyTime()
        self._activity = Activity(self._thumbnails, clock=self._clock)
        self._messages = Messages(clock=self._clock)
        self._history = History(items.listed)
        self._owner: str | None = None
        self._accounts: Sequence[AccountState] = ()
        self._held: Callable[[], Sequence[HeldLease]] = tuple
        self._started = self._clock()

    def routes(self) -> dict[str, Responder]:
        """Return the paths of the page and what answers them."""
        return page_routes(report=self.report, thumbnails=self._thumbnails, history=self._history.response)

    @contextmanager
    def watching(
        self,
        owner: str,
        accounts: Sequence[AccountState],
        *,
        held: Callable[[], Sequence[HeldLease]],
        documents: Any,
    ) -> Iterator[None]:
        """Observe the deliveries and steps of a worker until the block ends.

        Args:
            owner: Its name in leases.
            accounts: Its Chart-IMG accounts.
            held: Returns the leases that it holds.
            documents: A Firestore client, for reads of the history.
        """
        self._owner, self._accounts, self._held = owner, accounts, held
        self._history.use(documents)
        with watched_by(self._activity), watched_by(self._messages):
            yield

    def report(self) -> dict[str, Any]:
        """Return what the page shows now."""
        settings, now = self._settings, time.time()
        correction = self._clock.correction_seconds()
        readiness, liveness = self._readiness(), self._liveness()
        activity = self._activity.snapshot()
        leases = {(held.run_id, held.step_id): held for held in self._held()}
        return {
            "now": now,
            "process": self._process(correction),
            "readiness": {
                "reason": readiness.reason,
                "parts": dict(readiness.parts),
                "warnings": list(readiness.warnings),
            },
            "liveness": {"reason": liveness.reason, "parts": dict(liveness.parts)},
            "drain": {
                "isDraining": self._drain.is_draining,
                "seconds": self._drain.draining_seconds(),
                "limitSeconds": settings.drain_seconds,
            },
            "running": [
                items.running(work, correction)
                | items.lease(leases.get((work.run_id, work.step_id)), now=now)
                for work in activity.running
            ],
            "finished": [items.finished(step, self._thumbnails, correction) for step in activity.finished],
            "messages": [
                items.message(note, correction, has_quarantine=settings.quarantine_topic_path is not None)
                for note in self._messages.snapshot()
            ],
            "minutes": items.minutes(activity.minutes, correction),
            "accounts": self._account_reports(now + seconds_of_day_left(datetime.now(UTC))),
            "settings": effective_settings(settings),
        }

    def _process(self, correction: float) -> dict[str, Any]:
        settings = self._settings
        return {
            "pid": os.getpid(),
            "owner": self._owner,
            "version": metrics.VERSION,
            "started": self._started + correction,
            "subscription": settings.subscription_path,
            "bucket": settings.charts_bucket,
            "mode": settings.charts_api_mode.value,
            "capacity": settings.worker_concurrency,
            "maxStepSeconds": settings.step_timeout_seconds,
        }

    def _account_reports(self, day_ends: float) -> list[dict[str, Any]]:
        """Report each Chart-IMG account; `used` is None until this worker has read its usage."""
        quota, monotonic = metrics.quota_seen(), boot_seconds()
        return [
            {
                "id": state.account.id,
                "used": quota[state.account.id].used,
                "limit": quota[state.account.id].limit,
                "resetsAt": day_ends,
                "isDisabled": state.is_refused,
                "whyNot": state.why_lost(monotonic),
                "secondsUntilTried": ceil(state.seconds_until_tried(monotonic)),
            }
            for state in self._accounts
        ]
