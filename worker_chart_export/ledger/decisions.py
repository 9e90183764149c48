"""Whether a step may be claimed or finalized, leases left aside. Pure."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from google.cloud import firestore

from worker_chart_export.inputs.flow_run import FlowRun, Step, StepStatus, why_step_id_refused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker_chart_export.errors import StepError
    from worker_chart_export.ledger.lease import Lease, StoredLease


class Reason(StrEnum):
    """Why a claim, a finalize or a release was not made."""

    RUN_MISSING = "run_missing"
    RUN_FINAL = "run_final"
    STEP_MISSING = "step_missing"
    OTHER_TYPE = "other_type"
    STEP_FINAL = "step_final"
    STEP_RUNNING = "step_running"
    STEP_PENDING = "step_pending"
    DEPENDS_ON = "depends_on"
    NOT_RUNNING = "not_running"
    UNLEASED = "unleased"
    CRASH_LOOP = "crash_loop"
    FENCED = "fenced"
    LEASE_LOST = "lease_lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The end of a claim.

    Attributes:
        claimed: Whether the step is now this caller's.
        status: The step's status after the call, or None when there is no such step.
        reason: Why it was not claimed, or None.
        run: The run as the decision saw it.
        taken_over: The lease that was over, when there was one.
    """

    claimed: bool
    status: str | None
    reason: str | None = None
    run: FlowRun | None = None
    taken_over: Lease | None = None


@dataclass(frozen=True, slots=True)
class FinalizeResult:
    """The end of a finalize; `updated` says whether this call's result is the one that stands."""

    updated: bool
    status: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The end of a release: given back, failed for good, or no longer ours (`reason`)."""

    released: bool
    failed: bool = False
    reason: str | None = None


def decide_claim(run: FlowRun | None, step_id: str) -> ClaimResult:
    """Whether the step may be claimed now, leases left aside.

    Raises:
        RunInvalid: The step or one it depends on can't be read.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        reason = Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        return ClaimResult(claimed=False, status=None, reason=reason, run=run)
    refusal = _why_not_claimable(run, step)
    status = step.status if refusal else StepStatus.RUNNING
    return ClaimResult(claimed=refusal is None, status=status.value, reason=refusal, run=run)


def _why_not_claimable(run: FlowRun, step: Step) -> Reason | None:
    if not step.is_chart_export and step.step_type is not None:
        return Reason.OTHER_TYPE
    if step.status.is_final:
        return Reason.STEP_FINAL
    if run.is_final:
        return Reason.RUN_FINAL
    if step.status is StepStatus.RUNNING:
        return Reason.STEP_RUNNING
    if step.status is StepStatus.PENDING:
        return Reason.STEP_PENDING
    return Reason.DEPENDS_ON if run.unmet_dependencies(step) else None


def decide_finalize(
    run: FlowRun | None, step_id: str, *, finished_at: str, outcome_unknown: bool
) -> FinalizeResult | None:
    """The verdict on a finalize, leases left aside, or None when the step is RUNNING.

    Args:
        run: The run as just read.
        step_id: The step.
        finished_at: This claim's own finishing time, which marks its patch in the document.
        outcome_unknown: Whether an earlier commit of this very patch got no clear answer; only then does
            finding `finished_at` in the step mean that it was ours.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        return FinalizeResult(
            updated=False, status=None, reason=Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        )
    if step.status is StepStatus.RUNNING:
        return None
    landed = outcome_unknown and step.finished_at == finished_at
    reason = Reason.STEP_FINAL if step.status.is_final else Reason.NOT_RUNNING
    return FinalizeResult(updated=landed, status=step.status.value, reason=None if landed else reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a decision goes by.

    Attributes:
        run: The run.
        lease: The step's lease; None also when it was not looked at.
        lease_is_known: Whether it was looked at.
        run_is_fresh: Whether the run was read for this very turn.
        read_time: The server's time of the read: what a lease is judged by and computed from; None with a
            minimal client.
        outcome_unknown: Whether an earlier commit for this very intent got no clear answer.
    """

    run: FlowRun | None
    lease: StoredLease | None = None
    lease_is_known: bool = False
    run_is_fresh: bool = False
    read_time: datetime | None = None
    outcome_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWrite:
    """What becomes of a step's lease document.

    Attributes:
        lease: Its new content; None deletes it.
        guard: The `update_time` it must still have; None writes it whatever is there.
    """

    lease: Lease | None
    guard: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A result, and what must be committed for it to be true."""

    result: Any
    run_patch: Mapping[str, Any] | None = None
    lease_write: LeaseWrite | None = None

    @property
    def writes(self) -> bool:
        """Whether there is anything to commit."""
        return self.run_patch is not None or self.lease_write is not None


FLOW_RUNS = "flow_runs"


def build_claim_update(step_id: str) -> dict[str, Any]:
    """READY -> RUNNING as a field-path patch."""
    return _step_patch(step_id, {"status": StepStatus.RUNNING.value})


def build_finalize_success_update(
    *, step_id: str, finished_at: str, outputs_manifest_gcs_uri: str
) -> dict[str, Any]:
    """RUNNING -> SUCCEEDED; names the manifest under its old and its new key and deletes a stale error."""
    return _step_patch(
        step_id,
        {
            "status": StepStatus.SUCCEEDED.value,
            "finishedAt": finished_at,
            "outputs.outputsManifestGcsUri": outputs_manifest_gcs_uri,
            "outputs.gcs_uri": outputs_manifest_gcs_uri,
            "error": firestore.DELETE_FIELD,
        },
    )


def build_finalize_failure_update(*, step_id: str, finished_at: str, error: StepError) -> dict[str, Any]:
    """RUNNING -> FAILED with its error; `outputs` stay untouched."""
    return _step_patch(
        step_id, {"status": StepStatus.FAILED.value, "finishedAt": finished_at, "error": error.to_dict()}
    )


def _step_patch(step_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Field paths for the client's `update()`, which quotes what stands between the dots itself.

    Raises:
        ValueError: The step id would make them paths to something else.
    """
    if why := why_step_id_refused(step_id):
        raise ValueError(why)
    return {f"steps.{step_id}.{name}": value for name, value in fields.items()}


def patched(run: FlowRun, patch: Mapping[str, Any]) -> FlowRun:
    """The run as it is once `patch`, one of the above or several merged, was written to it."""
    steps, changed = run.document["steps"], dict[str, Any]()
    for path, value in patch.items():
        _, step_id, name = path.split(".", 2)
        changed[step_id] = _with_field(changed.get(step_id, steps[step_id]), name, value)
    document = _laid_over(run.document, {"steps": _laid_over(steps, changed)})
    return FlowRun(run_id=run.run_id, status=run.status, document=document)


def _laid_over(base: Mapping[str, Any], changed: Mapping[str, Any]) -> ChainMap[str, Any]:
    """`base` with what has changed: of a large run, the rest stays as the wire has it."""
    if isinstance(base, ChainMap):
        earlier, base = base.maps
        changed = {**earlier, **changed}
    return ChainMap(dict(changed), cast("dict[str, Any]", base))


def _with_field(fields: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest:
        inner = fields.get(name)
        value = _with_field(inner if isinstance(inner, dict) else {}, rest, value)
    elif value is firestore.DELETE_FIELD:
        return {key: kept for key, kept in fields.items() if key != name}
    return {**fields, name: value}
