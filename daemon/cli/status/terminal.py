"""A report as a terminal shows it: a table of all steps, and below it what does not fit into a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from daemon.cli.status.report import Hold
from daemon.cli.status.wording import (
    chart_count,
    headline,
    instant,
    kind,
    lease_state,
    notes,
    took,
    visible,
)
from worker_chart_export.outputs.links import browser_url

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import RenderableType

    from daemon.cli.status.report import RunReport, StepReport

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
#: Holds that somebody may have to look into.
UNHELD = {Hold.OVER, Hold.UNLEASED}


class FullView:
    """The whole report, however long.

    Args:
        report: What is shown.
        storage_emulator: Where links lead; Google's own Cloud Storage without it.
    """

    def __init__(self, report: RunReport, *, storage_emulator: str | None = None) -> None:
        self._report = report
        self._emulator = storage_emulator

    def __rich__(self) -> RenderableType:
        blocks = [notes_block(self._report, step, self._emulator) for step in self._report.steps]
        return Group(
            title(self._report),
            steps_table(self._report.steps),
            *(b for b in blocks if b is not None),
        )


def title(report: RunReport) -> Text:
    """Run, status, and what its chart steps came to."""
    text = Text(report.run_id, style="bold")
    text.append(f"  {report.status}", style=COLOURS.get(report.status, ""))
    given = (("symbol", report.symbol), ("flow", report.flow_key))
    facts = [f"{name} {visible(words)}" for name, words in given if words]
    for line in (", ".join([*facts, f"read at {instant(report.read_at)}"]), headline(report)):
        text.append(f"\n{line}", style="not bold")
    return text


def steps_table(steps: Collection[StepReport], *, with_kinds: bool = True) -> Table:
    """A row for each step; `with_kinds` has type and timeframe under its id."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("step", "status", "charts", "attempt", "time", "lease"):
        table.add_column(heading, overflow="fold")
    for step in steps:
        table.add_row(
            _step_cell(step, with_kind=with_kinds),
            Text(visible(step.status) or "none", style=COLOURS.get(step.status, "bold red")),
            Text(chart_count(step.charts)),
            Text("" if step.holding.attempt is None else str(step.holding.attempt)),
            Text(took(step)),
            Text(lease_state(step.holding), style="bold red" if step.holding.hold in UNHELD else ""),
        )
    return table


def _step_cell(step: StepReport, *, with_kind: bool) -> Text:
    cell = Text(visible(step.step_id), style="" if step.charts is not None else "dim")
    if with_kind and kind(step):
        cell.append(f"\n{kind(step)}", style="dim")
    return cell


def notes_block(report: RunReport, step: StepReport, emulator: str | None) -> RenderableType | None:
    """What else there is to say about a step, under its id; None if there is nothing."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(min_width=10, no_wrap=True)
    grid.add_column(overflow="fold")
    stored = []
    for note in notes(report, step):
        words = Text(note.words, style=_style(note.label, step, note.uri, emulator))
        if note.label == "chart":
            stored.append(words)
        else:
            grid.add_row(Text(f"  {note.label}", style="dim"), words)
    if stored:
        grid.add_row(Text("  charts", style="dim"), Text(", ").join(stored))
    if not grid.row_count:
        return None
    heading = Text(visible(step.step_id), style="bold").append(
        f"  {visible(step.status)}", style=COLOURS.get(step.status, "bold red")
    )
    return Group(heading, grid)


def _style(label: str, step: StepReport, uri: str | None, emulator: str | None) -> Style:
    unheld = label == "now" and (step.holding.hold in UNHELD or step.invalid_because is not None)
    style = Style.parse("bold red" if unheld else NOTE_COLOURS.get(label, ""))
    url = browser_url(uri, emulator=emulator) if uri is not None else None
    return style + Style(link=url) if url is not None else style
