"""The intents of an operator: retry a FAILED step, and release a step from outside. Pure.

Workers write neither of them. See `intents` for the meaning of `decide`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Self

from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import (
    ABSENT,
    Decision,
    LeaseWrite,
    Observation,
    Reason,
    ReleaseResult,
    build_reopen_update,
    build_retry_update,
)
from worker_chart_export.ledger.intents import Intent
from worker_chart_export.ledger.lease import NEVER, UNKNOWN_OWNER, Lease

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from worker_chart_export.inputs.flow_run import FlowRun, Step
    from worker_chart_export.ledger.lease import StoredLease

#: How long the lease document of a retry waits for a claim, before the rescue deletes it. After that the step
#: is still READY, but its charts are made anew.
RETRY_LEASE_SECONDS = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryResult:
    """The result of a retry.

    Attributes:
        retried: Whether the step is READY because of this retry.
        reason: Why it is not.
    """

    retried: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryIntent(Intent):
    """Make a FAILED step READY again, without its error, and write a lease document for its next claim.

    Attributes:
        operator: Who does it, as user@host. Noted in the lease.
        failure: The `finishedAt` of the failure that was seen. A step that has failed again since is not
            changed.
        charts_of: The start of the attempts whose charts are used again; None: all charts are made anew.
        reopens_run: A final run becomes RUNNING again. If not, its steps are refused.
    """

    operator: str
    failure: Any
    charts_of: datetime | None = None
    reopens_run: bool = False
    name: ClassVar[str] = "retry"

    def shortened(self) -> Self | None:
        """Return None: there is no shorter form."""
        return None

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the retry; see the module.

        Raises:
            RunInvalid: The step, or one that it depends on, can't be read.
        """
        run, stored, now = observation.run, observation.lease, observation.read_time
        if not observation.lease_is_known or now is None:
            return None
        step = run.step(self.step_id) if run else None
        if run is None or step is None:
            reason = Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
            return Decision(result=RetryResult(retried=False, reason=reason))
        if observation.outcome_unknown and stored is not None and stored.lease.retried_by == self.operator:
            return Decision(result=RetryResult(retried=True))
        if refusal := self._why_refused(run, step):
            return Decision(result=RetryResult(retried=False, reason=refusal))
        return Decision(
            result=RetryResult(retried=True),
            run_patch=build_retry_update(self.step_id) | (build_reopen_update() if run.is_final else {}),
            lease_write=LeaseWrite(
                lease=self._lease(now), guard=ABSENT if stored is None else stored.update_time
            ),
        )

    def _why_refused(self, run: FlowRun, step: Step) -> Reason | None:
        if not step.is_chart_export:
            return Reason.OTHER_TYPE
        if step.status is not StepStatus.FAILED:
            return Reason.NOT_FAILED
        if step.finished_at != self.failure:
            return Reason.CHANGED
        if run.is_final and not self.reopens_run:
            return Reason.RUN_FINAL
        return Reason.DEPENDS_ON if run.unmet_dependencies(step) else None

    def _lease(self, now: datetime) -> Lease:
        return Lease(
            owner=self.operator,
            token="",
            attempt=0,
            released=0,
            started_at=self.charts_of or NEVER,
            acquired_at=now,
            expires_at=now + timedelta(seconds=RETRY_LEASE_SECONDS),
            message_id="",
            retried_by=self.operator,
            retried_at=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorReleaseIntent(Intent):
    """End the lease of a RUNNING step now, whoever holds it. Its holder can't write any more.

    Attributes:
        operator: Who does it, as user@host. Noted in the lease.
        takes_unleased: A step that is RUNNING without a lease gets one that has ended. If not, it is refused,
            because its worker can't be stopped.
    """

    operator: str
    takes_unleased: bool = False
    name: ClassVar[str] = "release"

    def shortened(self) -> Self | None:
        """Return None: there is no shorter form."""
        return None

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the release; see the module.

        Raises:
            RunInvalid: The step can't be read.
        """
        run, stored, now = observation.run, observation.lease, observation.read_time
        if not observation.lease_is_known or now is None:
            return None
        step = run.step(self.step_id) if run else None
        reason = _why_not_released(run, step, stored)
        if reason is None and stored is None and not self.takes_unleased:
            reason = Reason.UNLEASED
        if (
            reason is None
            and stored is not None
            and not stored.lease.token
            and stored.lease.expires_at <= now
        ):
            reason = Reason.RELEASED
        if reason is not None:
            return Decision(result=ReleaseResult(released=False, reason=reason))
        lease = _unknown_lease(now) if stored is None else stored.lease
        lease = replace(lease.released_until(now), released_by=self.operator)
        return Decision(
            result=ReleaseResult(released=True),
            lease_write=LeaseWrite(lease=lease, guard=ABSENT if stored is None else stored.update_time),
        )


def _why_not_released(run: FlowRun | None, step: Step | None, stored: StoredLease | None) -> Reason | None:
    if run is None:
        return Reason.RUN_MISSING
    if step is None:
        return Reason.STEP_MISSING
    if not step.is_chart_export and stored is None:
        return Reason.OTHER_TYPE  # its workers may use no leases
    if step.status is not StepStatus.RUNNING:
        return Reason.NOT_RUNNING
    return Reason.RUN_FINAL if run.is_final else None


def _unknown_lease(now: datetime) -> Lease:
    return Lease(
        owner=UNKNOWN_OWNER,
        token="",
        attempt=1,
        released=0,
        started_at=now,
        acquired_at=now,
        expires_at=now,
        message_id="",
    )
