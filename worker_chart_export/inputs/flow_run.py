"""A typed, validated view of one flow run: its steps, what they depend on, and what may be worked next.

Only what the worker needs is validated; unknown fields are tolerated. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker_chart_export.errors import RunInvalid, shown
from worker_chart_export.inputs.identifiers import why_step_id_refused

CHART_EXPORT = "CHART_EXPORT"
OHLCV_EXPORT = "OHLCV_EXPORT"


class StepStatus(StrEnum):
    """The states of a step. Workers write only RUNNING, SUCCEEDED and FAILED."""

    PENDING = "PENDING"
    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing will be written to the step any more."""
        return self in {StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED}


class RunStatus(StrEnum):
    """The states of a run; only the orchestrator writes them."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether the orchestrator is done with the run."""
        return self not in {RunStatus.PENDING, RunStatus.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, as far as this worker cares."""

    step_id: str
    status: StepStatus
    step_type: Any
    timeframe: Any
    depends_on: tuple[str, ...]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    finished_at: Any

    @property
    def is_chart_export(self) -> bool:
        """Whether this worker is the one for it."""
        return bool(self.step_type == CHART_EXPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One run document. Steps are read on demand, so that a broken one disturbs only itself."""

    run_id: str
    status: RunStatus | None
    document: Mapping[str, Any]

    @classmethod
    def parse(cls, run_id: str, document: Mapping[str, Any]) -> FlowRun:
        """Read a run document.

        Raises:
            RunInvalid: `steps` is not a map, or the run's status is unknown.
        """
        if not isinstance(document.get("steps"), Mapping):
            raise RunInvalid(f"steps: expected a map of steps, got {_kind(document.get('steps'))}")
        status = document.get("status")
        if status is not None and not _is_member(RunStatus, status):
            raise RunInvalid(f"status: expected one of {', '.join(RunStatus)}, got {status!r:.80}")
        return cls(run_id=run_id, status=None if status is None else RunStatus(status), document=document)

    @property
    def is_final(self) -> bool:
        """Whether the run as a whole is over."""
        return self.status is not None and self.status.is_final

    def step(self, step_id: str) -> Step | None:
        """The step, or None when the run has none of that id.

        Raises:
            RunInvalid: The step is there but can't be read as one.
        """
        raw = self.document["steps"].get(step_id)
        return None if raw is None else _parse_step(step_id, raw)

    def unmet_dependencies(self, step: Step) -> tuple[str, ...]:
        """The ids in `dependsOn` that are not SUCCEEDED (SKIPPED does not count, a missing step neither).

        Raises:
            RunInvalid: A step it depends on can't be read.
        """
        return tuple(name for name in step.depends_on if not self._has_succeeded(name))

    def _has_succeeded(self, step_id: str) -> bool:
        step = self.step(step_id)
        return step is not None and step.status is StepStatus.SUCCEEDED

    def chart_step_ids(self) -> list[str]:
        """The ids of all CHART_EXPORT steps, in order."""
        steps = self.document["steps"]
        return sorted(name for name, raw in steps.items() if _names_chart_export(raw))

    def eligible_step(self) -> Step | None:
        """The CHART_EXPORT step to work next: READY, `dependsOn` all SUCCEEDED, lowest id first.

        Steps that can't be read are passed over here; `invalid_steps` names them.
        """
        readable = (self.readable_step(name) for name in self.chart_step_ids())
        return next((step for step in readable if step is not None and self.is_eligible(step)), None)

    def is_eligible(self, step: Step) -> bool:
        """Whether the step may be claimed now."""
        return step.status is StepStatus.READY and not self.unmet_dependencies(step)

    def invalid_steps(self) -> list[str]:
        """One sentence for each CHART_EXPORT step that can't be read."""
        return [reason for name in self.chart_step_ids() if (reason := self._why_unreadable(name))]

    def readable_step(self, step_id: str) -> Step | None:
        """The step, or None when it or one it depends on can't be read."""
        return None if self._why_unreadable(step_id) else self.step(step_id)

    def _why_unreadable(self, step_id: str) -> str | None:
        try:
            step = self.step(step_id)
            if step is not None:
                self.unmet_dependencies(step)
        except RunInvalid as error:
            return str(error)
        return why_step_id_refused(step_id)


def _parse_step(step_id: str, raw: object) -> Step:
    if not isinstance(raw, Mapping):
        raise RunInvalid(f"steps.{step_id}: expected a map, got {_kind(raw)}")
    if not _is_member(StepStatus, raw.get("status")):
        got = shown(raw.get("status"))
        raise RunInvalid(f"steps.{step_id}.status: expected one of {', '.join(StepStatus)}, got {got}")
    return Step(
        step_id=step_id,
        status=StepStatus(raw["status"]),
        step_type=raw.get("stepType"),
        timeframe=raw.get("timeframe"),
        depends_on=_depends_on(step_id, raw.get("dependsOn")),
        inputs=_as_map(raw.get("inputs")),
        outputs=_as_map(raw.get("outputs")),
        finished_at=raw.get("finishedAt"),
    )


def _depends_on(step_id: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise RunInvalid(f"steps.{step_id}.dependsOn: expected a list of step ids, got {shown(value)}")


def _names_chart_export(raw: object) -> bool:
    return isinstance(raw, Mapping) and raw.get("stepType") == CHART_EXPORT


def _is_member(enum: type[StrEnum], value: object) -> bool:
    return isinstance(value, str) and value in set(enum)


def _as_map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
