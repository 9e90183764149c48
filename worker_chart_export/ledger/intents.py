"""The intents of callers (claim, finalize, release, ...), and the writes that each one needs. Pure.

The `decide` of an intent returns a `Decision`: a result, and the writes that make it true. It returns None
when it needs a newer read of the step's lease first. Each write names what the decision relied on, so that
the commit fails if that has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from worker_chart_export.errors import BackendUnavailable, ErrorCode, StepError
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import (
    ClaimResult,
    Decision,
    FinalizeResult,
    LeaseWrite,
    Observation,
    Reason,
    ReleaseResult,
    build_claim_update,
    build_finalize_failure_update,
    build_finalize_success_update,
    decide_claim,
    decide_finalize,
)

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.ledger.lease import Lease, LeaseOffer, StoredLease

#: A step that was released this often, or is this old, is failed when a backend is unavailable again.
MAX_BACKEND_RELEASES = 10
MAX_BACKEND_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimIntent:
    """Claim the step: READY -> RUNNING, or RUNNING with an expired lease.

    Attributes:
        step_id: The step.
        offer: The lease to take. None claims a READY step without a lease, and does not take a step over.
    """

    step_id: str
    offer: LeaseOffer | None
    #: Requests with a low rank are decided first: finalizes and releases before claims.
    rank: ClassVar[int] = 1
    #: The name in the metrics.
    name: ClassVar[str] = "claim"

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the claim; see the module.

        Raises:
            BackendUnavailable: It can't be known whether an earlier commit of a claim without a lease won.
            RunInvalid: The step can't be read.
        """
        result = decide_claim(observation.run, self.step_id)
        if result.reason is Reason.STEP_RUNNING:
            return self._decide_running(observation, result)
        if not result.claimed:
            return Decision(result=result)
        lease = None
        if self.offer is not None:
            if observation.read_time is None:
                return None  # the time of a lease is never counted from an old read
            lease = self.offer.first(observation.read_time)
        # A lease that a READY step still has is left over from before: replace or delete it.
        return Decision(
            result=result, run_patch=build_claim_update(self.step_id), lease_write=LeaseWrite(lease=lease)
        )

    def _decide_running(self, observation: Observation, refusal: ClaimResult) -> Decision | None:
        if self.offer is None:
            if observation.outcome_unknown:
                raise BackendUnavailable("firestore", "it is unknown whether the claim was committed")
            return Decision(result=refusal)
        if not observation.lease_is_known or observation.read_time is None:
            return None
        if observation.lease is None:
            return Decision(result=replace(refusal, reason=Reason.UNLEASED))
        lease = observation.lease.lease
        if lease.token == self.offer.token:
            return Decision(result=ClaimResult(claimed=True, status="RUNNING", run=observation.run))
        skew = self.offer.terms.clock_skew_seconds
        if lease.seconds_left(observation.read_time, clock_skew_seconds=skew) > 0:
            return Decision(result=refusal)
        return self._take_over(self.offer, observation.lease, observation.read_time, refusal)

    def _take_over(
        self, offer: LeaseOffer, stored: StoredLease, now: datetime, refusal: ClaimResult
    ) -> Decision:
        earlier = stored.lease
        if earlier.attempt - earlier.released >= offer.terms.max_attempts:
            return Decision(
                result=replace(refusal, status="FAILED", reason=Reason.CRASH_LOOP, taken_over=earlier),
                run_patch=build_finalize_failure_update(
                    step_id=self.step_id, finished_at=offer.finished_at, error=crash_loop_error(earlier)
                ),
                lease_write=LeaseWrite(lease=None, guard=stored.update_time),
            )
        return Decision(
            result=ClaimResult(claimed=True, status="RUNNING", run=refusal.run, taken_over=earlier),
            # It changes nothing, but its precondition proves that the step is still RUNNING.
            run_patch=build_claim_update(self.step_id),
            lease_write=LeaseWrite(lease=offer.after(earlier, now), guard=stored.update_time),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeIntent:
    """Finalize the step: RUNNING -> SUCCEEDED, or with an error -> FAILED; and delete the lease.

    Attributes:
        step_id: The step.
        finished_at: RFC 3339. Made once for each claim.
        manifest_uri: The manifest. A SUCCEEDED step needs one.
        error: The error of a FAILED step.
        token: The token of the lease that guards the step. None: only the step's status guards it.
    """

    step_id: str
    finished_at: str
    manifest_uri: str | None = None
    error: StepError | None = None
    token: str | None = None
    rank: ClassVar[int] = 0
    name: ClassVar[str] = "finalize"

    def patch(self) -> dict[str, Any]:
        """Build the patch of the run."""
        if self.error is not None:
            return build_finalize_failure_update(
                step_id=self.step_id, finished_at=self.finished_at, error=self.error
            )
        return build_finalize_success_update(
            step_id=self.step_id,
            finished_at=self.finished_at,
            outputs_manifest_gcs_uri=str(self.manifest_uri),
        )

    def with_minimal_error(self) -> FinalizeIntent:
        """Return a FAILED with a minimal error, to store when Firestore can't store this result."""
        code = self.error.code if self.error else ErrorCode.CRASH_LOOP
        return replace(self, manifest_uri=None, error=unstorable_error(code, manifest_uri=self.manifest_uri))

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the finalize; see the module.

        Raises:
            RunInvalid: The step can't be read.
        """
        if self.token is not None and not observation.lease_is_known:
            return None
        refusal = decide_finalize(
            observation.run,
            self.step_id,
            finished_at=self.finished_at,
            outcome_unknown=observation.outcome_unknown,
        )
        if refusal is not None and refusal.updated:
            return Decision(result=refusal)
        lease_write = None
        if self.token is not None:
            stored = observation.lease
            if stored is None or stored.lease.token != self.token:
                if refusal is None or refusal.status is not None:
                    status = refusal.status if refusal else StepStatus.RUNNING.value
                    refusal = FinalizeResult(updated=False, status=status, reason=Reason.FENCED)
                return Decision(result=refusal)
            lease_write = LeaseWrite(lease=None, guard=stored.update_time)
        if refusal is not None:
            return Decision(result=refusal, lease_write=lease_write)
        status = (StepStatus.FAILED if self.error else StepStatus.SUCCEEDED).value
        result = FinalizeResult(updated=True, status=status)
        return Decision(result=result, run_patch=self.patch(), lease_write=lease_write)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseIntent:
    """Release the lease. The step stays RUNNING, and may be taken over after the delay.

    Attributes:
        step_id: The step.
        token: The token of the lease.
        delay_seconds: 0 at shutdown. The backoff when a backend is unavailable.
        error: The error to fail the step with when backends were unavailable too often; None: never fail it.
        finished_at: RFC 3339. Marks that failure.
        is_lost: The work ended because the lease was lost. Then the lease is not released, and only deleted
            when its step is not RUNNING any more.
    """

    step_id: str
    token: str
    delay_seconds: float
    error: StepError | None
    finished_at: str
    is_lost: bool = False
    rank: ClassVar[int] = 0
    name: ClassVar[str] = "release"

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the release; see the module.

        Raises:
            RunInvalid: The step can't be read.
        """
        run, stored, now = observation.run, observation.lease, observation.read_time
        if not observation.lease_is_known or now is None:
            return None
        step = run.step(self.step_id) if run else None
        if stored is None or stored.lease.token != self.token:
            # After an unknown outcome, an empty token or our mark shows that our commit landed.
            released = stored is not None and not stored.lease.token
            failed = step is not None and step.finished_at == self.finished_at
            result = ReleaseResult(released=False, reason=Reason.FENCED)
            if observation.outcome_unknown and (released or failed):
                result = ReleaseResult(released=released, failed=failed)
            return Decision(result=result)
        delete = LeaseWrite(lease=None, guard=stored.update_time)
        if run is None or step is None or run.is_final or step.status is not StepStatus.RUNNING:
            result = ReleaseResult(released=False, reason=Reason.NOT_RUNNING)
            return Decision(result=result, lease_write=delete)
        if self.is_lost:
            return Decision(result=ReleaseResult(released=False, reason=Reason.LEASE_LOST))
        lease = stored.lease
        age_seconds = (now - lease.started_at).total_seconds()
        is_tried_enough = lease.released >= MAX_BACKEND_RELEASES or age_seconds > MAX_BACKEND_SECONDS
        if self.error is not None and is_tried_enough:
            patch = build_finalize_failure_update(
                step_id=self.step_id, finished_at=self.finished_at, error=self.error
            )
            result = ReleaseResult(released=False, failed=True)
            return Decision(result=result, run_patch=patch, lease_write=delete)
        lease = lease.released_until(now + timedelta(seconds=self.delay_seconds))
        write = LeaseWrite(lease=lease, guard=stored.update_time)
        return Decision(result=ReleaseResult(released=True), lease_write=write)


Intent = ClaimIntent | FinalizeIntent | ReleaseIntent


def unstorable_error(code: ErrorCode | str, *, manifest_uri: str | None) -> StepError:
    """Return the error to store in place of a result that Firestore refused to store."""
    return StepError(
        code=code,
        message="The step ended, but Firestore refused to store its result.",
        details={"manifestGcsUri": manifest_uri} if manifest_uri else None,
    )


def crash_loop_error(lease: Lease) -> StepError:
    """Return the error of a step that had too many attempts. `lease` is its last lease."""
    crashed = lease.attempt - lease.released
    return StepError(
        code=ErrorCode.CRASH_LOOP,
        message=f"{crashed} workers in a row ended or froze while they worked this step.",
        details={"attempt": lease.attempt, "released": lease.released, "lastOwner": lease.owner},
    )
