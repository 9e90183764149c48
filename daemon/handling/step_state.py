"""What a look at a run, and at the lease of a step, says about the work a message names. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.errors import RunInvalid, shown
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import Reason

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.lease.lease import LeaseTerms, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot


class StepState(StrEnum):
    """What a look at the run finds about the step (or the run) a message names."""

    READY = "ready"
    FINAL = "final"
    RUNNING = "running"
    MISSING = "missing"
    PENDING = "pending"
    DEPENDS_ON = "depends_on"
    OTHER_TYPE = "other_type"
    UNLEASED = "unleased"
    LEASE_OVER = "lease_over"
    OWN_LEASE = "own_lease"
    DUPLICATE = "duplicate"


STATE_OF_STATUS = {
    StepStatus.READY: StepState.READY,
    StepStatus.RUNNING: StepState.RUNNING,
    StepStatus.PENDING: StepState.PENDING,
}
#: A finalize refused because of these has nothing left to be looked at again.
GONE = frozenset({Reason.RUN_MISSING, Reason.STEP_MISSING})
NOT_YET = frozenset({StepState.MISSING, StepState.PENDING, StepState.DEPENDS_ON})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A look at the run, and a sentence about it.

    Attributes:
        wait_seconds: When it is worth looking again, if it says so.
    """

    state: StepState
    words: str
    wait_seconds: float = 0.0


def classify_step(run: FlowRun | None, step_id: str) -> StepView:
    """What the run says about a named step. Pure.

    Raises:
        RunInvalid: The step, or one it depends on, can't be read.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        return StepView(
            state=StepState.MISSING, words="the run does not exist" if run is None else "no such step"
        )
    if not step.is_chart_export:
        return StepView(state=StepState.OTHER_TYPE, words=f"the step is of type {shown(step.step_type)}")
    if run.is_final or step.status.is_final:
        return StepView(state=StepState.FINAL, words=f"the run is {run.status}, the step {step.status}")
    if step.status is StepStatus.READY and (unmet := run.unmet_dependencies(step)):
        return StepView(state=StepState.DEPENDS_ON, words=f"dependsOn not SUCCEEDED: {', '.join(unmet)}")
    return StepView(state=STATE_OF_STATUS[step.status], words=f"the step is {step.status}")


def classify_run(run: FlowRun | None) -> StepView:
    """What there is to say of a run in which no step is eligible. Pure.

    Raises:
        RunInvalid: A chart step of the run can't be read.
    """
    if run is None:
        return StepView(state=StepState.MISSING, words="the run does not exist")
    if run.is_final:
        return StepView(state=StepState.FINAL, words=f"the run is {run.status}")
    if invalid := run.invalid_steps():
        raise RunInvalid("; ".join(invalid))
    findings = [classify_step(run, name) for name in run.chart_step_ids()]
    blocked = [found for found in findings if found.state in NOT_YET]
    running = [found for found in findings if found.state is StepState.RUNNING]
    nothing = StepView(state=StepState.FINAL, words="no step of the run is waiting")
    return next(iter(blocked + running), nothing)


def classify_lease(
    stored: StoredLease | None, *, now: datetime, message_id: str, terms: LeaseTerms
) -> StepView:
    """What the lease of a RUNNING step says. Pure.

    Args:
        stored: The lease, or None.
        now: The server's time of the read.
        message_id: The message in hand.
        terms: What leases go by.
    """
    if stored is None:
        return StepView(state=StepState.UNLEASED, words="the step is RUNNING without a lease")
    lease = stored.lease
    left_seconds = lease.seconds_left(now, clock_skew_seconds=terms.clock_skew_seconds)
    if left_seconds <= 0:
        return StepView(state=StepState.LEASE_OVER, words=f"the lease of {lease.owner} is over")
    if lease.message_id == message_id:
        words = f"the lease taken under this very message lasts {left_seconds:.0f} s more"
        return StepView(state=StepState.OWN_LEASE, words=words, wait_seconds=left_seconds)
    return StepView(state=StepState.DUPLICATE, words=f"{lease.owner} works the step under another message")


def running_steps(snapshot: RunSnapshot) -> list[str]:
    """The ids of the run's RUNNING chart steps that can be read, in order."""
    run = snapshot.run
    if run is None or run.is_final:
        return []
    steps = (run.readable_step(name) for name in run.chart_step_ids())
    return [step.step_id for step in steps if step is not None and step.status is StepStatus.RUNNING]
