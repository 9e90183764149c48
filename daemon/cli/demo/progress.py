"""The progress of the demo, counted from the daemon's log lines, and its live view."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daemon.cli.status.terminal import COLOURS
from worker_chart_export.observability.logs import Event
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from daemon.cli.demo.scenario import DemoStep

SHOWN_EVENTS = 8


@dataclass(slots=True)
class StepProgress:
    """The progress of one step.

    Attributes:
        attempt: The number of its last claim; None before the first.
        claimed: The monotonic clock at its last claim.
        seconds: The duration from claim to end, as the daemon measured it; None before the end.
    """

    step: DemoStep
    status: str = "READY"
    charts: int = 0
    attempt: int | None = None
    claimed: float | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Progress:
    """The progress of the demo. Not thread-safe.

    Attributes:
        steps: (run id, step id) -> the step's progress.
        events: Event -> how often it was logged.
        claims: How many claims succeeded.
        settled: Disposition (`ack`, `nack`, `defer`) -> number of messages.
    """

    steps: dict[tuple[str, str], StepProgress]
    events: Counter[str] = field(default_factory=Counter)
    claims: int = 0
    settled: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, steps: Sequence[DemoStep]) -> Progress:
        """Return the progress of these steps before the daemon has started."""
        return cls(steps={(step.run_id, step.step_id): StepProgress(step) for step in steps})

    def record(self, event: Mapping[str, Any]) -> None:
        """Count one log line."""
        name = str(event.get("event"))
        self.events[name] += 1
        if name == Event.MESSAGE_SETTLED:
            self.settled[str(event.get("disposition"))] += 1
        step = self.steps.get((event.get("runId", ""), event.get("stepId", "")))
        if step is None:
            return
        match name:
            case Event.CLAIM_ATTEMPT if event.get("claimed"):
                self.claims += 1
                step.status, step.claimed = "RUNNING", time.monotonic()
            case Event.CHART_STORED | Event.CHART_REUSED:
                step.charts += 1
                step.attempt = event.get("attempt", step.attempt)
            case Event.STEP_COMPLETED:
                step.status = str(event.get("status"))
                step.attempt = event.get("attempt", step.attempt)
                step.charts = int(event.get("items", step.charts))
                # A step that was failed instead of taken over has no duration in the log.
                since_claim = time.monotonic() - (step.claimed or time.monotonic())
                milliseconds = event.get("durationMs")
                step.seconds = milliseconds / 1000 if isinstance(milliseconds, int) else since_claim
            case _:
                pass

    @property
    def is_done(self) -> bool:
        """Whether every step has ended."""
        return all(step.seconds is not None for step in self.steps.values())


class ProgressView:
    """Shows steps, charts and the daemon's last events in a `rich.live.Live` display. Thread-safe.

    Args:
        steps: The demo's chart steps.

    Attributes:
        progress: The progress; read it after the daemon has ended.
    """

    def __init__(self, steps: Sequence[DemoStep]) -> None:
        self.progress = Progress.of(steps)
        self._events: deque[Text] = deque(maxlen=SHOWN_EVENTS)
        self._exit_code: int | None = None
        self._changed = threading.Condition()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Record one log line of the daemon."""
        with self._changed:
            self.progress.record(event)
            self._events.append(_event_line(event))
            self._changed.notify_all()

    def on_end(self, exit_code: int) -> None:
        """Record that the daemon has ended."""
        with self._changed:
            self._exit_code = exit_code
            self._changed.notify_all()

    def describe_end(self) -> str:
        """Return how the daemon ended, with its last lines; empty while it runs."""
        with self._changed:
            if self._exit_code is None:
                return ""
            lines = [f"The daemon ended with exit code {self._exit_code}. Its last lines:"]
            return "\n  ".join(lines + [line.plain for line in self._events])

    def wait_until_done(self, *, messages: int, timeout_seconds: float) -> None:
        """Wait until every step has ended and all messages are settled, or the daemon has ended."""

        def is_done() -> bool:
            return self.progress.is_done and self.progress.settled.total() >= messages

        with self._changed:
            self._changed.wait_for(lambda: self._exit_code is not None or is_done(), timeout_seconds)

    def __rich__(self) -> RenderableType:
        table = Table(title="chart steps")
        for heading in ("step", "status", "charts", "", "time"):
            table.add_column(heading, no_wrap=True, justify="right" if heading == "time" else "left")
        with self._changed:
            for progress in self.progress.steps.values():
                requested = progress.step.requested
                table.add_row(
                    progress.step.title,
                    Text(progress.status, style=COLOURS.get(progress.status, "")),
                    f"{progress.charts}/{requested}",
                    ProgressBar(total=requested, completed=progress.charts, width=20),
                    "" if progress.seconds is None else span(progress.seconds),
                )
            events = Group(*self._events) if self._events else Text("waiting for the daemon", style="dim")
            return Group(table, Panel(events, title="daemon events", height=SHOWN_EVENTS + 2))


def _event_line(event: Mapping[str, Any]) -> Text:
    name, run, step = (str(event.get(key) or "") for key in ("event", "runId", "stepId"))
    title = f"{run.split('_')[1]} {step.split(':')[1]}" if run and step else ""
    what = event.get("chartTemplateId") or event.get("message", "")
    line = Text(f"{name:<17} {title:<8} {what}", no_wrap=True, overflow="ellipsis")
    if event.get("severity") in {"ERROR", "WARNING"}:
        line.stylize("red")
    return line
