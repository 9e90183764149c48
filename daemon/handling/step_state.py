"""Classify the step or run that a message names, from the run document and the lease. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.errors import RunInvalid, shown
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.lease import LeaseTerms, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot


class StepState(StrEnum):
    """The state of the step (or of the run) that a message names."""

    READY = "ready"
    FINAL = "final"
    RUNNING = "running"
    MISSING = "missing"
    PENDING = "pending"
    DEPENDS_ON = "depends_on"
    OTHER_TYPE = "other_type"
    UNLEASED = "unleased"
    LEASE_EXPIRED = "lease_expired"
    OWN_LEASE = "own_lease"
    DUPLICATE = "duplicate"


STATE_OF_STATUS = {
    StepStatus.READY: StepState.READY,
    StepStatus.RUNNING: StepState.RUNNING,
    StepStatus.PENDING: StepState.PENDING,
}
NOT_READY = frozenset({StepState.MISSING, StepState.PENDING, StepState.DEPENDS_ON})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """The state of a step at the time of one read.

    Attributes:
        state: The state.
        description: The state as text, for logs.
        wait_seconds: For a lease under this message: the time until its expiry.
    """

    state: StepState
    description: str
    wait_seconds: float = 0.0


def classify_step(run: FlowRun | None, step_id: str) -> StepView:
    """Classify a named step from its run document. Pure.

    Raises:
        RunInvalid: The step, or a step in its `dependsOn`, is invalid.
    """
    if run is None:
        return StepView(state=StepState.MISSING, description="the run does not exist")
    step = run.step(step_id)
    if step is None:
        return StepView(state=StepState.MISSING, description="no such step")
    if not step.is_chart_export:
        return StepView(
            state=StepState.OTHER_TYPE, description=f"the step is of type {shown(step.step_type)}"
        )
    if run.is_final or step.status.is_final:
        return StepView(state=StepState.FINAL, description=f"the run is {run.status}, the step {step.status}")
    if step.status is StepStatus.READY and (unmet := run.unmet_dependencies(step)):
        return StepView(
            state=StepState.DEPENDS_ON, description=f"dependsOn not SUCCEEDED: {', '.join(unmet)}"
        )
    return StepView(state=STATE_OF_STATUS[step.status], description=f"the step is {step.status}")


def classify_run(run: FlowRun | None) -> StepView:
    """Classify a run in which no step is eligible. Pure.

    Raises:
        RunInvalid: A chart step of the run is invalid.
    """
    if run is None:
        return StepView(state=StepState.MISSING, description="the run does not exist")
    if run.is_final:
        return StepView(state=StepState.FINAL, description=f"the run is {run.status}")
    if invalid := run.invalid_steps():
        raise RunInvalid("; ".join(invalid))
    views = [classify_step(run, step_id) for step_id in run.chart_step_ids()]
    blocked = [view for view in views if view.state in NOT_READY]
    running = [view for view in views if view.state is StepState.RUNNING]
    final = StepView(state=StepState.FINAL, description="no step of the run is waiting")
    return next(iter(blocked + running), final)


def classify_lease(
    stored: StoredLease | None, *, now: datetime, message_id: str, terms: LeaseTerms
) -> StepView:
    """Classify a RUNNING step from its lease. Pure.

    Args:
        stored: The lease, or None.
        now: The server's time of the read.
        message_id: The id of the message that names the step.
        terms: The durations of leases.
    """
    if stored is None:
        return StepView(state=StepState.UNLEASED, description="the step is RUNNING without a lease")
    lease = stored.lease
    left_seconds = lease.seconds_left(now, clock_skew_seconds=terms.clock_skew_seconds)
    if left_seconds <= 0:
        return StepView(state=StepState.LEASE_EXPIRED, description=f"the lease of {lease.owner} has expired")
    if lease.message_id == message_id:
        description = f"the step runs under this message, its lease is valid for {span(left_seconds)}"
        return StepView(state=StepState.OWN_LEASE, description=description, wait_seconds=left_seconds)
    return StepView(
        state=StepState.DUPLICATE, description=f"{lease.owner} works on the step under another message"
    )


class RescueAction(StrEnum):
    """What the rescue does with a lease that has expired."""

    LEAVE = "leave"
    DELETE = "delete"
    TAKE_OVER = "take_over"


def rescue_action(snapshot: RunSnapshot, step_id: str, *, terms: LeaseTerms) -> RescueAction:
    """Decide what to do with the lease of a step. Pure.

    A lease whose step is not RUNNING is deleted. The leases of other types of steps are left to their own
    workers, which use the same ledger.

    Raises:
        RunInvalid: The step can't be read.
    """
    stored, run = snapshot.leases[step_id], snapshot.run
    if stored is None or snapshot.read_time is None:
        return RescueAction.LEAVE
    if run is None or not run.is_running(step_id):
        return RescueAction.DELETE
    if classify_step(run, step_id).state is not StepState.RUNNING:
        return RescueAction.LEAVE
    skew = terms.clock_skew_seconds
    has_expired = stored.lease.seconds_left(snapshot.read_time, clock_skew_seconds=skew) <= 0
    return RescueAction.TAKE_OVER if has_expired else RescueAction.LEAVE


def running_steps(snapshot: RunSnapshot) -> list[str]:
    """Return the ids of the run's valid RUNNING chart steps, in order."""
    run = snapshot.run
    if run is None or run.is_final:
        return []
    steps = (run.readable_step(step_id) for step_id in run.chart_step_ids())
    return [step.step_id for step in steps if step is not None and step.status is StepStatus.RUNNING]
