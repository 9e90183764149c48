"""What the page is told, ready for JSON: names in camelCase, times in seconds since 1970, nothing secret."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from daemon.http.page.minutes import SECONDS
from worker_chart_export.observability import metrics
from worker_chart_export.observability.observers import Stage
from worker_chart_export.outputs.links import browser_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.http.page.activity import Seen
    from daemon.http.page.minutes import Minute
    from daemon.http.page.thumbnails import Thumbnails
    from daemon.http.page.work import ChartNote, FailureNote, FinishedStep, StepWork
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport
    from worker_chart_export.charts.chart_img.accounts import AccountState


def report_health(health_report: HealthReport) -> dict[str, Any]:
    """How the process is, part by part."""
    return {"reason": health_report.reason, "parts": dict(health_report.parts)}


def report_drain(drain: Drain, *, limit_seconds: float) -> dict[str, Any]:
    """Whether it stops, and how long that may take."""
    return {
        "isDraining": drain.is_draining,
        "seconds": drain.draining_seconds(),
        "limitSeconds": limit_seconds,
    }


def report_seen(seen: Seen, thumbnails: Thumbnails) -> dict[str, Any]:
    """The steps, and the counts of the last hour."""
    return {
        "running": [_running(work) for work in seen.running],
        "finished": [_finished(step, thumbnails) for step in seen.finished],
        "minutes": _minutes(seen.minutes),
    }


def report_accounts(
    states: Iterable[AccountState], *, monotonic: float, day_ends: float
) -> list[dict[str, Any]]:
    """Each Chart-IMG account: what is used of its day, as this worker last saw it, and why it is not used.

    `used` is None until it has looked for the first time.
    """
    quota = metrics.quota_seen()
    return [
        {
            "id": state.account.account_id,
            "used": quota[state.account.account_id].used,
            "limit": quota[state.account.account_id].limit,
            "resetsAt": day_ends,
            "isDisabled": state.disabled is not None,
            "whyNot": state.why_unusable(monotonic),
        }
        for state in states
    ]


def _running(work: StepWork) -> dict[str, Any]:
    return {
        "key": work.number,
        "runId": work.run_id,
        "stepId": work.step_id,
        "attempt": work.attempt,
        "began": work.began,
        "isRescue": work.is_rescue,
        "stage": work.stage.value,
        "requested": work.requested,
        "stored": work.stored,
        "failed": work.failed,
        "calling": _at(work.doing, Stage.CALL),
        "uploading": _at(work.doing, Stage.UPLOAD),
    }


def _at(doing: Mapping[str, Stage], stage: Stage) -> int:
    return sum(one is stage for one in doing.values())


def _finished(step: FinishedStep, thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "key": step.number,
        "runId": step.run_id,
        "stepId": step.step_id,
        "attempt": step.attempt,
        "result": step.result.value,
        "code": step.code,
        "reason": step.reason,
        "ended": step.ended,
        "seconds": step.seconds,
        "requested": step.requested,
        "manifest": None if step.manifest_uri is None else _link(step.manifest_uri),
        "charts": [_chart(chart, thumbnails) for chart in step.charts],
        "stored": step.stored,
        "failures": [_failure(failure) for failure in step.failures],
        "failed": step.failed,
    }


def _chart(chart: ChartNote, thumbnails: Thumbnails) -> dict[str, Any]:
    number = chart.thumbnail
    return {
        "template": chart.template_id,
        "provider": chart.provider,
        **_link(chart.uri),
        "thumbnail": number if number is not None and thumbnails.has(number) else None,
    }


def _failure(failure: FailureNote) -> dict[str, Any]:
    return {"template": failure.template_id, "code": failure.code, "message": failure.message}


@lru_cache(maxsize=1024)
def _link(uri: str) -> dict[str, str | None]:
    """An object's URI, and where a browser finds it."""
    return {"uri": uri, "href": browser_url(uri, emulator=os.environ.get("STORAGE_EMULATOR_HOST"))}


def _minutes(minutes: Sequence[Minute]) -> dict[str, Any]:
    return {
        "start": minutes[0].index * SECONDS,
        "succeeded": [minute.succeeded for minute in minutes],
        "failed": [minute.failed for minute in minutes],
        "unfinished": [minute.unfinished for minute in minutes],
        "charts": [minute.charts for minute in minutes],
        "failedCharts": [minute.failed_charts for minute in minutes],
    }
