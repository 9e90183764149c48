"""Show a report on a terminal: a table of all steps, and below it the texts that do not fit into a row.

`docs/decisions/0002-terminal-tables.md` explains which cutting is ours and which is rich's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from daemon.reports.report import Hold
from daemon.reports.wording import (
    chart_count,
    document_warning,
    headline,
    instant,
    kind,
    lease_state,
    notes,
    took,
)
from worker_chart_export.errors import visible
from worker_chart_export.outputs.links import browser_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

    from daemon.reports.report import RunReport, StepReport

COLOURS = {
    "SUCCEEDED": "green",
    "FAILED": "bold red",
    "RUNNING": "yellow",
    "READY": "cyan",
    "PENDING": "dim",
    "SKIPPED": "dim",
    "CANCELLED": "magenta",
}
NOTE_COLOURS = {"error": "red", "failed": "red"}
#: RUNNING steps that no worker holds: a person may have to act.
NOT_HELD = {Hold.EXPIRED, Hold.UNLEASED}
#: If not all steps fit, the first ones of this order stay.
URGENCY = ("FAILED", "RUNNING", "READY", "PENDING", "CANCELLED", "SKIPPED", "SUCCEEDED")
#: The lines of a live view that are no steps: title (3), warning, table frame (4), number of hidden steps.
OTHER_LINES = 9


class FullView:
    """The whole report, however long.

    Args:
        report: The report to show.
        storage_emulator: The address that links lead to; None means Google's own Cloud Storage.
    """

    def __init__(self, report: RunReport, *, storage_emulator: str | None = None) -> None:
        self._report = report
        self._emulator = storage_emulator

    def __rich__(self) -> RenderableType:
        steps = self._report.steps
        blocks = [notes_block(self._report, step, self._emulator) for step in steps]
        return Group(title(self._report), steps_table(steps), *(block for block in blocks if block))


class LiveView:
    """The report for a `rich.live.Live` display, with the most urgent parts first.

    `Live` cuts off what is taller than the terminal. If not all steps fit, this view chooses the most urgent
    ones, one line each. So it never draws a thousand steps every second.

    Args:
        report: The report to show.
        warning: A line above the table.
        storage_emulator: As for `FullView`.
    """

    def __init__(self, report: RunReport, warning: str = "", *, storage_emulator: str | None = None) -> None:
        self._report = report
        self._warning = warning
        self._emulator = storage_emulator

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        del options
        steps = self._report.steps
        room = max(console.height - OTHER_LINES - bool(document_warning(self._report)), 1)
        ranks = {status: rank for rank, status in enumerate(URGENCY)}
        urgent = sorted(steps, key=lambda step: (step.charts is None, ranks.get(step.status, 0)))
        shown = steps if len(steps) <= room else urgent[:room]
        yield title(self._report)
        if self._warning:
            yield Text(visible(self._warning), style="bold red")
        yield steps_table(shown, compact=2 * len(steps) > room)
        if len(steps) > len(shown):
            yield Text(f"{len(steps) - len(shown)} more steps do not fit on this terminal", style="dim")
            return
        for step in urgent:
            block = notes_block(self._report, step, self._emulator) if step.charts is not None else None
            if block is not None:
                yield block


def title(report: RunReport) -> Text:
    """Return the lines above the table: the run, its status and the number of chart steps by status."""
    text = Text(report.run_id, style="bold")
    text.append(f"  {report.status}", style=COLOURS.get(report.status, ""))
    named = (("symbol", report.symbol), ("flow", report.flow_key))
    facts = [f"{name} {visible(value)}" for name, value in named if value]
    for line in (", ".join([*facts, f"read at {instant(report.read_at)}"]), headline(report)):
        text.append(f"\n{line}", style="not bold")
    if warning := document_warning(report):
        text.append(f"\n{warning}", style="bold red")
    return text


def steps_table(steps: Collection[StepReport], *, compact: bool = False) -> Table:
    """Return a table with a row per step, whose type and timeframe stand below the id.

    In a compact table each row is one line: without type and timeframe, and cut at the terminal's width.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("step", "status", "charts", "attempt", "time", "lease"):
        table.add_column(heading, overflow="ellipsis" if compact else "fold", no_wrap=compact)
    for step in steps:
        cell = Text(visible(step.step_id), style="" if step.charts is not None else "dim")
        if kind(step) and not compact:
            cell.append(f"\n{kind(step)}", style="dim")
        table.add_row(
            cell,
            Text(visible(step.status) or "none", style=COLOURS.get(step.status, "bold red")),
            Text(chart_count(step.charts)),
            Text("" if step.attempt is None else str(step.attempt)),
            Text(took(step)),
            Text(lease_state(step.holding), style="bold red" if step.holding.hold in NOT_HELD else ""),
        )
    return table


def notes_block(report: RunReport, step: StepReport, emulator: str | None) -> RenderableType | None:
    """Return the texts about a step below its id; None if there are none."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(min_width=10, no_wrap=True)
    grid.add_column(overflow="fold")
    stored = []
    for note in notes(report, step):
        is_bad = note.label == "now" and (step.holding.hold in NOT_HELD or step.invalid_because is not None)
        style = Style.parse("bold red" if is_bad else NOTE_COLOURS.get(note.label, ""))
        url = browser_url(note.uri, emulator=emulator) if note.uri is not None else None
        text = Text(note.text, style=style if url is None else style + Style(link=url))
        if note.label == "chart":
            stored.append(text)
        else:
            grid.add_row(Text(f"  {note.label}", style="dim"), text)
    if stored:
        grid.add_row(Text("  charts", style="dim"), Text(", ").join(stored))
    if not grid.row_count:
        return None
    heading = Text(visible(step.step_id), style="bold")
    heading.append(f"  {visible(step.status)}", style=COLOURS.get(step.status, "bold red"))
    return Group(heading, grid)
