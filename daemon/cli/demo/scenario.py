"""What the demo does: its runs, the failures among them, and their messages. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.inputs.flow_run import StepStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENT_UPDATED = "google.cloud.firestore.document.v1.updated"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """One run of the demo.

    Attributes:
        symbol: The symbol of its charts. The samples hold a candle file for it.
        timeframes: The timeframes; one chart step for each.
        more_templates: Templates that each step requests in addition to those of the demo, which alone are
            needed for success.
        expected: The expected status of its steps.
        lesson: What a failure in this run shows; empty if nothing fails.
    """

    symbol: str
    timeframes: tuple[str, ...]
    more_templates: tuple[str, ...] = ()
    expected: StepStatus = StepStatus.SUCCEEDED
    lesson: str = ""


#: Runs without failures. The samples hold a candle file for each timeframe.
HEALTHY_RUNS = (
    DemoRun(symbol="IBM", timeframes=("1d", "1w", "1M")),
    DemoRun(symbol="AAPL", timeframes=("1d",)),
    DemoRun(symbol="GOOG", timeframes=("1d",)),
)
#: The same with a failed chart and a failed step.
RUNS_WITH_FAILURES = (
    *HEALTHY_RUNS[:2],
    DemoRun(
        symbol="GOOG",
        timeframes=("1d",),
        more_templates=("ctpl_not_there_v1",),
        lesson="One extra request names a template that does not exist.",
    ),
    DemoRun(
        symbol="IBM",
        timeframes=("13q",),
        expected=StepStatus.FAILED,
        lesson="No chart provider supports this timeframe.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep:
    """One chart step of the demo.

    Attributes:
        requested: How many charts it requests.
        needed: How many of them it needs for success (`minImages`).
        expected: The expected status.
        lesson: As in `DemoRun`.
    """

    run_id: str
    step_id: str
    symbol: str
    timeframe: str
    requested: int
    needed: int
    expected: StepStatus = StepStatus.SUCCEEDED
    lesson: str = ""

    @property
    def title(self) -> str:
        """Symbol and timeframe."""
        return f"{self.symbol} {self.timeframe}"


class MessageKind(StrEnum):
    """What a message names; the gallery shows the values."""

    RUN = "the run alone"
    STEP = "run and step"
    EVENT = "a Firestore event"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoMessage:
    """A message of the demo, ready to be published."""

    kind: MessageKind
    run_id: str
    data: bytes
    attributes: dict[str, str]


def messages_for(steps: Sequence[DemoStep]) -> list[DemoMessage]:
    """Return one message for each run. Together they use all kinds that the daemon understands."""
    by_run: dict[str, list[DemoStep]] = {}
    for step in steps:
        by_run.setdefault(step.run_id, []).append(step)
    return [_message(index, run_id, of_run) for index, (run_id, of_run) in enumerate(by_run.items())]


def _message(index: int, run_id: str, steps: Sequence[DemoStep]) -> DemoMessage:
    if len(steps) > 1:
        body = json.dumps({"runId": run_id}).encode()
        return DemoMessage(kind=MessageKind.RUN, run_id=run_id, data=body, attributes={})
    if index % 2:
        body = json.dumps({"runId": run_id, "stepId": steps[0].step_id}).encode()
        return DemoMessage(kind=MessageKind.STEP, run_id=run_id, data=body, attributes={})
    event = {"ce-type": EVENT_UPDATED, "ce-subject": f"documents/flow_runs/{run_id}"}
    return DemoMessage(kind=MessageKind.EVENT, run_id=run_id, data=b"", attributes=event)
