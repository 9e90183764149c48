"""What the daemon's log lines tell: how far each step is, and what happened how often. Not thread-safe."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker_chart_export.observability.logs import Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.cli.demo.scenario import DemoStep


@dataclass(slots=True)
class StepProgress:
    """What is known of one step so far.

    Attributes:
        attempt: Which claim of the step this is; None before the first.
        seconds: From its claim to its end, as the daemon measured it; None before the end.
    """

    step: DemoStep
    status: str = "READY"
    charts: int = 0
    attempt: int | None = None
    claimed: float | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Journal:
    """The tally of a demo.

    Attributes:
        progress: (run id, step id) -> the step.
        events: Event -> how often.
        claims: How many claims were won.
        settled: Disposition (`ack`, `nack`, `defer`) -> messages.
    """

    progress: dict[tuple[str, str], StepProgress]
    events: Counter[str] = field(default_factory=Counter)
    claims: int = 0
    settled: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, steps: Sequence[DemoStep]) -> Journal:
        """The empty journal of these steps."""
        return cls(progress={(step.run_id, step.step_id): StepProgress(step) for step in steps})

    def note(self, event: Mapping[str, Any]) -> None:
        """Take one log line."""
        self.events[str(event.get("event"))] += 1
        if event.get("event") == Event.MESSAGE_SETTLED:
            self.settled[str(event.get("disposition"))] += 1
        progress = self.progress.get((event.get("runId", ""), event.get("stepId", "")))
        if progress is not None:
            self._advance(progress, event)

    def _advance(self, progress: StepProgress, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case Event.CLAIM_ATTEMPT if event.get("claimed"):
                self.claims += 1
                progress.status, progress.claimed = "RUNNING", time.monotonic()
            case Event.CHART_STORED | Event.CHART_REUSED:
                progress.charts += 1
                progress.attempt = event.get("attempt", progress.attempt)
            case Event.STEP_COMPLETED:
                progress.status = str(event.get("status"))
                progress.attempt = event.get("attempt", progress.attempt)
                progress.charts = int(event.get("items", progress.charts))
                progress.seconds = _seconds(progress, event)
            case _:
                pass

    @property
    def all_done(self) -> bool:
        """Whether every step has ended."""
        return all(progress.seconds is not None for progress in self.progress.values())


def _seconds(progress: StepProgress, event: Mapping[str, Any]) -> float:
    """As the daemon says it; a step that was failed instead of taken over has no duration of its own."""
    if isinstance(milliseconds := event.get("durationMs"), int):
        return milliseconds / 1000
    return time.monotonic() - (progress.claimed or time.monotonic())
