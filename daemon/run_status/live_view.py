"""A report as a terminal shows it in place, again and again: no taller than the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from daemon.run_status.on_terminal import notes_block, steps_table, title
from daemon.run_status.wording import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from daemon.run_status.report import RunReport, StepReport

#: Steps of which status have their notes shown, from most to least.
NOTED = (("FAILED", "RUNNING", "READY", "PENDING"), ("FAILED", "RUNNING"), ("FAILED",), ())
#: What stays when not all steps fit: chart steps before others, and among them by this.
URGENCY = ("FAILED", "RUNNING", "READY", "PENDING", "CANCELLED", "SKIPPED", "SUCCEEDED")


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
        room = console.height - 1
        unbounded = options.update(height=None)
        for view in self._smaller_and_smaller(room):
            lines = console.render_lines(view, unbounded, pad=False)
            if len(lines) <= room:
                break
        yield view

    def _smaller_and_smaller(self, room: int) -> Iterator[RenderableType]:
        steps = self._report.steps
        if len(steps) < room:  # else none of these can fit
            yield self._view(steps, NOTED[0], with_kinds=True)
            for noted in NOTED:
                yield self._view(steps, noted)
        urgent = sorted(steps, key=_urgency)
        for count in range(min(len(steps) - 1, room), -1, -1):
            kept = {step.step_id for step in urgent[:count]}
            yield self._view([step for step in steps if step.step_id in kept], ())

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
