"""Describe the facts of a report in plain text, for tables, lines and JSON. Pure.

Ids, messages and owners come from other programs. `visible` makes them safe to print.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from daemon.reports.report import MAX_DOCUMENT_BYTES, Hold
from worker_chart_export.errors import visible
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease import UNKNOWN_OWNER
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from daemon.reports.report import Charts, Holding, Problem, RunReport, StepReport, Times

KIB = 1024
MAX_DETAILS_CHARS = 400
#: Details of errors that have their own place in a report.
SHOWN_ELSEWHERE = {"manifestGcsUri", "attempt", "owner"}
#: If a lease expired longer ago than this, several rescues did not take the step over.
UNRESCUED_SECONDS = 300.0
HOLD_TEXTS = {
    Hold.NONE: "",
    Hold.LIVE: "live",
    Hold.EXPIRED: "expired",
    Hold.RELEASED: "released",
    Hold.UNLEASED: "none",
    Hold.LEFT_OVER: "left over",
    Hold.RETRY: "retry",
}


class Note(NamedTuple):
    """A text about a step, with a label; `uri` is the object that the text names, if any."""

    label: str
    text: str
    uri: str | None = None


def plural(count: int, noun: str) -> str:
    """Return the count with its noun: `1 chart`, `2 charts`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def command_line(command: str, *arguments: str) -> str:
    """Return a command of the command line, quoted for a POSIX shell. An id may begin with a hyphen."""
    end_of_options = ["--"] if any(argument.startswith("-") for argument in arguments) else []
    return shlex.join(["worker-chart-export", command, *end_of_options, *arguments])


def instant(moment: datetime) -> str:
    """Format a date with its time, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def headline(report: RunReport) -> str:
    """Count the chart steps by status: `5 chart steps: 2 SUCCEEDED, 1 RUNNING, 2 READY`."""
    counts = Counter(step.status for step in report.chart_steps)
    order = [*StepStatus, *sorted(set(counts) - set(StepStatus))]
    by_status = ", ".join(f"{counts[status]} {visible(status)}" for status in order if status in counts)
    return plural(len(report.chart_steps), "chart step") + (f": {by_status}" if by_status else "")


def document_warning(report: RunReport) -> str:
    """Say that the run document has no room for all results; empty if it has, or if that is not known."""
    size = report.document
    if size is None or not size.exceeds_limit:
        return ""
    now, finished, limit = (ceil(count / KIB) for count in (size.now, size.finished, MAX_DOCUMENT_BYTES))
    return (
        f"the run document has about {now:,} of {limit:,} KiB, and may have no room for the results of all "
        f"steps, which make it about {finished:,} KiB: store fewer steps in a run"
    )


def kind(step: StepReport) -> str:
    """Return the step's type and timeframe."""
    return visible(" ".join(filter(None, (step.step_type, step.timeframe))))


def chart_count(charts: Charts | None) -> str:
    """Return stored and requested charts, for example `3/5`; `?` if a number is not known."""
    if charts is None:
        return ""
    return "/".join("?" if count is None else str(count) for count in (charts.done, charts.requested))


def attempts(attempt: int | None, released: int | None) -> str:
    """Return the number of the attempt and of released ones, for example `3 (1 released)`."""
    if attempt is None:
        return ""
    return f"{attempt}" + (f" ({released} released)" if released else "")


def took(step: StepReport) -> str:
    """Return the step's duration, so far if it is RUNNING; `?` if its times are impossible."""
    if step.times.took_seconds is None:
        return "?" if step.times.wrong is not None else ""
    return span(step.times.took_seconds)


def lease_state(holding: Holding) -> str:
    """Return the state of the lease: `45 s left`, `expired 2 min ago`, `released`."""
    left_seconds = holding.left_seconds
    if holding.hold is Hold.LIVE:
        return f"{span(left_seconds or 0, units=1)} left"
    if holding.hold is Hold.EXPIRED and left_seconds is not None:
        return f"expired {span(-left_seconds, units=1)} ago"
    return HOLD_TEXTS[holding.hold]


def situation(report: RunReport, step: StepReport) -> str | None:
    """Say what happens with a step now, and what happens next; None if there is nothing to say."""
    if step.invalid_because is not None:
        return f"can't be read: {visible(step.invalid_because)}"
    if step.status == StepStatus.RUNNING:
        return _running_situation(report, step)
    texts = [] if step.charts is None or step.is_final else [_waiting_situation(report, step)]
    owner = visible(step.holding.owner)
    if step.holding.hold is Hold.RETRY:
        texts.append(f"{owner} has made it READY again")
    elif step.holding.hold is Hold.LEFT_OVER:
        texts.append(f"a lease of {owner} is left over and has no effect; the daemon's rescue deletes it")
    return "; ".join(texts) or None


