"""The objects of the report: steps, messages and minutes as the page gets them. Pure.

Each step and message has the commands to copy, by the word that names them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from daemon.http.page.activity import SECONDS_PER_MINUTE, Result
from daemon.http.page.messages import Fate
from daemon.reports.wording import command_line
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.observability.observers import Stage
from worker_chart_export.outputs.links import browser_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.http.page.activity import ChartNote, FinishedStep, Minute, StepWork
    from daemon.http.page.messages import MessageNote
    from daemon.http.page.thumbnails import Thumbnails
    from daemon.reports.steps import ListedStep
    from worker_chart_export.ledger.lease import HeldLease


def running(work: StepWork, correction: float) -> dict[str, Any]:
    """Return a step in flight, without its lease."""
    stages = list(work.doing.values())
    return {
        "key": work.number,
        "runId": work.run_id,
        "stepId": work.step_id,
        "symbol": work.symbol,
        "attempt": work.attempt,
        "began": work.began + correction,
        "isRescue": work.is_rescue,
        "stage": work.stage.value,
        "requested": work.requested,
        "stored": work.stored,
        "failed": work.failed,
        "calling": stages.count(Stage.CALL),
        "uploading": stages.count(Stage.UPLOAD),
        "commands": _commands(work.run_id, work.step_id),
    }


def lease(held: HeldLease | None, *, now: float) -> dict[str, Any]:
    """Return owner and end of a step's lease. A step has none before its claim and after its end."""
    if held is None:
        return {"owner": None, "leaseEnds": None}
    left = held.lease.expires_at - held.server_time()
    return {"owner": held.lease.owner, "leaseEnds": now + left.total_seconds()}


def finished(step: FinishedStep, thumbnails: Thumbnails, correction: float) -> dict[str, Any]:
    """Return a finished step."""
    return {
        "key": step.number,
        "runId": step.run_id,
        "stepId": step.step_id,
        "symbol": step.symbol,
        "attempt": step.attempt,
        "result": step.result.value,
        "code": step.code,
        "reason": step.reason,
        "ended": step.ended + correction,
        "seconds": step.seconds,
        "requested": step.requested,
        "manifest": None if step.manifest_uri is None else _link(step.manifest_uri),
        "charts": [_chart(chart, thumbnails) for chart in step.charts],
        "stored": step.stored,
        "failures": [
            {"template": failure.template_id, "code": failure.code, "message": failure.message}
            for failure in step.failures
        ],
        "failed": step.failed,
        "commands": _commands(step.run_id, step.step_id, can_retry=step.result is Result.FAILED),
    }


def listed(row: ListedStep) -> dict[str, Any]:
    """Return a step of the history: the object of `steps --output json`, and what the page needs beside."""
    run_id, step_id, manifest_uri = row.run.run_id, row.step.step_id, row.manifest_uri
    return row.to_dict() | {
        "key": f"{run_id} {step_id}",
        "ended": None if row.since is None else row.since.timestamp(),
        "manifest": None if manifest_uri is None else _link(manifest_uri),
        "commands": _commands(run_id, step_id, can_retry=row.step.status == StepStatus.FAILED),
    }


def message(note: MessageNote, correction: float, *, has_quarantine: bool) -> dict[str, Any]:
    """Return a message that was rejected or deferred."""
    commands = _commands(note.run_id, note.step_id) if note.run_id else {}
    quarantine = command_line("quarantine", "list")
    if note.fate is Fate.REJECTED and note.disposition == "nack":
        commands["quarantine"] = f"{quarantine} --dead-letter"
    elif note.fate is Fate.REJECTED and has_quarantine:
        commands["quarantine"] = f"{quarantine} --reason {note.reason}"
    return {
        "key": f"{note.fate.value} {note.message_id}",
        "messageId": note.message_id,
        "runId": note.run_id,
        "stepId": note.step_id,
        "fate": note.fate.value,
        "reason": note.reason,
        "detail": note.detail,
        "deliveries": note.deliveries,
        "at": note.at + correction,
        "againAt": None if note.again_at is None else note.again_at + correction,
        "commands": commands,
    }


def minutes(counts: Sequence[Minute], correction: float) -> dict[str, Any]:
    """Return the counts of each minute, the current one last."""
    return {
        "start": (counts[0].index + round(correction / SECONDS_PER_MINUTE)) * SECONDS_PER_MINUTE,
        "succeeded": [minute.succeeded for minute in counts],
        "failed": [minute.failed for minute in counts],
        "unfinished": [minute.unfinished for minute in counts],
        "charts": [minute.charts for minute in counts],
        "failedCharts": [minute.failed_charts for minute in counts],
    }


def _chart(chart: ChartNote, thumbnails: Thumbnails) -> dict[str, Any]:
    number = chart.thumbnail
    return {
        "template": chart.template_id,
        "provider": chart.provider,
        **_link(chart.uri),
        "thumbnail": number if number is not None and thumbnails.has(number) else None,
    }


def _commands(run_id: str, step_id: str, *, can_retry: bool = False) -> dict[str, str]:
    retry = {"retry": command_line("retry", run_id, step_id)} if can_retry else {}
    return {"status": command_line("status", run_id)} | retry


@lru_cache(maxsize=1024)
def _link(uri: str) -> dict[str, str | None]:
    """Return the URI of an object, and its URL for a browser."""
    return {"uri": uri, "href": browser_url(uri, emulator=os.environ.get("STORAGE_EMULATOR_HOST"))}
