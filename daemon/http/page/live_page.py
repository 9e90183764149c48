"""The page as a whole: it watches the work, and answers for what it saw."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from daemon.http.page.activity import Activity
from daemon.http.page.report import report_accounts, report_drain, report_health, report_seen
from daemon.http.page.routes import page_routes
from daemon.http.page.thumbnails import Thumbnails
from daemon.settings import effective_settings
from worker_chart_export.charts.chart_img.quota import seconds_of_day_left
from worker_chart_export.observability.metrics import VERSION
from worker_chart_export.observability.observers import watched_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from daemon.composition import Worker
    from daemon.http.server import Responder
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport
    from daemon.settings import Settings


class LivePage:
    """The page of one daemon.

    Args:
        settings: What the daemon was told.
        drain: Whether it stops.
        readiness: What `/readyz` is told.
        liveness: What `/livez` is told.
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
        self._activity = Activity(self._thumbnails)
        self._worker: Worker | None = None
        self._started = time.time()

    def routes(self) -> dict[str, Responder]:
        """The paths it answers at."""
        return page_routes(report=self.report, thumbnails=self._thumbnails)

    def watching(self, worker: Worker) -> AbstractContextManager[None]:
        """Watch the steps of this worker from now on."""
        self._worker = worker
        return watched_by(self._activity)

    def report(self) -> dict[str, Any]:
        """What the page shows now."""
        now = time.time()
        settings = self._settings
        return {
            "now": now,
            "process": self._process(),
            "readiness": report_health(self._readiness()),
            "liveness": report_health(self._liveness()),
            "drain": report_drain(self._drain, limit_seconds=settings.drain_seconds),
            **report_seen(self._activity.seen(), self._thumbnails),
            "accounts": report_accounts(
                self._worker.accounts if self._worker else (),
                monotonic=time.monotonic(),
                day_ends=now + seconds_of_day_left(datetime.now(UTC)),
            ),
            "settings": effective_settings(settings),
        }

    def _process(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "pid": os.getpid(),
            "owner": self._worker.ledger.owner if self._worker else None,
            "version": VERSION,
            "started": self._started,
            "subscription": settings.subscription_path,
            "bucket": settings.charts_bucket,
            "mode": settings.charts_api_mode.value,
            "capacity": settings.worker_concurrency,
        }
