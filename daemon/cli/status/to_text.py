"""Print a report as plain lines for pipes and files: no colours, nothing wrapped, nothing cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.reports.wording import (
    HOLD_TEXTS,
    attempts,
    chart_count,
    describe_problem,
    document_warning,
    headline,
    instant,
    kind,
    lease_state,
    notes,
    took,
)
from worker_chart_export.errors import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.reports.report import RunReport, StepReport


def report_lines(report: RunReport) -> Iterator[str]:
    """Yield the lines of the whole report. A step's further lines are indented."""
    yield _run_line(report) + _named("symbol", report.symbol) + _named("flow", report.flow_key)
    yield f"{headline(report)}; read at {instant(report.read_at)}"
    if warning := document_warning(report):
        yield warning
    for step in report.steps:
        yield _step_line(step) + _named("lease", lease_state(step.holding)) + _named("time", took(step))
        for note in notes(report, step):
            uri = f" {visible(note.uri)}" if note.uri is not None and note.label != "manifest" else ""
            yield f"  {note.label} {note.text}{uri}"


def changed_lines(before: RunReport | None, after: RunReport) -> Iterator[str]:
    """Yield a line for each change since the report before, with the server's time."""
    known = {} if before is None else {step.step_id: _state_line(step) for step in before.steps}
    time = f"{after.read_at:%H:%M:%S}"
    if before is None or before.status != after.status:
        yield f"{time} {_run_line(after)}"
    for step in after.steps:
        line = _state_line(step)
        if line != known.get(step.step_id):
            yield f"{time} {line}"


def _run_line(report: RunReport) -> str:
    return f"run {report.run_id}{_named('status', report.status)}"


def _step_line(step: StepReport) -> str:
    charts = _named("charts", chart_count(step.charts))
    attempt = _named("attempt", attempts(step.attempt, step.holding.released))
    return f"step {visible(step.step_id)}  {kind(step)}  {visible(step.status)}{charts}{attempt}"


def _state_line(step: StepReport) -> str:
    """Return the step's line without the durations, which change all the time."""
    hold, owner = HOLD_TEXTS[step.holding.hold], step.holding.owner
    lease = _named("lease", f"{hold} ({owner})" if owner else hold)
    error = "" if step.error is None else _named("error", describe_problem(step.error))
    return _step_line(step) + lease + error


def _named(name: str, text: str) -> str:
    return f"  {name} {visible(text)}" if text else ""
