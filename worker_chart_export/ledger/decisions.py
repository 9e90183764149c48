"""Whether a step may be claimed or finalized, leases left aside. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.inputs.flow_run import FlowRun, Step, StepStatus

if TYPE_CHECKING:
    from worker_chart_export.ledger.lease.lease import Lease


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
