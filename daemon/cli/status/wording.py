"""The report's facts in words, for a person and for a pipe. Pure.

Ids, messages and owners come from outside: `visible` shows them as text, whatever is in them.
"""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from daemon.cli.status.report import Hold
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease.lease import UNKNOWN_OWNER

if TYPE_CHECKING:
    from daemon.cli.status.report import Charts, Holding, Problem, RunReport, StepReport, Times

MAX_DETAILS_CHARS = 400
#: A lease over for longer than this was passed over by several rescues.
UNRESCUED_SECONDS = 300.0
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class Note(NamedTuple):
    """One more thing to say about a step; `uri` is what the words stand for, when it is an object."""

    label: str
    words: str
    uri: str | None = None


def visible(text: object) -> str:
    """Text with everything that a terminal would act on, or not show, written as an escape."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in str(text)
    )


def span(seconds: float, *, units: int = 2) -> str:
    """A length of time in its largest units: `44 s`, `1 min 5 s`, `2 h`; nothing is shorter than `0 s`."""
    rest, words = max(int(seconds), 0), []
    for size, unit in UNITS:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {unit}")
        if words and (len(words) == units or not rest):
            return " ".join(words)
    return "0 s"


def instant(moment: datetime) -> str:
    """A time of day with its date, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def headline(report: RunReport) -> str:
    """What the chart steps came to: `5 chart steps: 2 SUCCEEDED, 1 RUNNING, 2 READY`."""
    steps = report.chart_steps
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.status] = counts.get(step.status, 0) + 1
    order = [*StepStatus, *sorted(set(counts) - set(StepStatus))]
    words = ", ".join(f"{counts[status]} {visible(status)}" for status in order if status in counts)
    return f"{len(steps)} chart step{'' if len(steps) == 1 else 's'}{': ' if words else ''}{words}"


def kind(step: StepReport) -> str:
    """A step's type and timeframe."""
    return visible(" ".join(word for word in (step.step_type, step.timeframe) if word))


def chart_count(charts: Charts | None) -> str:
    """`3/5`: stored and requested; a question mark for what is not known."""
    if charts is None:
        return ""
    done, requested = ("?" if count is None else str(count) for count in (charts.done, charts.requested))
    return f"{done}/{requested}"


def attempts(holding: Holding) -> str:
    """`3 (1 released)`."""
    if holding.attempt is None:
        return ""
    return f"{holding.attempt}" + (f" ({holding.released} released)" if holding.released else "")


def took(step: StepReport) -> str:
    """How long the step has taken so far, or took; a question mark if that can't be."""
    if step.times.took_seconds is None:
        return "?" if step.times.wrong is not None else ""
    return span(step.times.took_seconds)


def lease_state(holding: Holding) -> str:
    """The lease in a few words."""
    left = holding.left_seconds
    match holding.hold:
        case Hold.LIVE:
            return f"{span(left or 0, units=1)} left"
        case Hold.OVER:
            return "over" if left is None else f"over for {span(-left, units=1)}"
        case Hold.RELEASED:
            return "given back"
        case Hold.UNLEASED:
            return "none"
        case Hold.LEFT_OVER:
            return "left over"
        case Hold.NONE:
            return ""


def situation(report: RunReport, step: StepReport) -> str | None:
    """What is going on with a step, and what will happen next by itself; None if there is nothing to say."""
    if step.invalid_because is not None:
        return f"can't be read: {visible(step.invalid_because)}"
    if step.status == StepStatus.RUNNING:
        return _who_has_it(report, step)
    words = [_waits_for(report, step)] if step.charts is not None and not step.is_final else []
    if step.holding.hold is Hold.LEFT_OVER:
        owner = visible(step.holding.owner)
        words.append(f"a lease of {owner} is left over, without effect; a daemon's rescue deletes it")
    return "; ".join(words) or None


def _waits_for(report: RunReport, step: StepReport) -> str:
    if report.is_final:
        return f"will not be worked: the run is {report.status}"
    if step.waits_for:
        names = ", ".join(f"{visible(name)} ({visible(status)})" for name, status in step.waits_for.items())
        return f"waits for {names}"
    if step.status == StepStatus.READY:
        return "waits for a worker to claim it"
    return "waits for the orchestrator to make it READY"


