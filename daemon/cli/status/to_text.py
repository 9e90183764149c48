"""A report as plain lines, for pipes and files: one fact a line, nothing wrapped, cut or coloured. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli.status.report import Hold
from daemon.cli.status.wording import (
    attempts,
    chart_count,
    headline,
    instant,
    kind,
    lease_state,
    notes,
    problem_words,
    took,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.cli.status.report import RunReport, StepReport


def report_lines(report: RunReport) -> Iterator[str]:
    """The whole report; a step's further lines are indented."""
    yield f"run {report.run_id}{_named('status', report.status)}{_named('symbol', report.symbol)}" + _named(
        "flow", report.flow_key
    )
    yield f"{headline(report)}; read at {instant(report.read_at)}"
    for step in report.steps:
        lease = lease_state(step.holding)
        yield gist(step) + _named("lease", lease) + _named("time", took(step))
        for note in notes(report, step):
            uri = f" {visible(note.uri)}" if note.uri is not None and note.label != "manifest" else ""
            yield f"  {note.label} {note.words}{uri}"


def gist(step: StepReport) -> str:
    """A step in one line, without what only time changes."""
    charts = _named("charts", chart_count(step.charts))
    attempt = _named("attempt", attempts(step.holding))
    return f"step {visible(step.step_id)}  {kind(step)}  {visible(step.status)}{charts}{attempt}"


def changed_lines(before: RunReport | None, after: RunReport) -> Iterator[str]:
    """What is new since the last look, each line with the server's time."""
    known = {} if before is None else {step.step_id: _news(step) for step in before.steps}
    time = f"{after.read_at:%H:%M:%S}"
    if before is None or before.status != after.status:
        yield f"{time} run {after.run_id}{_named('status', after.status)}"
    for step in after.steps:
        news = _news(step)
        if news != known.get(step.step_id):
            yield f"{time} {news}"


def _news(step: StepReport) -> str:
    hold = step.holding.hold
    owner = step.holding.owner
    lease = "" if hold is Hold.NONE else _named("lease", f"{hold}{f' ({owner})' if owner else ''}")
    error = "" if step.error is None else _named("error", problem_words(step.error))
    return gist(step) + lease + error


def _named(name: str, words: str) -> str:
    return f"  {name} {visible(words)}" if words else ""
