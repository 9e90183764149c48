"""Finalizes and releases: who may, what they write, and unknown outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.ledger.samples import (
    ERROR,
    FINISHED,
    MANIFEST,
    OUTAGE,
    READ_TIME,
    failure,
    lease_of,
    observation,
    release,
    run_with,
    seconds,
    stored,
    success,
)
from worker_chart_export.ledger.decisions import (
    Decision,
    FinalizeResult,
    LeaseWrite,
    Reason,
    ReleaseResult,
    build_failed_status_update,
    build_finalize_failure_update,
    build_finalize_success_update,
)
from worker_chart_export.ledger.intents import FailureForm, unstorable_error
from worker_chart_export.ledger.lease import UNKNOWN_OWNER, Lease

FOREIGN = stored(lease_of("theirs"))
DELETED = LeaseWrite(lease=None, guard="t1")


def _decision(intent, state) -> Decision:
    decision = intent.decide(state)
    assert decision is not None
    return decision


class TestFinalize:
    """Finalizes that change RUNNING to SUCCEEDED or FAILED."""

    def test_a_success_is_written_and_the_lease_deleted(self):
        """A success is written and its lease deleted in one commit, guarded by the lease's update time."""
        decision = _decision(success(), observation(None, stored()))
        assert decision.run_patch == build_finalize_success_update(
            step_id="s", finished_at=FINISHED, outputs_manifest_gcs_uri=MANIFEST
        )
        assert decision.lease_write == DELETED
        assert decision.result == FinalizeResult(updated=True, status="SUCCEEDED")

    def test_a_failure_is_written_and_the_lease_deleted(self):
        """A failure is written and its lease deleted in one commit."""
        decision = _decision(failure(), observation(None, stored()))
        assert decision.run_patch == build_finalize_failure_update(
            step_id="s", finished_at=FINISHED, error=ERROR
        )
        assert decision.lease_write == DELETED

    def test_the_lease_has_to_be_known(self):
        """A finalize needs the lease, because the lease is the fence."""
        assert success().decide(observation(lease_is_known=False)) is None

    @pytest.mark.parametrize("found", [None, FOREIGN, stored(lease_of("").released_until(READ_TIME))])
    def test_a_lost_lease_fences(self, found):
        """A worker that lost its lease writes nothing."""
        decision = _decision(success(), observation(None, found))
        assert (decision.run_patch, decision.lease_write) == (None, None)
        assert decision.result == FinalizeResult(updated=False, status="RUNNING", reason="fenced")

    @pytest.mark.parametrize(
        ("found", "lease_write"),
        [
            (None, None),
            (stored(lease_of("theirs", expires_at=READ_TIME)), DELETED),
            (stored(lease_of("theirs").released_until(READ_TIME + seconds(60))), DELETED),
            (stored(lease_of("theirs", owner=UNKNOWN_OWNER)), DELETED),
        ],
    )
    def test_a_caller_without_a_lease_finalizes_and_deletes_a_lease_of_nobody(self, found, lease_write):
        """Without a lease a step is finalized that no worker holds; what is left of a lease is deleted."""
        decision = _decision(success(None), observation(None, found))
        assert decision.result == FinalizeResult(updated=True, status="SUCCEEDED")
        assert decision.lease_write == lease_write

    def test_a_lost_lease_fences_also_when_the_step_has_ended(self):
        """The worker gets the status that another worker has written."""
        decision = _decision(success(), observation(run_with("FAILED"), FOREIGN))
        assert decision.result == FinalizeResult(updated=False, status="FAILED", reason=Reason.FENCED)

    def test_a_caller_without_a_lease_is_fenced_by_a_valid_one(self):
        """A caller without a lease is fenced by the valid lease of a worker."""
        decision = _decision(success(None), observation(None, FOREIGN))
        assert decision.result == FinalizeResult(updated=False, status="RUNNING", reason=Reason.FENCED)
        assert (decision.run_patch, decision.lease_write) == (None, None)

    def test_a_caller_without_a_lease_gets_the_reason_of_a_step_that_has_ended(self):
        """A caller without a lease gets the step's own reason when it is not RUNNING."""
        decision = _decision(success(None), observation(run_with("FAILED"), FOREIGN))
        assert (decision.result.reason, decision.lease_write) == (Reason.STEP_FINAL, None)

    def test_a_caller_without_a_lease_needs_the_lease_and_the_server_s_time(self):
        """A caller without a lease needs a read of the lease, and the time to judge it by."""
        assert success(None).decide(observation(lease_is_known=False)) is None
        assert success(None).decide(observation(None, FOREIGN, read_time=None)) is None

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            ("READY", Reason.NOT_RUNNING),
            ("PENDING", Reason.NOT_RUNNING),
            ("SUCCEEDED", Reason.STEP_FINAL),
            ("CANCELLED", Reason.STEP_FINAL),
        ],
    )
    def test_what_the_orchestrator_changed_stays_and_the_lease_is_deleted(self, status, reason):
        """What the orchestrator changed stays, and the lease is deleted."""
        decision = _decision(success(), observation(run_with(status), stored()))
        assert decision.run_patch is None
        assert decision.lease_write == DELETED
        assert decision.result == FinalizeResult(updated=False, status=status, reason=reason)

    @pytest.mark.parametrize(
        ("found", "reason"),
        [
            (replace(observation(None, stored()), run=None), Reason.RUN_MISSING),
            (
                replace(observation(None, stored()), run=replace(run_with(), document={"steps": {}})),
                "step_missing",
            ),
        ],
    )
    def test_of_a_deleted_run_or_step_only_the_lease_is_deleted(self, found, reason):
        """Only the lease is deleted when the run or the step no longer exists."""
        decision = _decision(success(), found)
        assert (decision.run_patch, decision.lease_write) == (None, DELETED)
        assert decision.result == FinalizeResult(updated=False, status=None, reason=reason)

    def test_a_deleted_run_is_reported_also_without_its_lease(self):
        """A deleted run is reported as deleted also when its lease is deleted too."""
        assert _decision(success(), replace(observation(), run=None)).result.reason == Reason.RUN_MISSING

    @pytest.mark.parametrize("found", [None, stored(), FOREIGN])
    def test_one_s_own_mark_after_an_unknown_outcome_is_a_finalize_that_won(self, found):
        """Its own finishing time after an unknown outcome proves a won finalize, whatever the lease."""
        landed = run_with("SUCCEEDED", finishedAt=FINISHED)
        decision = _decision(success(), observation(landed, found, outcome_unknown=True))
        assert decision.result == FinalizeResult(updated=True, status="SUCCEEDED")
        assert (decision.run_patch, decision.lease_write) == (None, None)

    def test_one_s_own_mark_without_a_try_proves_nothing(self):
        """Its own finishing time without an earlier attempt proves nothing, because clocks can agree."""
        landed = run_with("SUCCEEDED", finishedAt=FINISHED)
        assert not _decision(success(), observation(landed, stored())).result.updated

    def test_a_step_still_running_after_an_unknown_outcome_is_finalized_again(self):
        """A step still RUNNING after an unknown outcome is finalized again."""
        decision = _decision(success(), observation(None, stored(), outcome_unknown=True))
        assert decision.run_patch == success().patch()

    def test_a_failure_is_shortened_to_a_minimal_error_and_then_to_its_status(self):
        """The first shorter form keeps the code and the finishing time, the last one only the status."""
        assert unstorable_error("CHART_API_FAILED", manifest_uri=None).details is None
        minimal = failure().shortened()
        assert minimal is not None
        assert minimal.patch() == {
            "steps.s.status": "FAILED",
            "steps.s.finishedAt": FINISHED,
            "steps.s.error": unstorable_error("CHART_API_FAILED", manifest_uri=None).to_dict(),
        }
        shortest = minimal.shortened()
        assert shortest is not None
        assert shortest.patch() == build_failed_status_update("s")
        assert shortest.shortened() is None

    def test_a_success_that_can_t_be_stored_becomes_a_failure(self):
        """A success that can't be stored becomes a failure that names the manifest."""
        minimal = success().shortened()
        assert minimal is not None
        assert minimal.patch()["steps.s.error"]["details"] == {"manifestGcsUri": MANIFEST}
        decision = _decision(minimal, observation(None, stored()))
        assert decision.result == FinalizeResult(updated=True, status="FAILED")


