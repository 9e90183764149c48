"""The live page: observe the work, and report it as JSON.

Names in the report are in camelCase. It holds no secret. Times are in seconds since 1970. Those of the past
are measured by a clock that is never set, and corrected if the wall clock was set since.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any

from daemon.http.page.activity import SECONDS_PER_MINUTE, Activity
from daemon.http.page.routes import page_routes
from daemon.http.page.thumbnails import Thumbnails
from daemon.settings import effective_settings
from worker_chart_export.charts.chart_img.usage_document import seconds_of_day_left
from worker_chart_export.observability import metrics
from worker_chart_export.observability.observers import Stage, watched_by
from worker_chart_export.outputs.links import browser_url
from worker_chart_export.timing import SteadyTime, boot_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from daemon.http.page.activity import ChartNote, FinishedStep, Minute, StepWork
    from daemon.http.server import Responder
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport
    from daemon.settings import Settings
    from worker_chart_export.charts.chart_img.account_state import AccountState


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
        self._owner: str | None = None
        self._accounts: Sequence[AccountState] = ()
        self._started = self._clock()

    def routes(self) -> dict[str, Responder]:
        """Return the paths of the page and what answers them."""
        return page_routes(report=self.report, thumbnails=self._thumbnails)

    def watching(self, owner: str, accounts: Sequence[AccountState]) -> AbstractContextManager[None]:
        """Observe the steps of the worker with this lease owner and these accounts from now on."""
        self._owner, self._accounts = owner, accounts
        return watched_by(self._activity)

    def report(self) -> dict[str, Any]:
        """Return what the page shows now."""
        settings, now = self._settings, time.time()
        correction = self._clock.correction_seconds()
        readiness, liveness = self._readiness(), self._liveness()
        activity = self._activity.snapshot()
        return {
            "now": now,
            "process": {
                "pid": os.getpid(),
                "owner": self._owner,
                "version": metrics.VERSION,
                "started": self._started + correction,
                "subscription": settings.subscription_path,
                "bucket": settings.charts_bucket,
                "mode": settings.charts_api_mode.value,
                "capacity": settings.worker_concurrency,
            },
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
            "running": [_running(work, correction) for work in activity.running],
            "finished": [self._finished(step, correction) for step in activity.finished],
            "minutes": _minutes(activity.minutes, correction),
            "accounts": self._account_reports(now + seconds_of_day_left(datetime.now(UTC))),
            "settings": effective_settings(settings),
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

    def _finished(self, step: FinishedStep, correction: float) -> dict[str, Any]:
        return {
            "key": step.number,
            "runId": step.run_id,
            "stepId": step.step_id,
            "attempt": step.attempt,
            "result": step.result.value,
            "code": step.code,
            "reason": step.reason,
            "ended": step.ended + correction,
            "seconds": step.seconds,
            "requested": step.requested,
            "manifest": None if step.manifest_uri is None else _link(step.manifest_uri),
            "charts": [self._chart(chart) for chart in step.charts],
            "stored": step.stored,
            "failures": [
                {"template": failure.template_id, "code": failure.code, "message": failure.message}
                for failure in step.failures
            ],
            "failed": step.failed,
        }

    def _chart(self, chart: ChartNote) -> dict[str, Any]:
        number = chart.thumbnail
        return {
            "template": chart.template_id,
            "provider": chart.provider,
            **_link(chart.uri),
            "thumbnail": number if number is not None and self._thumbnails.has(number) else None,
        }


def _running(work: StepWork, correction: float) -> dict[str, Any]:
    stages = list(work.doing.values())
    return {
        "key": work.number,
        "runId": work.run_id,
        "stepId": work.step_id,
        "attempt": work.attempt,
        "began": work.began + correction,
        "isRescue": work.is_rescue,
        "stage": work.stage.value,
        "requested": work.requested,
        "stored": work.stored,
        "failed": work.failed,
        "calling": stages.count(Stage.CALL),
        "uploading": stages.count(Stage.UPLOAD),
    }


@lru_cache(maxsize=1024)
def _link(uri: str) -> dict[str, str | None]:
    """Return the URI of an object, and its URL for a browser."""
    return {"uri": uri, "href": browser_url(uri, emulator=os.environ.get("STORAGE_EMULATOR_HOST"))}


def _minutes(minutes: Sequence[Minute], correction: float) -> dict[str, Any]:
    return {
        "start": (minutes[0].index + round(correction / SECONDS_PER_MINUTE)) * SECONDS_PER_MINUTE,
        "succeeded": [minute.succeeded for minute in minutes],
        "failed": [minute.failed for minute in minutes],
        "unfinished": [minute.unfinished for minute in minutes],
        "charts": [minute.charts for minute in minutes],
        "failedCharts": [minute.failed_charts for minute in minutes],
    }
