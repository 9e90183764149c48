"""The intents of callers (claim, finalize, release, ...), and the writes that each one needs. Pure.

The `decide` of an intent returns a `Decision`: a result, and the writes that make it true. It returns None
when it needs a newer read of the step's lease first. Each write names what the decision relied on, so that
the commit fails if that has changed.

A commit that Firestore can't store, e.g. because the run document is nearly full, is tried again in a shorter
form: see `FailureForm`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from worker_chart_export.errors import FIRESTORE, BackendUnavailable, ErrorCode, StepError
from worker_chart_export.inputs.flow_run import CHART_EXPORT, StepStatus
from worker_chart_export.ledger.decisions import (
    ABSENT,
    ClaimResult,
    Decision,
    FinalizeResult,
    LeaseWrite,
    Observation,
    Reason,
    ReleaseResult,
    build_claim_update,
    build_failed_status_update,
    build_finalize_failure_update,
    build_finalize_success_update,
    build_success_update,
    decide_claim,
    decide_finalize,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker_chart_export.ledger.lease import Lease, LeaseOffer, StoredLease

#: A step that was released this often, or is this old, is failed when a backend is unavailable again.
MAX_BACKEND_RELEASES = 10
MAX_BACKEND_SECONDS = 3600.0


class FailureForm(IntEnum):
    """How much of a step's failure is stored. A refused commit is tried again with the next form."""

    WHOLE = 0
    """What the intent asks for: a claim, a success, or a failure with its error."""
    MINIMAL = 1
    """FAILED with a short error. A claim or a success becomes a failure."""
    STATUS_ONLY = 2
    """FAILED without an error. It fits into every document that has a RUNNING step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a caller wants to do with a step.

    Attributes:
        step_id: The step.
        form: The form to commit.
    """

    step_id: str
    form: FailureForm = FailureForm.WHOLE
    #: Requests with a low rank are decided first: finalizes and releases before claims.
    rank: ClassVar[int] = 0
    #: The name in the metrics.
    name: ClassVar[str] = ""

    @property
    def needs_lease(self) -> bool:
        """Whether the decision depends on the step's lease."""
        return True

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the intent; see the module.

        Raises:
            RunInvalid: The step can't be read.
        """
        raise NotImplementedError

    def shortened(self) -> Self | None:
        """Return the intent in the next shorter form, or None when there is none."""
        if self.form is FailureForm.STATUS_ONLY:
            return None
        return replace(self, form=FailureForm(self.form + 1))

    def failure_patch(self, error: StepError, *, finished_at: str, substitute: StepError) -> dict[str, Any]:
        """Build the patch of a failure in this form. `substitute` is stored in place of the whole error."""
        if self.form is FailureForm.STATUS_ONLY:
            return build_failed_status_update(self.step_id)
        return build_finalize_failure_update(
            step_id=self.step_id,
            finished_at=finished_at,
            error=error if self.form is FailureForm.WHOLE else substitute,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimIntent(Intent):
    """Claim the step: READY -> RUNNING, or RUNNING with an expired lease.

    Attributes:
        offer: The lease to take. None claims a READY step without a lease, and does not take a step over.
        step_type: The type that the caller works on. None: any type.
    """

    offer: LeaseOffer | None
    step_type: str | None = CHART_EXPORT
    rank: ClassVar[int] = 1
    name: ClassVar[str] = "claim"

    @property
    def needs_lease(self) -> bool:
        """Whether the decision depends on the step's lease."""
        return self.offer is not None

    def shortened(self) -> Self | None:
        """Return the intent that fails the step instead. A claim without a lease never fails a step."""
        return None if self.offer is None else Intent.shortened(self)

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the claim; see the module.

        Raises:
            BackendUnavailable: It can't be known whether an earlier commit of a claim without a lease won.
            RunInvalid: The step can't be read.
        """
        result = decide_claim(observation.run, self.step_id, step_type=self.step_type)
        if result.reason is Reason.STEP_RUNNING:
            return self._decide_running(observation, result)
        if not result.claimed:
            return Decision(result=result)
        if self.offer is not None and self.form is not FailureForm.WHOLE:
            return self._fail(self.offer, result, Reason.REFUSED, lease_write=LeaseWrite(lease=None))
        write = LeaseWrite(lease=None)
        if self.offer is not None:
            if observation.read_time is None:
                return None  # the time of a lease is never counted from an old read
            write = _first_lease(self.offer, observation.lease, observation.read_time)
        return Decision(result=result, run_patch=build_claim_update(self.step_id), lease_write=write)

    def _decide_running(self, observation: Observation, refusal: ClaimResult) -> Decision | None:
        if self.offer is None:
            if observation.outcome_unknown:
                raise BackendUnavailable(FIRESTORE, "it is unknown whether the claim was committed")
            return Decision(result=refusal)
        if not observation.lease_is_known or observation.read_time is None:
            return None
        if observation.lease is None:
            return Decision(result=replace(refusal, reason=Reason.UNLEASED))
        lease = observation.lease.lease
        if lease.token == self.offer.token:
            return Decision(result=replace(refusal, claimed=True, reason=None))
        skew = self.offer.terms.clock_skew_seconds
        left = lease.seconds_left(observation.read_time, clock_skew_seconds=skew)
        if left > 0:
            return Decision(result=replace(refusal, lease_seconds_left=left))
        return self._take_over(self.offer, observation.lease, observation.read_time, refusal)

    def _take_over(
        self, offer: LeaseOffer, stored: StoredLease, now: datetime, refusal: ClaimResult
    ) -> Decision:
        earlier = stored.lease
        delete = LeaseWrite(lease=None, guard=stored.update_time)
        result = replace(refusal, taken_over=earlier)
        if earlier.attempt - earlier.released >= offer.terms.max_attempts:
            return self._fail(offer, result, Reason.CRASH_LOOP, lease_write=delete)
        if self.form is not FailureForm.WHOLE:
            return self._fail(offer, result, Reason.REFUSED, lease_write=delete)
        return Decision(
            result=replace(result, claimed=True, reason=None),
            # It changes nothing, but its precondition proves that the step is still RUNNING.
            run_patch=build_claim_update(self.step_id),
            lease_write=LeaseWrite(lease=offer.after(earlier, now), guard=stored.update_time),
        )

    def _fail(
        self, offer: LeaseOffer, result: ClaimResult, reason: Reason, *, lease_write: LeaseWrite
    ) -> Decision:
        """Fail the step, because no worker can work on it."""
        failed = replace(result, claimed=False, status=StepStatus.FAILED.value, reason=reason)
        error = claim_error(failed)
        return Decision(
            result=failed,
            run_patch=self.failure_patch(
                error, finished_at=offer.finished_at, substitute=replace(error, details=None)
            ),
            lease_write=lease_write,
        )


def _first_lease(offer: LeaseOffer, stored: StoredLease | None, now: datetime) -> LeaseWrite:
    """Return the write of the lease of a READY step.

    Few READY steps have a lease document, so it is not read before: the commit fails if there is one, and
    then it is known. That of a retry says which names the charts have. Any other is left over from before.
    """
    if stored is None:
        return LeaseWrite(lease=offer.first(now), guard=ABSENT)
    earlier = stored.lease
    lease = offer.after(earlier, now) if earlier.is_for_retry else offer.first(now)
    return LeaseWrite(lease=lease, guard=stored.update_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeIntent(Intent):
    """Finalize the step: RUNNING -> SUCCEEDED, or with an error -> FAILED; and delete the lease.

    Attributes:
        finished_at: RFC 3339. Made once for each claim.
        manifest_uri: The manifest. A SUCCEEDED step needs one, or `outputs`.
        outputs: The outputs of a SUCCEEDED step that has no manifest, because it is of another type.
        error: The error of a FAILED step.
        token: The token of the caller's lease. None: the caller has no lease. Then the step is finalized only
            if no worker has a valid lease of it.
    """

    finished_at: str
    manifest_uri: str | None = None
    outputs: Mapping[str, Any] | None = None
    error: StepError | None = None
    token: str | None = None
    name: ClassVar[str] = "finalize"

    def patch(self) -> dict[str, Any]:
        """Build the patch of the run."""
        if self.is_failure:
            code = self.error.code if self.error else ErrorCode.CRASH_LOOP
            substitute = unstorable_error(code, manifest_uri=self.manifest_uri)
            return self.failure_patch(
                self.error or substitute, finished_at=self.finished_at, substitute=substitute
            )
        if self.outputs is not None:
            return build_success_update(
                step_id=self.step_id, finished_at=self.finished_at, outputs=self.outputs
            )
        return build_finalize_success_update(
            step_id=self.step_id,
            finished_at=self.finished_at,
            outputs_manifest_gcs_uri=str(self.manifest_uri),
        )

    @property
    def is_failure(self) -> bool:
        """Whether the step becomes FAILED."""
        return self.error is not None or self.form is not FailureForm.WHOLE

    def decide(self, observation: Observation) -> Decision | None:
        """Decide on the finalize; see the module.

        Raises:
            RunInvalid: The step can't be read.
        """
        stored, now = observation.lease, observation.read_time
        if not observation.lease_is_known or (self.token is None and stored is not None and now is None):
            return None
        refusal = decide_finalize(
            observation.run,
            self.step_id,
            finished_at=self.finished_at,
            outcome_unknown=observation.outcome_unknown,
        )
        if refusal is not None and refusal.updated:
            return Decision(result=refusal)
        if self._is_fenced(stored, now):
            is_gone = refusal is not None and refusal.status is None
            if not is_gone and (refusal is None or self.token is not None):
                status = refusal.status if refusal else StepStatus.RUNNING.value
                refusal = FinalizeResult(updated=False, status=status, reason=Reason.FENCED)
            return Decision(result=refusal)
        lease_write = None if stored is None else LeaseWrite(lease=None, guard=stored.update_time)
        if refusal is not None:
            return Decision(result=refusal, lease_write=lease_write)
        status = (StepStatus.FAILED if self.is_failure else StepStatus.SUCCEEDED).value
        result = FinalizeResult(updated=True, status=status)
        return Decision(result=result, run_patch=self.patch(), lease_write=lease_write)

    def _is_fenced(self, stored: StoredLease | None, now: datetime | None) -> bool:
        """Whether the step belongs to another worker, as far as its lease shows."""
        if self.token is not None:
            return stored is None or stored.lease.token != self.token
        return stored is not None and now is not None and stored.lease.is_valid_at(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseIntent(Intent):
    """Release the lease. The step stays RUNNING, and may be taken over after the delay.

    Attributes:
        token: The token of the lease.
        delay_seconds: 0 at shutdown. The backoff when a backend is unavailable.
        error: The error to fail the step with when backends were unavailable too often; None: never fail it.
        finished_at: RFC 3339. Marks that failure.
        is_lost: The work ended because the lease was lost. Then the lease is not released, and only deleted
            when its step is not RUNNING any more.
        is_attempt: The step itself caused the end of the work, so the claim counts as an attempt.
    """

    token: str
    delay_seconds: float
    error: StepError | None
    finished_at: str
    is_lost: bool = False
    is_attempt: bool = False
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
        if run is None or not run.is_running(self.step_id):
            result = ReleaseResult(released=False, reason=Reason.NOT_RUNNING)
            return Decision(result=result, lease_write=delete)
        if self.is_lost:
            return Decision(result=ReleaseResult(released=False, reason=Reason.LEASE_LOST))
        lease = stored.lease
        age_seconds = (now - lease.trying_since).total_seconds()
        is_tried_enough = lease.released >= MAX_BACKEND_RELEASES or age_seconds > MAX_BACKEND_SECONDS
        if self.error is not None and is_tried_enough:
            patch = self.failure_patch(
                self.error,
                finished_at=self.finished_at,
                substitute=unstorable_error(self.error.code, manifest_uri=None),
            )
            result = ReleaseResult(released=False, failed=True)
            return Decision(result=result, run_patch=patch, lease_write=delete)
        expires_at = now + timedelta(seconds=self.delay_seconds)
        lease = lease.released_until(expires_at, is_attempt=self.is_attempt)
        write = LeaseWrite(lease=lease, guard=stored.update_time)
        return Decision(result=ReleaseResult(released=True), lease_write=write)


def unstorable_error(code: ErrorCode | str, *, manifest_uri: str | None) -> StepError:
    """Return the error to store in place of a result that Firestore refused to store."""
    return StepError(
        code=code,
        message="The step ended, but Firestore refused to store its result.",
        details={"manifestGcsUri": manifest_uri} if manifest_uri else None,
    )


def claim_error(result: ClaimResult) -> StepError:
    """Return the error of a step that a claim has failed."""
    if result.reason is Reason.CRASH_LOOP and result.taken_over is not None:
        return _crash_loop_error(result.taken_over)
    return StepError(
        code=ErrorCode.VALIDATION_FAILED,
        message="Firestore refused to store the claim of the step. The run document may be full (1 MiB).",
    )


def _crash_loop_error(lease: Lease) -> StepError:
    """Return the error of a step that had too many attempts. `lease` is its last lease."""
    attempts = lease.attempt - lease.released
    return StepError(
        code=ErrorCode.CRASH_LOOP,
        message=f"{attempts} attempts left no result: workers ended or froze, or a backend refused it.",
        details={"attempt": lease.attempt, "released": lease.released, "lastOwner": lease.owner},
    )