class TestRelease:
    """Releases keep RUNNING and end the lease."""

    def test_at_shutdown_the_lease_ends_now(self):
        """At shutdown the lease ends now, guarded, and the run is not written."""
        decision = _decision(release(), observation(None, stored()))
        released = lease_of().released_until(READ_TIME)
        assert (decision.run_patch, decision.lease_write) == (None, LeaseWrite(lease=released, guard="t1"))
        assert decision.result == ReleaseResult(released=True)

    def test_for_a_backend_it_ends_after_the_backoff(self):
        """For an unavailable backend the lease ends after the backoff, and no worker takes over before."""
        decision = _decision(release(delay=7, error=OUTAGE), observation(None, stored()))
        assert decision.lease_write is not None
        assert decision.lease_write.lease == lease_of().released_until(READ_TIME + seconds(7))

    def test_after_a_refusal_the_claim_counts_as_an_attempt(self):
        """A release after a refusal raises `attempt - released`, so that `MAX_ATTEMPTS` ends the step."""
        decision = _decision(replace(release(delay=7), is_attempt=True), observation(None, stored()))
        assert decision.lease_write is not None
        lease = decision.lease_write.lease
        assert lease is not None
        assert (lease.attempt, lease.released, lease.token) == (2, 0, "")
        assert lease.expires_at == READ_TIME + seconds(7)

    def test_its_failure_can_be_shortened_too(self):
        """The failure of a step whose backend stays unavailable has the same shorter forms."""
        worn = stored(lease_of(attempt=11, released=10))
        shortest = replace(release(error=OUTAGE), form=FailureForm.STATUS_ONLY)
        assert _decision(shortest, observation(None, worn)).run_patch == build_failed_status_update("s")

    def test_the_lease_has_to_be_known(self):
        """A release needs the lease, so that another's is never released."""
        assert release().decide(observation(lease_is_known=False)) is None

    @pytest.mark.parametrize("found", [None, FOREIGN, stored(lease_of().released_until(READ_TIME))])
    def test_a_lost_lease_fences(self, found):
        """A worker that lost its lease releases nothing."""
        decision = _decision(release(), observation(None, found))
        assert (decision.run_patch, decision.lease_write) == (None, None)
        assert decision.result == ReleaseResult(released=False, reason=Reason.FENCED)

    def test_the_lease_of_work_that_is_fenced_is_left(self):
        """Work that ended because its lease may be lost changes nothing as long as the step is RUNNING."""
        decision = _decision(replace(release(), is_lost=True), observation(None, stored()))
        result = ReleaseResult(released=False, reason=Reason.LEASE_LOST)
        assert decision == Decision(result=result)

    @pytest.mark.parametrize("run", [None, run_with("CANCELLED"), run_with("READY")])
    def test_the_lease_of_a_step_that_is_not_running_is_deleted(self, run):
        """The lease of a step that is not RUNNING is deleted."""
        decision = _decision(release(error=OUTAGE), replace(observation(None, stored()), run=run))
        assert (decision.run_patch, decision.lease_write) == (None, DELETED)
        assert decision.result == ReleaseResult(released=False, reason=Reason.NOT_RUNNING)

    @pytest.mark.parametrize(
        "lease",
        [
            lease_of(attempt=11, released=10),
            lease_of(started_at=READ_TIME - seconds(3601)),
            Lease.parse({"token": "mine", "attempt": 2}),
        ],
    )
    def test_a_step_whose_backend_stays_unavailable_too_long_is_failed(self, lease):
        """After ten releases or an hour the step fails with the backend's code."""
        decision = _decision(release(error=OUTAGE), observation(None, stored(lease)))
        assert decision.run_patch == build_finalize_failure_update(
            step_id="s", finished_at=FINISHED, error=OUTAGE
        )
        assert decision.lease_write == DELETED
        assert decision.result == ReleaseResult(released=False, failed=True)

    @pytest.mark.parametrize(
        "lease", [lease_of(attempt=10, released=9), lease_of(started_at=READ_TIME - seconds(3600))]
    )
    def test_up_to_the_limit_it_is_released(self, lease):
        """The tenth release, and one in the last second of the hour, still release the step."""
        assert _decision(release(error=OUTAGE), observation(None, stored(lease))).result.released

    def test_at_shutdown_there_is_no_limit(self):
        """Releases at shutdown have no limit, because the step did not cause them."""
        worn = stored(lease_of(attempt=90, released=80, started_at=READ_TIME - seconds(90000)))
        assert _decision(release(), observation(None, worn)).result.released

    def test_a_lease_without_holder_after_an_unknown_outcome_was_released(self):
        """A lease without holder after an unknown outcome proves the release."""
        released = stored(lease_of().released_until(READ_TIME))
        decision = _decision(release(), observation(None, released, outcome_unknown=True))
        assert decision == Decision(result=ReleaseResult(released=True))

    def test_one_s_own_mark_after_an_unknown_outcome_was_the_failure(self):
        """Its own finishing time after an unknown outcome proves that the step was failed."""
        failed = run_with("FAILED", finishedAt=FINISHED)
        decision = _decision(release(error=OUTAGE), observation(failed, None, outcome_unknown=True))
        assert decision == Decision(result=ReleaseResult(released=False, failed=True))

    def test_a_token_still_there_after_an_unknown_outcome_is_released_again(self):
        """When its token is still in the lease after an unknown outcome, it is released again."""
        decision = _decision(release(), observation(None, stored(), outcome_unknown=True))
        assert decision.lease_write is not None
