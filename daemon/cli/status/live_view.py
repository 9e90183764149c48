"""A report as a terminal shows it in place, again and again: no taller than the terminal."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from rich.console import Group
from rich.segment import Segment
from rich.text import Text

from daemon.cli.status.terminal import notes_block, steps_table, title
from daemon.cli.status.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from daemon.cli.status.report import RunReport, StepReport

#: Steps of which status have their notes shown, from most to least.
NOTED = (("FAILED", "RUNNING", "READY", "PENDING"), ("FAILED", "RUNNING"), ("FAILED",), ())
#: What stays when not all steps fit: chart steps before others, and among them by this.
URGENCY = ("FAILED", "RUNNING", "READY", "PENDING", "CANCELLED", "SKIPPED", "SUCCEEDED")

Lines = list[list[Segment]]


class LiveView:
    """As much of the report as the terminal has lines for.

    Args:
        report: What is shown.
        trouble: A line to be shown below.
        storage_emulator: Where links lead; Google's own Cloud Storage without it.
    """

    def __init__(self, report: RunReport, trouble: str = "", *, storage_emulator: str | None = None) -> None:
        self._report = report
        self._trouble = trouble
        self._emulator = storage_emulator

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(height=None)
        for line in self._that_fits(
            console.height - 1, lambda view: console.render_lines(view, unbounded, pad=False)
        ):
            yield from line
            yield Segment.line()

    def _that_fits(self, room: int, draw: Callable[[RenderableType], Lines]) -> Lines:
        """The most that `room` lines hold. Drawing takes long: no view is drawn that can't fit."""
        steps = self._report.steps
        for view in self._of_all_steps() if len(steps) < room else ():
            if len(lines := draw(view)) <= room:
                return lines
        urgent, count = sorted(steps, key=_urgency), max(min(len(steps) - 1, room), 0)
        while len(lines := draw(self._of_steps(urgent[:count]))) > room and count:
            # By the height of a row, of which this is a bit too much: so few are left out.
            count -= ceil((len(lines) - room) * count / len(lines))
        return lines

    def _of_all_steps(self) -> Iterator[RenderableType]:
        yield self._view(self._report.steps, NOTED[0], with_kinds=True)
        for noted in NOTED:
            yield self._view(self._report.steps, noted)

    def _of_steps(self, kept: Collection[StepReport]) -> RenderableType:
        names = {step.step_id for step in kept}
        return self._view([step for step in self._report.steps if step.step_id in names], ())

    def _view(
        self, steps: Collection[StepReport], noted: Collection[str], *, with_kinds: bool = False
    ) -> RenderableType:
        parts: list[RenderableType] = [title(self._report)]
        if steps:
            parts.append(steps_table(steps, with_kinds=with_kinds))
        if hidden := len(self._report.steps) - len(steps):
            parts.append(Text(f"and {hidden} more, for which there is no room", style="dim"))
        if self._trouble:
            parts.append(Text(visible(self._trouble), style="bold red"))
        wordy = [step for step in steps if step.charts is not None and step.status in noted]
        blocks = [notes_block(self._report, step, self._emulator) for step in wordy]
        return Group(*parts, *(block for block in blocks if block is not None))


def _urgency(step: StepReport) -> tuple[bool, int]:
    return step.charts is None, URGENCY.index(step.status) if step.status in URGENCY else 0
