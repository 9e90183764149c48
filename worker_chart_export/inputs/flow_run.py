"""Flow runs: which ids are allowed, and a typed view of a run and its steps. Pure.

Only the fields that the worker needs are checked. Unknown fields are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from worker_chart_export.errors import RunInvalid, shown

CHART_EXPORT = "CHART_EXPORT"
OHLCV_EXPORT = "OHLCV_EXPORT"

RUN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
TEMPLATE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: The run ids that readers of the manifest accept (`charts_outputs_manifest.schema.json`).
MANIFEST_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}_[A-Z0-9]+(?:-[A-Z0-9]+)*_[a-z0-9]{3,6}")
#: Document ids that Firestore keeps for itself.
RESERVED_ID = re.compile(r"\.|\.\.|__.*__", re.DOTALL)
#: Characters with a meaning in Firestore field paths or object names, control characters, lone surrogates.
STEP_ID_REFUSED = re.compile(r"[/.`\[\]*~\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MAX_STEP_ID_BYTES = 256
#: Each log line of a run holds its flow key.
MAX_FLOW_KEY_CHARS = 128
MAX_SYMBOL_CHARS = 128


def why_run_id_refused(run_id: object) -> str | None:
    """Return a sentence that says what is wrong with a run id, or None when it may be used.

    Ids come from outside, and become parts of document paths, field paths and object names.
    """
    if isinstance(run_id, str) and RUN_ID.fullmatch(run_id) and not RESERVED_ID.fullmatch(run_id):
        return None
    return (
        "runId: expected 1-128 characters of A-Z a-z 0-9 _ . : - and not '.', '..' or '__*__', "
        f"got {shown(run_id)}"
    )


def why_step_id_refused(step_id: object) -> str | None:
    """Return a sentence that says what is wrong with a step id, or None when it may be used."""
    is_plain = (
        isinstance(step_id, str)
        and step_id != ""
        and not STEP_ID_REFUSED.search(step_id)
        and not RESERVED_ID.fullmatch(step_id)
    )
    if is_plain and len(str(step_id).encode()) <= MAX_STEP_ID_BYTES:
        return None
    return (
        f"stepId: expected 1-{MAX_STEP_ID_BYTES} bytes of UTF-8 without / . ` [ ] * ~ or control characters "
        f"and not '__*__', got {shown(step_id)}"
    )


def is_template_id(template_id: str) -> bool:
    """Return whether the text may be used as a template's document id."""
    return bool(TEMPLATE_ID.fullmatch(template_id)) and not RESERVED_ID.fullmatch(template_id)


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
        """Whether the step does not change any more."""
        return self in {StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED}


STEP_STATUSES = {status.value: status for status in StepStatus}


