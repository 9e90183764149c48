"""What the demo plays: its runs, what goes wrong in them on purpose, and the messages for them. Pure."""

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
class Scene:
    """One run of the demo.

    Attributes:
        symbol: Whose charts are asked for; there is a candle file of it among the samples.
        timeframes: One chart step for each.
        more_templates: What each step asks for besides the five reference templates, which alone are needed.
        expected: What its steps have to come to.
        lesson: What it shows, when it shows more than charts.
    """

    symbol: str
    timeframes: tuple[str, ...]
    more_templates: tuple[str, ...] = ()
    expected: StepStatus = StepStatus.SUCCEEDED
    lesson: str = ""


#: Each timeframe has a candle file among the samples.
SOUND_SCENES = (
    Scene(symbol="IBM", timeframes=("1d", "1w", "1M")),
    Scene(symbol="AAPL", timeframes=("1d",)),
    Scene(symbol="GOOG", timeframes=("1d",)),
)
#: The same with two failures, so that they are seen too.
SCENES_WITH_FAILURES = (
    *SOUND_SCENES[:2],
    Scene(
        symbol="GOOG",
        timeframes=("1d",),
        more_templates=("ctpl_not_there_v1",),
        lesson="One request more than is needed names a template that does not exist.",
    ),
    Scene(
        symbol="IBM",
        timeframes=("13q",),
        expected=StepStatus.FAILED,
        lesson="Its timeframe means nothing to any chart provider.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep:
    """One chart step of the demo.

    Attributes:
        requested: How many charts it asks for.
        needed: How many of them it needs (`minImages`).
        expected: What it has to come to.
        lesson: See `Scene`.
    """

    run_id: str
    step_id: str
    symbol: str
    timeframe: str
    requested: int
    needed: int
    expected: StepStatus = StepStatus.SUCCEEDED
    lesson: str = ""


class MessageKind(StrEnum):
    """How a message names its work."""

    RUN = "the run alone"
    STEP = "run and step"
    EVENT = "a Firestore event"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoMessage:
    """A message of the demo, as it is published."""

    kind: MessageKind
    run_id: str
    data: bytes
    attributes: dict[str, str]


def messages_of(steps: Sequence[DemoStep]) -> list[DemoMessage]:
    """One message for each run, in turn of each of the kinds the daemon understands."""
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
