"""Finalizes and releases: who may, what they write, and what an earlier try may have done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.ledger.samples import (
    AWAY,
    ERROR,
    FINISHED,
    MANIFEST,
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
    build_finalize_failure_update,
    build_finalize_success_update,
)
from worker_chart_export.ledger.intents import FinalizeIntent
from worker_chart_export.ledger.lease import Lease

FOREIGN = stored(lease_of("theirs"))
DELETED = LeaseWrite(lease=None, guard="t1")


def _decision(intent, state) -> Decision:
    decision = intent.decide(state)
    assert decision is not None
    return decision


class TestFinalize:
    """RUNNING -> SUCCEEDED or FAILED."""

    def test_a_success_is_written_and_the_lease_deleted(self):
        """In one commit, guarded by the lease's update time."""
        decision = _decision(success(), observation(None, stored()))
        assert decision.run_patch == build_finalize_success_update(
            step_id="s", finished_at=FINISHED, outputs_manifest_gcs_uri=MANIFEST
        )
        assert decision.lease_write == DELETED
        assert decision.result == FinalizeResult(updated=True, status="SUCCEEDED")

    def test_a_failure_is_written_and_the_lease_deleted(self):
        """The same way."""
        decision = _decision(failure(), observation(None, stored()))
        assert decision.run_patch == build_finalize_failure_update(
            step_id="s", finished_at=FINISHED, error=ERROR
        )
        assert decision.lease_write == DELETED

    def test_the_lease_has_to_be_known(self):
        """It is the fence."""
        assert success().decide(observation(lease_is_known=False)) is None

    @pytest.mark.parametrize("found", [None, FOREIGN, stored(lease_of("").released_until(READ_TIME))])
    def test_a_lost_lease_fences(self, found):
        """Nothing is written, least of all to another's lease."""
        decision = _decision(success(), observation(None, found))
        assert not decision.writes
        assert decision.result == FinalizeResult(updated=False, status="RUNNING", reason="fenced")

    def test_without_a_lease_the_status_alone_guards(self):
        """And no lease is touched."""
        decision = _decision(success(None), observation(None, FOREIGN))
        assert (decision.result.updated, decision.lease_write) == (True, None)

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            ("READY", Reason.NOT_RUNNING),
            ("PENDING", Reason.NOT_RUNNING),
            ("SUCCEEDED", Reason.STEP_FINAL),
            ("CANCELLED", Reason.STEP_FINAL),
        ],
    )
    def test_what_the_orchestrator_changed_stands_and_the_lease_goes(self, status, reason):
        """Nobody needs it any more."""
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
    def test_of_a_run_or_a_step_that_is_gone_only_the_lease_is_deleted(self, found, reason):
        """It would lie about for ever."""
        decision = _decision(success(), found)
        assert (decision.run_patch, decision.lease_write) == (None, DELETED)
        assert decision.result == FinalizeResult(updated=False, status=None, reason=reason)

    def test_a_run_that_is_gone_is_told_even_when_the_lease_is_too(self):
        """There is nothing to look at again."""
        assert _decision(success(), replace(observation(), run=None)).result.reason == Reason.RUN_MISSING

    @pytest.mark.parametrize("found", [None, stored(), FOREIGN])
    def test_one_s_own_mark_after_an_unknown_outcome_is_a_finalize_that_won(self, found):
        """Whatever became of the lease."""
        landed = run_with("SUCCEEDED", finishedAt=FINISHED)
        decision = _decision(success(), observation(landed, found, outcome_unknown=True))
        assert decision.result == FinalizeResult(updated=True, status="SUCCEEDED")
        assert not decision.writes

    def test_one_s_own_mark_without_a_try_proves_nothing(self):
        """Two clocks may agree."""
        landed = run_with("SUCCEEDED", finishedAt=FINISHED)
        assert not _decision(success(), observation(landed, stored())).result.updated

    def test_a_step_still_running_after_an_unknown_outcome_is_finalized_again(self):
        """The first try did not land."""
        assert _decision(success(), observation(None, stored(), outcome_unknown=True)).writes

    def test_a_status_without_its_companion_is_a_mistake_of_the_caller(self):
        """Told before anything is read."""
        with pytest.raises(ValueError, match="expected SUCCEEDED with"):
            FinalizeIntent(step_id="s", status="FAILED", finished_at=FINISHED, manifest_uri=MANIFEST)

    def test_the_minimal_error_keeps_code_token_and_mark(self):
        """Of the failure, but none of its words."""
        minimal = failure().with_minimal_error()
        assert minimal.error is not None
        assert (minimal.error.code, minimal.error.details) == ("CHART_API_FAILED", None)
        assert (minimal.token, minimal.finished_at) == ("mine", FINISHED)
        assert minimal.with_minimal_error() == minimal

    def test_a_success_that_can_t_be_stored_becomes_a_failure(self):
        """With the least to store."""
        minimal = success().with_minimal_error()
        assert (minimal.status, minimal.manifest_uri) == ("FAILED", None)
        assert "error" in {path.split(".")[2] for path in minimal.patch()}