def _who_has_it(report: RunReport, step: StepReport) -> str | None:
    owner = f"{visible(step.holding.owner)}, attempt {attempts(step.holding)},"
    match step.holding.hold:
        case Hold.LIVE:
            return _held(step.holding)
        case Hold.OVER:
            return f"nobody holds it: the lease of {owner} is over; {_rescue(step.holding)}"
        case Hold.RELEASED:
            return f"nobody holds it: {owner} gave it back; {_rescue(step.holding)}"
        case Hold.UNLEASED:
            message = shlex.join(["worker-chart-export", "publish", report.run_id, step.step_id])
            return (
                "nobody holds it: it is RUNNING without a lease. A daemon that gets a message for it adopts "
                "it, and it is taken over UNLEASED_GRACE_SECONDS (3600) later. To send the message: "
                f"{visible(message)}"
            )
        case Hold.NONE | Hold.LEFT_OVER:
            return None


def _held(holding: Holding) -> str:
    left = span(holding.left_seconds or 0)
    if holding.owner == UNKNOWN_OWNER:
        return f"run by a worker that keeps no lease; may be taken over in {left}"
    since = "" if holding.age_seconds is None else f" {_since(holding.age_seconds)}"
    attempt = f"attempt {attempts(holding)}"
    return f"held by {visible(holding.owner)}{since}, {attempt}; the lease ends in {left} unless renewed"


def _since(age_seconds: float) -> str:
    return f"for {span(age_seconds)}" if age_seconds >= 0 else "since a time to come (a clock was wrong)"


def _rescue(holding: Holding) -> str:
    left_seconds = holding.left_seconds
    if left_seconds is not None and left_seconds > 0:
        return f"it may be taken over in {span(left_seconds)}"
    if left_seconds is None or left_seconds < -UNRESCUED_SECONDS:
        return (
            "no daemon has rescued it. Is one running, and is the index of deploy/firestore.indexes.json "
            "there?"
        )
    return "the rescue of a running daemon takes it over, by default within about a minute"


def notes(report: RunReport, step: StepReport) -> list[Note]:
    """Everything about a step that does not fit into a row."""
    found = []
    if words := situation(report, step):
        found.append(Note("now", words))
    if step.error is not None:
        found.append(Note("error", problem_words(step.error)))
    if step.charts is not None:
        failures = step.charts.failures.items()
        found += [Note("failed", f"{visible(name)} {problem_words(why)}") for name, why in failures]
        if step.charts.unknown_because is not None:
            found.append(Note("charts", f"not known: {visible(step.charts.unknown_because)}"))
    if words := _times(step.times):
        found.append(Note("time", words))
    if step.manifest_uri is not None:
        found.append(Note("manifest", visible(step.manifest_uri), step.manifest_uri))
    stored = step.charts.stored.items() if step.charts else ()
    return [*found, *(Note("chart", visible(name), uri) for name, uri in stored)]


def problem_words(problem: Problem) -> str:
    """Code, message, and what the details say beyond them."""
    details = {name: value for name, value in problem.details.items() if name != "manifestGcsUri"}
    words = f"{visible(problem.code)}: {visible(problem.message)}"
    if not details:
        return words
    text = json.dumps(details, ensure_ascii=False, default=str)
    cut = text if len(text) <= MAX_DETAILS_CHARS else text[: MAX_DETAILS_CHARS - 1] + "…"
    return f"{words} {visible(cut)}"


def _times(times: Times) -> str:
    words = []
    if times.started_at is not None:
        words.append(f"started {instant(times.started_at)}")
    if times.finished_at is not None:
        words.append(f"finished {instant(times.finished_at)}")
    if times.took_seconds is not None and times.finished_at is not None:
        words.append(f"took {span(times.took_seconds)}")
    if times.wrong is not None:
        words.append(visible(times.wrong))
    return ", ".join(words)