class RunStatus(StrEnum):
    """The states of a run. Only the orchestrator writes them."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


#: The orchestrator has finished such a run.
FINAL_RUN_STATUSES = frozenset(RunStatus) - {RunStatus.PENDING, RunStatus.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The fields of a step that the worker needs. Only `status` and `depends_on` are checked."""

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
        """Whether the step is one for this worker."""
        return bool(self.step_type == CHART_EXPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One run document. Each step is parsed when it is needed, so an invalid step affects only itself.

    Attributes:
        document: Its fields. They must not change.
    """

    run_id: str
    status: RunStatus | None
    document: Mapping[str, Any]
    _parsed: dict[str, Step | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, run_id: str, document: Mapping[str, Any]) -> FlowRun:
        """Parse a run document.

        Raises:
            RunInvalid: `steps` is not a map, or the run's status is unknown.
        """
        if not isinstance(document.get("steps"), Mapping):
            raise RunInvalid(f"steps: expected a map of steps, got {_type_name(document.get('steps'))}")
        status = document.get("status")
        if status not in (None, *RunStatus):
            raise RunInvalid(f"status: expected one of {', '.join(RunStatus)}, got {status!r:.80}")
        return cls(run_id=run_id, status=None if status is None else RunStatus(status), document=document)

    @property
    def flow_key(self) -> str | None:
        """The `flowKey`, which names the kind of flow; cut after 128 characters. None when it is no text."""
        value = self.document.get("flowKey")
        return value[:MAX_FLOW_KEY_CHARS] or None if isinstance(value, str) else None

    @property
    def symbol(self) -> str:
        """The `scope.symbol`, not checked; cut after 128 characters. Empty when there is none."""
        scope = self.document.get("scope")
        value = scope.get("symbol") if isinstance(scope, Mapping) else None
        return "" if value is None else str(value)[:MAX_SYMBOL_CHARS]

    @property
    def is_final(self) -> bool:
        """Whether the orchestrator has finished the run."""
        return self.status in FINAL_RUN_STATUSES

    def step(self, step_id: str) -> Step | None:
        """Return a step, parsed once. Return None when the run has no step of that id.

        Raises:
            RunInvalid: It is no map, or its `status` or `dependsOn` is invalid.
        """
        if step_id not in self._parsed:
            self._parsed[step_id] = self._parse_step(step_id)
        return self._parsed[step_id]

    def _parse_step(self, step_id: str) -> Step | None:
        raw = self.document["steps"].get(step_id)
        if raw is None:
            return None
        if not isinstance(raw, Mapping):
            raise RunInvalid(f"steps.{step_id}: expected a map, got {_type_name(raw)}")
        written, depends_on = raw.get("status"), raw.get("dependsOn")
        status = STEP_STATUSES.get(written) if isinstance(written, str) else None
        if status is None:
            raise RunInvalid(
                f"steps.{step_id}.status: expected one of {', '.join(StepStatus)}, got {shown(written)}"
            )
        if depends_on is None:
            depends_on = ()
        is_list = isinstance(depends_on, Sequence) and not isinstance(depends_on, str)
        if not is_list or not all(isinstance(name, str) for name in depends_on):
            raise RunInvalid(
                f"steps.{step_id}.dependsOn: expected a list of step ids, got {shown(depends_on)}"
            )
        inputs, outputs = raw.get("inputs"), raw.get("outputs")
        return Step(
            step_id=step_id,
            status=status,
            step_type=raw.get("stepType"),
            timeframe=raw.get("timeframe"),
            depends_on=dependencies(depends_on, self.document["steps"]),
            inputs=inputs if isinstance(inputs, Mapping) else {},
            outputs=outputs if isinstance(outputs, Mapping) else {},
            finished_at=raw.get("finishedAt"),
        )

    def is_running(self, step_id: str) -> bool:
        """Return whether the step is RUNNING, whatever its type, in a run that has not ended.

        Raises:
            RunInvalid: The step can't be read.
        """
        step = self.step(step_id)
        return step is not None and step.status is StepStatus.RUNNING and not self.is_final

    def unmet_dependencies(self, step: Step) -> tuple[str, ...]:
        """Return the ids in `dependsOn` that are not SUCCEEDED. SKIPPED and missing steps are unmet too.

        Raises:
            RunInvalid: A step it depends on is invalid.
        """
        unmet = []
        for step_id in step.depends_on:
            needed = self.step(step_id)
            if needed is None or needed.status is not StepStatus.SUCCEEDED:
                unmet.append(step_id)
        return tuple(unmet)

    def chart_step_ids(self) -> list[str]:
        """Return the ids of all CHART_EXPORT steps, sorted."""
        return sorted(
            step_id
            for step_id, raw in self.document["steps"].items()
            if isinstance(raw, Mapping) and raw.get("stepType") == CHART_EXPORT
        )

    def eligible_step(self) -> Step | None:
        """Return the next CHART_EXPORT step to work on: READY, `dependsOn` all SUCCEEDED, lowest id first.

        Invalid steps are skipped; see `invalid_steps`.
        """
        for step_id in self.chart_step_ids():
            step = self.readable_step(step_id)
            if step and step.status is StepStatus.READY and not self.unmet_dependencies(step):
                return step
        return None

    def invalid_steps(self) -> list[str]:
        """Return one sentence for each invalid CHART_EXPORT step."""
        return [reason for name in self.chart_step_ids() if (reason := self._why_invalid(name))]

    def readable_step(self, step_id: str) -> Step | None:
        """Return the step, or None when it or a step it depends on is missing or invalid."""
        return None if self._why_invalid(step_id) else self.step(step_id)

    def _why_invalid(self, step_id: str) -> str | None:
        try:
            step = self.step(step_id)
            if step is not None:
                self.unmet_dependencies(step)
        except RunInvalid as error:
            return str(error)
        return why_step_id_refused(step_id)


def dependencies(names: Sequence[str], steps: Container[str]) -> tuple[str, ...]:
    """Return the step ids that `dependsOn` names. Surrounding white space counts only if an id has it."""
    return tuple(name if name in steps else name.strip() for name in names)


def _type_name(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