class TestRelease:
    """RUNNING stays RUNNING, and the lease ends."""

    def test_at_shutdown_the_lease_ends_now(self):
        """Guarded; the run is not written."""
        decision = _decision(release(), observation(None, stored()))
        given_back = lease_of().released_until(READ_TIME)
        assert (decision.run_patch, decision.lease_write) == (None, LeaseWrite(lease=given_back, guard="t1"))
        assert decision.result == ReleaseResult(released=True)

    def test_for_a_backend_it_ends_after_the_backoff(self):
        """Nobody takes it over before."""
        decision = _decision(release(delay=7, error=AWAY), observation(None, stored()))
        assert decision.lease_write is not None
        assert decision.lease_write.lease == lease_of().released_until(READ_TIME + seconds(7))

    def test_the_lease_has_to_be_known(self):
        """Another's is never released."""
        assert release().decide(observation(lease_is_known=False)) is None

    @pytest.mark.parametrize("found", [None, FOREIGN])
    def test_a_lost_lease_fences(self, found):
        """Nothing is written."""
        decision = _decision(release(), observation(None, found))
        assert not decision.writes
        assert decision.result == ReleaseResult(released=False, reason=Reason.FENCED)

    @pytest.mark.parametrize("run", [None, run_with("CANCELLED"), run_with("READY")])
    def test_the_lease_of_a_step_that_is_not_running_is_deleted(self, run):
        """There is nothing to give back."""
        decision = _decision(release(error=AWAY), replace(observation(None, stored()), run=run))
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
    def test_for_a_backend_that_stays_away_too_long_the_step_is_failed(self, lease):
        """After ten releases or an hour; with the backend's code."""
        decision = _decision(release(error=AWAY), observation(None, stored(lease)))
        assert decision.run_patch == build_finalize_failure_update(
            step_id="s", finished_at=FINISHED, error=AWAY
        )
        assert decision.lease_write == DELETED
        assert decision.result == ReleaseResult(released=False, failed=True)

    @pytest.mark.parametrize(
        "lease", [lease_of(attempt=10, released=9), lease_of(started_at=READ_TIME - seconds(3600))]
    )
    def test_up_to_the_limit_it_is_given_back(self, lease):
        """The tenth time, and in the last second of the hour."""
        assert _decision(release(error=AWAY), observation(None, stored(lease))).result.released

    def test_at_shutdown_there_is_no_limit(self):
        """It is not the step's fault."""
        worn = stored(lease_of(attempt=90, released=80, started_at=READ_TIME - seconds(90000)))
        assert _decision(release(), observation(None, worn)).result.released

    def test_a_lease_nobody_holds_after_an_unknown_outcome_was_given_back(self):
        """Its token is gone."""
        given_back = stored(lease_of().released_until(READ_TIME))
        decision = _decision(release(), observation(None, given_back, outcome_unknown=True))
        assert (decision.result, decision.writes) == (ReleaseResult(released=True), False)

    def test_one_s_own_mark_after_an_unknown_outcome_was_the_failure(self):
        """The lease is gone with it."""
        failed = run_with("FAILED", finishedAt=FINISHED)
        decision = _decision(release(error=AWAY), observation(failed, None, outcome_unknown=True))
        assert (decision.result, decision.writes) == (ReleaseResult(released=False, failed=True), False)

    def test_a_token_still_there_after_an_unknown_outcome_is_released_again(self):
        """The first try did not land."""
        assert _decision(release(), observation(None, stored(), outcome_unknown=True)).writes