def _waiting_situation(report: RunReport, step: StepReport) -> str:
    if report.is_final:
        return f"will not be exported: the run is {report.status}"
    if step.waits_for:
        names = (f"{visible(name)} ({visible(status)})" for name, status in step.waits_for.items())
        return f"waits for {', '.join(names)}"
    if step.status == StepStatus.READY:
        return "waits for a worker to claim it"
    return "waits for the orchestrator to make it READY"


def _running_situation(report: RunReport, step: StepReport) -> str | None:
    holding = step.holding
    owner, attempt = visible(holding.owner), f"attempt {attempts(holding.attempt, holding.released)}"
    match holding.hold:
        case Hold.LIVE:
            left = span(holding.left_seconds or 0)
            if holding.owner == UNKNOWN_OWNER:
                return f"held by a worker that uses no lease; may be taken over in {left}"
            age, since = holding.age_seconds, ""
            if age is not None:
                since = f" for {span(age)}" if age >= 0 else " since a future time (a clock was wrong)"
            return f"held by {owner}{since}, {attempt}; the lease expires in {left} unless it is renewed"
        case Hold.EXPIRED:
            return f"not held: the lease of {owner}, {attempt}, has expired; {_take_over(holding)}"
        case Hold.RELEASED:
            return f"not held: released by {owner}, {attempt}; {_take_over(holding)}"
        case Hold.UNLEASED:
            return _unleased_situation(report, step)
        case Hold.NONE | Hold.LEFT_OVER | Hold.RETRY:
            return None


def _unleased_situation(report: RunReport, step: StepReport) -> str:
    grace = report.unleased_grace_seconds
    if grace == 0:
        return "not held: it is RUNNING without a lease, and UNLEASED_GRACE_SECONDS (0) forbids a take-over"
    value = "" if grace is None else f" ({grace:g})"
    publish = command_line("publish", report.run_id, step.step_id)
    return (
        "not held: it is RUNNING without a lease. When a daemon gets a message for it, it is taken over "
        f"UNLEASED_GRACE_SECONDS{value} later. To send the message: {visible(publish)}"
    )


def _take_over(holding: Holding) -> str:
    """Say when the step is taken over, if at all."""
    left_seconds = holding.left_seconds
    if left_seconds is not None and left_seconds > 0:
        return f"may be taken over in {span(left_seconds)}"
    if left_seconds is None or left_seconds < -UNRESCUED_SECONDS:
        return (
            "no daemon has taken it over. Check that a daemon is running, and that the index in "
            "deploy/firestore.indexes.json is deployed"
        )
    return "the rescue of a running daemon takes it over, by default within about a minute"


def notes(report: RunReport, step: StepReport) -> list[Note]:
    """Return all texts about a step that do not fit into a row of the table."""
    found = []
    if text := situation(report, step):
        found.append(Note("now", text))
    if step.error is not None:
        found.append(Note("error", describe_problem(step.error)))
    if step.charts is not None:
        failures = step.charts.failures.items()
        found += [Note("failed", f"{visible(name)} {describe_problem(why)}") for name, why in failures]
        if step.charts.unknown_because is not None:
            found.append(Note("charts", f"not known: {visible(step.charts.unknown_because)}"))
    if text := _describe_times(step.times):
        found.append(Note("time", text))
    if step.owner and step.is_final:
        found.append(Note("worker", visible(step.owner)))
    if step.manifest_uri is not None:
        found.append(Note("manifest", visible(step.manifest_uri), step.manifest_uri))
    stored = step.charts.stored.items() if step.charts else ()
    return [*found, *(Note("chart", visible(name), uri) for name, uri in stored)]


def describe_problem(problem: Problem) -> str:
    """Return code, message and details; long details are cut."""
    details = {name: value for name, value in problem.details.items() if name not in SHOWN_ELSEWHERE}
    text = f"{visible(problem.code)}: {visible(problem.message)}"
    if not details:
        return text
    dumped = json.dumps(details, ensure_ascii=False, default=str)
    cut = dumped if len(dumped) <= MAX_DETAILS_CHARS else dumped[: MAX_DETAILS_CHARS - 1] + "…"
    return f"{text} {visible(cut)}"


def _describe_times(times: Times) -> str:
    texts = []
    if times.started_at is not None:
        texts.append(f"started {instant(times.started_at)}")
    if times.finished_at is not None:
        texts.append(f"finished {instant(times.finished_at)}")
    if times.took_seconds is not None and times.finished_at is not None:
        texts.append(f"took {span(times.took_seconds)}")
    if times.wrong is not None:
        texts.append(visible(times.wrong))
    return ", ".join(texts)
