"""The demo's live view: steps, charts and the daemon's latest events, as the log lines tell them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from daemon.cli.demo.progress import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from daemon.cli.demo.scenario import DemoStep

SHOWN_EVENTS = 8
COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "yellow", "READY": "dim"}


class LiveView:
    """Follows the daemon's events; `rich` renders it again and again.

    Args:
        steps: The demo's chart steps.

    Attributes:
        journal: What happened; to be read once the daemon has ended.
    """

    def __init__(self, steps: Sequence[DemoStep]) -> None:
        self.journal = Journal.of(steps)
        self._events: deque[Text] = deque(maxlen=SHOWN_EVENTS)
        self._exit_code: int | None = None
        self._changed = threading.Condition()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take one log line of the daemon."""
        with self._changed:
            self.journal.note(event)
            self._events.append(_line(event))
            self._changed.notify_all()

    def on_end(self, exit_code: int) -> None:
        """Take it that the daemon has ended: no more lines will come."""
        with self._changed:
            self._exit_code = exit_code
            self._changed.notify_all()

    def obituary(self) -> str:
        """How the daemon ended and what it said last; empty while it lives."""
        with self._changed:
            if self._exit_code is None:
                return ""
            lines = [f"The daemon ended with exit code {self._exit_code}. Its last lines:"]
            return "\n  ".join(lines + [line.plain for line in self._events])

    def wait_until_done(self, *, messages: int, timeout_seconds: float) -> bool:
        """Wait until every step has ended and so many messages are settled, or the daemon has ended.

        Returns:
            Whether every step has ended.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._exit_code is not None or self._is_over(messages), timeout_seconds
            )
            return self.journal.all_done

    def _is_over(self, messages: int) -> bool:
        return self.journal.all_done and self.journal.settled.total() >= messages

    def __rich__(self) -> RenderableType:
        with self._changed:
            events = Group(*self._events) if self._events else Text("waiting for the daemon", style="dim")
            return Group(self._steps_table(), Panel(events, title="daemon events", height=SHOWN_EVENTS + 2))

    def _steps_table(self) -> Table:
        table = Table(title="chart steps")
        for heading in ("step", "status", "charts", "", "seconds"):
            table.add_column(heading, no_wrap=True, justify="right" if heading == "seconds" else "left")
        for progress in self.journal.progress.values():
            requested = progress.step.requested
            table.add_row(
                f"{progress.step.symbol} {progress.step.timeframe}",
                Text(progress.status, style=COLOURS.get(progress.status, "")),
                f"{progress.charts}/{requested}",
                ProgressBar(total=requested, completed=progress.charts, width=20),
                "" if progress.seconds is None else f"{progress.seconds:.2f}",
            )
        return table


def _line(event: Mapping[str, Any]) -> Text:
    name = str(event.get("event"))
    run, step = str(event.get("runId") or ""), str(event.get("stepId") or "")
    where = f"{run.split('_')[1]} {step.split(':')[1]}" if run and step else ""
    what = event.get("chartTemplateId") or event.get("message", "")
    line = Text(f"{name:<17} {where:<8} {what}", no_wrap=True, overflow="ellipsis")
    if event.get("severity") in {"ERROR", "WARNING"}:
        line.stylize("red")
    return line
