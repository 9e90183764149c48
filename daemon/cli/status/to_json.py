"""Print a report as JSON. The names are stable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from daemon.reports.wording import situation
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from daemon.reports.report import Charts, Problem, RunReport, StepReport


def report_json(report: RunReport) -> str:
    """Return the report as one line of ASCII. Times are RFC 3339 in UTC, and unknown values are null."""
    document = {
        "runId": report.run_id,
        "status": report.status or None,
        "symbol": report.symbol or None,
        "flowKey": report.flow_key or None,
        "readAt": rfc3339(report.read_at),
        "settled": report.is_finished,
        "documentBytes": report.document.now if report.document else None,
        "documentBytesFinished": report.document.finished if report.document else None,
        "steps": [_step(report, step) for step in report.steps],
    }
    return json.dumps(document, default=str)


def _step(report: RunReport, step: StepReport) -> dict[str, Any]:
    return {
        "stepId": step.step_id,
        "stepType": step.step_type or None,
        "timeframe": step.timeframe or None,
        "status": step.status or None,
        "situation": situation(report, step),
        "waitsFor": dict(step.waits_for),
        "startedAt": _time(step.times.started_at),
        "finishedAt": _time(step.times.finished_at),
        "tookSeconds": step.times.took_seconds,
        "timesWrong": step.times.wrong,
        "attempt": step.attempt,
        "owner": step.owner or None,
        "lease": {
            "state": step.holding.hold.value,
            "owner": step.holding.owner,
            "attempt": step.holding.attempt,
            "released": step.holding.released,
            "ageSeconds": step.holding.age_seconds,
            "secondsLeft": step.holding.left_seconds,
        },
        "charts": None if step.charts is None else _charts(step.charts),
        "error": None if step.error is None else _problem(step.error),
        "manifest": step.manifest_uri,
    }


def _charts(charts: Charts) -> dict[str, Any]:
    return {
        "done": charts.done,
        "requested": charts.requested,
        "stored": dict(charts.stored),
        "failures": {name: _problem(problem) for name, problem in charts.failures.items()},
        "unknownBecause": charts.unknown_because,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {"code": problem.code, "message": problem.message, "details": dict(problem.details)}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
