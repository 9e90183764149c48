"""What one caller wants of one step, and what has to be written for it. Pure.

An intent's `decide` answers with a result and the writes that make it true, or with None: it has to know the
step's lease first. Every write names what the decision relied on, so that a commit proves it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from worker_chart_export.errors import BackendUnavailable, ErrorCode, StepError
from worker_chart_export.inputs.flow_run import FlowRun, Step, StepStatus
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

#: A step that a backend's absence made workers give back so often, or for so long, is failed.
MAX_BACKEND_RELEASES = 10
MAX_BACKEND_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimIntent:
    """To have the step: READY -> RUNNING, or RUNNING with a lease that is over.

    Attributes:
        step_id: The step.
        offer: The lease to take; None claims without one, and takes nothing over.
    """

    step_id: str
    offer: LeaseOffer | None
    #: Finalizes go first, because they end what others wait for; claims only begin something.
    rank: ClassVar[int] = 1
    #: What the metrics call it.
    name: ClassVar[str] = "claim"

    def decide(self, observation: Observation) -> Decision | None:
        """See the module.

        Raises:
            BackendUnavailable: Whether a claim without a lease was made can't be told.
            RunInvalid: The step can't be read.
        """
        result = decide_claim(observation.run, self.step_id)
        if result.reason is Reason.STEP_RUNNING:
            return self._decide_running(observation, result)
        if not result.claimed:
            return Decision(result=result)
        if self.offer is not None and observation.read_time is None and not observation.run_is_fresh:
            return None  # a lease is never counted from an old read
        lease = None
        if observation.read_time is not None:  # a minimal client knows neither times nor leases
            # Whatever lease stands there is of an earlier life of the step: replaced, or deleted.
            lease = LeaseWrite(lease=self.offer.first(observation.read_time) if self.offer else None)
        return Decision(result=result, run_patch=build_claim_update(self.step_id), lease_write=lease)

    def _decide_running(self, observation: Observation, refusal: ClaimResult) -> Decision | None:
        if self.offer is None:
            if observation.outcome_unknown:
                raise BackendUnavailable("firestore", "it is unknown whether the claim was committed")
            return Decision(result=refusal)
        if not observation.lease_is_known or observation.read_time is None:
            return None
        if observation.lease is None:
            return Decision(result=_refused(refusal, Reason.UNLEASED))
        if observation.lease.lease.token == self.offer.token:
            return Decision(result=ClaimResult(claimed=True, status="RUNNING", run=observation.run))
        skew = self.offer.terms.clock_skew_seconds
        if observation.lease.lease.seconds_left(observation.read_time, clock_skew_seconds=skew) > 0:
            return Decision(result=refusal)
        return self._take_over(self.offer, observation.lease, observation.read_time, refusal)

    def _take_over(
        self, offer: LeaseOffer, stored: StoredLease, now: datetime, refusal: ClaimResult
    ) -> Decision:
        earlier = stored.lease
        if earlier.attempt - earlier.released >= offer.terms.max_attempts:
            patch = build_finalize_failure_update(
                step_id=self.step_id, finished_at=offer.finished_at, error=crash_loop_of(earlier)
            )
            ended = ClaimResult(
                claimed=False, status="FAILED", reason=Reason.CRASH_LOOP, run=refusal.run, taken_over=earlier
            )
            return Decision(result=ended, run_patch=patch, lease_write=_delete(stored))
        won = ClaimResult(claimed=True, status="RUNNING", run=refusal.run, taken_over=earlier)
        # RUNNING over RUNNING changes nothing, but its precondition proves that the step still is.
        return Decision(
            result=won,
            run_patch=build_claim_update(self.step_id),
            lease_write=LeaseWrite(lease=offer.after(earlier, now), guard=stored.update_time),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeIntent:
    """To end the step: RUNNING -> SUCCEEDED or FAILED, and delete the lease.

    Attributes:
        step_id: The step.
        status: `SUCCEEDED` or `FAILED`.
        finished_at: RFC 3339; made once per claim.
        manifest_uri: The manifest of a SUCCEEDED step.
        error: The error of a FAILED step.
        token: Of the lease that guards it; None = the step's status alone does.

    Raises:
        ValueError: `status` and its companion don't go together.
    """

    step_id: str
    status: str
    finished_at: str
    manifest_uri: str | None = None
    error: StepError | None = None
    token: str | None = None
    rank: ClassVar[int] = 0
    name: ClassVar[str] = "finalize"

    def __post_init__(self) -> None:
        wanted = {"SUCCEEDED": self.manifest_uri, "FAILED": self.error}.get(self.status)
        if wanted is None:
            raise ValueError(
                f"{self.status!r}: expected SUCCEEDED with outputs_manifest_gcs_uri or FAILED with error"
            )

    def patch(self) -> dict[str, Any]:
        """What it writes to the run."""
        if self.error is not None and self.status == StepStatus.FAILED:
            return build_finalize_failure_update(
                step_id=self.step_id, finished_at=self.finished_at, error=self.error
            )
        return build_finalize_success_update(
            step_id=self.step_id,
            finished_at=self.finished_at,
            outputs_manifest_gcs_uri=str(self.manifest_uri),
        )

    def with_minimal_error(self) -> FinalizeIntent:
        """The same end with the least to store, for when Firestore takes nothing more."""
        code = self.error.code if self.error else ErrorCode.CRASH_LOOP
        error = unstorable(code, manifest_uri=self.manifest_uri)
        return replace(self, status=StepStatus.FAILED.value, manifest_uri=None, error=error)

    def decide(self, observation: Observation) -> Decision | None:
        """See the module.

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
        is_ours = observation.lease is not None and observation.lease.lease.token == self.token
        if self.token is not None and not is_ours:
            return Decision(result=_fenced(observation.run, self.step_id))
        lease = (
            _delete(observation.lease) if self.token is not None and observation.lease is not None else None
        )
        if refusal is not None:
            return Decision(result=refusal, lease_write=lease)
        done = FinalizeResult(updated=True, status=self.status)
        return Decision(result=done, run_patch=self.patch(), lease_write=lease)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseIntent:
    """To give the step back: it stays RUNNING, and may be taken over once the delay has passed.

    Attributes:
        step_id: The step.
        token: Of the lease to release.
        is_lost: The work ended because the lease did, so that there is nothing to give back; it is only
            deleted where its step is not RUNNING any more.
        delay_seconds: 0 at shutdown; the backoff when a backend is away.
        error: What the step fails with once backends made workers release it too often; None = never.
        finished_at: RFC 3339; marks that failure.
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
        """See the module.

        Raises:
            RunInvalid: The step can't be read.
        """
        if not observation.lease_is_known or observation.read_time is None:
            return None
        step = observation.run.step(self.step_id) if observation.run else None
        if observation.lease is None or observation.lease.lease.token != self.token:
            return Decision(result=self._no_longer_ours(observation, step))
        if (
            step is None
            or step.status is not StepStatus.RUNNING
            or (observation.run and observation.run.is_final)
        ):
            gone = ReleaseResult(released=False, reason=Reason.NOT_RUNNING)
            return Decision(result=gone, lease_write=_delete(observation.lease))
        if self.is_lost:
            return Decision(result=ReleaseResult(released=False, reason=Reason.LEASE_LOST))
        lease = observation.lease.lease
        if self.error is not None and _waited_enough(lease, observation.read_time):
            return self._fail(self.error, observation.lease)
        given_back = lease.released_until(observation.read_time + timedelta(seconds=self.delay_seconds))
        return Decision(
            result=ReleaseResult(released=True),
            lease_write=LeaseWrite(lease=given_back, guard=observation.lease.update_time),
        )

    def _fail(self, error: StepError, stored: StoredLease) -> Decision:
        patch = build_finalize_failure_update(step_id=self.step_id, finished_at=self.finished_at, error=error)
        failed = ReleaseResult(released=False, failed=True)
        return Decision(result=failed, run_patch=patch, lease_write=_delete(stored))

    def _no_longer_ours(self, observation: Observation, step: Step | None) -> ReleaseResult:
        """After an unknown outcome, a lease that nobody holds is the one that was given back."""
        given_back = observation.lease is not None and not observation.lease.lease.token
        failed = step is not None and step.finished_at == self.finished_at
        if observation.outcome_unknown and (given_back or failed):
            return ReleaseResult(released=given_back, failed=failed)
        return ReleaseResult(released=False, reason=Reason.FENCED)


Intent = ClaimIntent | FinalizeIntent | ReleaseIntent


def _waited_enough(lease: Lease, now: datetime) -> bool:
    waited_seconds = (now - lease.started_at).total_seconds()
    return lease.released >= MAX_BACKEND_RELEASES or waited_seconds > MAX_BACKEND_SECONDS


def _delete(stored: StoredLease) -> LeaseWrite:
    return LeaseWrite(lease=None, guard=stored.update_time)


def _refused(refusal: ClaimResult, reason: Reason) -> ClaimResult:
    return ClaimResult(claimed=False, status=refusal.status, reason=reason, run=refusal.run)


def _fenced(run: FlowRun | None, step_id: str) -> FinalizeResult:
    """A lost lease; the run's own end is told first, because then there is nothing to look at again."""
    step = run.step(step_id) if run else None
    if run is None or step is None:
        return FinalizeResult(
            updated=False, status=None, reason=Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        )
    return FinalizeResult(updated=False, status=step.status.value, reason=Reason.FENCED)


def unstorable(code: ErrorCode | str, *, manifest_uri: str | None) -> StepError:
    """What stands in the place of a result that Firestore refused."""
    return StepError(
        code=code,
        message="The step ended, but Firestore refused to store its result.",
        details={"manifestGcsUri": manifest_uri} if manifest_uri else None,
    )


def crash_loop_of(lease: Lease) -> StepError:
    """What a step fails with whose last lease this was, after too many attempts."""
    crashed = lease.attempt - lease.released
    return StepError(
        code=ErrorCode.CRASH_LOOP,
        message=f"{crashed} workers in a row ended or froze while they worked this step.",
        details={"attempt": lease.attempt, "released": lease.released, "lastOwner": lease.owner},
    )
