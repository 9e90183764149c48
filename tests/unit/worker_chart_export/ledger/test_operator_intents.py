"""The retry of a FAILED step and the release of a RUNNING one, by an operator."""

from __future__ import annotations

import pytest
from google.cloud import firestore

from tests.support.fakes import chart_step, ohlcv_step, run_of
from tests.support.ledger.samples import (
    FINISHED,
    READ_TIME,
    S,
    expired,
    lease_of,
    observation,
    run_with,
    seconds,
    stored,
)
from worker_chart_export.ledger.decisions import ABSENT, Decision, Reason, ReleaseResult, patched
from worker_chart_export.ledger.lease import NEVER, UNKNOWN_OWNER, Lease
from worker_chart_export.ledger.operator_intents import (
    RETRY_LEASE_SECONDS,
    OperatorReleaseIntent,
    RetryIntent,
    RetryResult,
)

FAILED = {"status": "FAILED", "finishedAt": FINISHED, "error": {"code": "CHART_API_FAILED", "message": "no"}}
DELETED = firestore.DELETE_FIELD


def _retry(**changes) -> RetryIntent:
    return RetryIntent(**{"step_id": S, "operator": "ann@desk", "failure": FINISHED, **changes})


def _release(**changes) -> OperatorReleaseIntent:
    return OperatorReleaseIntent(**{"step_id": S, "operator": "ann@desk", **changes})


def _decision(intent, state) -> Decision:
    decision = intent.decide(state)
    assert decision is not None
    return decision


class TestRetry:
    """FAILED -> READY."""

    def test_a_failed_step_becomes_ready_without_its_error(self):
        """Status, error and finishing time change, and nothing else."""
        decision = _decision(_retry(), observation(run_with(**FAILED)))
        assert decision.result == RetryResult(retried=True)
        assert decision.run_patch == {
            "steps.s.status": "READY",
            "steps.s.finishedAt": DELETED,
            "steps.s.error": DELETED,
        }

    @pytest.mark.parametrize("charts_of", [None, READ_TIME - seconds(9000)])
    def test_the_next_claim_finds_the_operator_and_the_start_of_the_charts(self, charts_of):
        """The lease document of a retry shows no worker, and survives a read."""
        write = _decision(_retry(charts_of=charts_of), observation(run_with(**FAILED))).lease_write
        assert write is not None
        assert write.lease is not None
        assert write.guard is ABSENT
        lease = Lease.parse(write.lease.to_document())
        assert lease == write.lease
        assert lease.is_for_retry
        assert lease.is_released
        assert not lease.is_valid_at(READ_TIME)
        assert lease == Lease(
            owner="ann@desk",
            token="",
            attempt=0,
            released=0,
            started_at=charts_of or NEVER,
            acquired_at=READ_TIME,
            expires_at=READ_TIME + seconds(RETRY_LEASE_SECONDS),
            message_id="",
            retried_by="ann@desk",
            retried_at=READ_TIME,
        )

    def test_a_step_that_failed_again_may_be_retried_again(self):
        """The lease of the first retry does not stand for the second one."""
        before = stored(lease_of("theirs", retried_by="ann@desk"))
        assert _decision(_retry(), observation(run_with(**FAILED), before)).run_patch

    def test_a_lease_that_is_left_over_is_replaced_with_a_guard(self):
        """A lease that another writer changes meanwhile is read again."""
        write = _decision(_retry(), observation(run_with(**FAILED), expired(900))).lease_write
        assert write is not None
        assert write.guard == "t1"

    @pytest.mark.parametrize(
        ("run", "reason"),
        [
            (run_with("READY"), Reason.NOT_FAILED),
            (run_with("RUNNING"), Reason.NOT_FAILED),
            (run_with("SUCCEEDED", finishedAt=FINISHED), Reason.NOT_FAILED),
            (run_with("SKIPPED"), Reason.NOT_FAILED),
            (run_with(**(FAILED | {"finishedAt": "2025-12-15T13:00:00Z"})), Reason.CHANGED),
            (run_with(run_status="FAILED", **FAILED), Reason.RUN_FINAL),
            (run_with(run_status="CANCELLED", **FAILED), Reason.RUN_FINAL),
            (run_of({"other": chart_step()}), Reason.STEP_MISSING),
            (run_of({S: ohlcv_step() | {"status": "FAILED", "finishedAt": FINISHED}}), Reason.OTHER_TYPE),
            (
                run_of({S: chart_step(dependsOn=["o"]) | FAILED, "o": ohlcv_step() | {"status": "FAILED"}}),
                Reason.DEPENDS_ON,
            ),
        ],
    )
    def test_any_other_step_is_refused(self, run, reason):
        """Only the failure that was seen is retried, in a run that goes on, with its dependencies met."""
        decision = _decision(_retry(), observation(run))
        assert decision == Decision(result=RetryResult(retried=False, reason=reason))

    def test_a_missing_run_is_refused(self):
        """There is nothing to write."""
        state = observation(run_with(**FAILED))
        missing = _retry().decide(type(state)(run=None, lease_is_known=True, read_time=READ_TIME))
        assert missing == Decision(result=RetryResult(retried=False, reason=Reason.RUN_MISSING))

    def test_a_final_run_is_reopened_in_the_same_commit(self):
        """The run becomes RUNNING again, without its own error and end."""
        run = run_with(run_status="FAILED", **FAILED)
        decision = _decision(_retry(reopens_run=True), observation(run))
        assert decision.run_patch is not None
        assert (
            decision.run_patch.items()
            >= {
                "status": "RUNNING",
                "finishedAt": DELETED,
                "error": DELETED,
            }.items()
        )
        after = patched(run, decision.run_patch)
        assert not after.is_final
        assert after.document["status"] == "RUNNING"
        assert after.document["steps"][S]["status"] == "READY"

    def test_an_unknown_outcome_is_recognised_by_the_lease(self):
        """A commit that landed without an answer is no refusal, even if a worker has the step by now."""
        claimed = stored(lease_of("theirs", attempt=1, retried_by="ann@desk"))
        decision = _decision(_retry(), observation(run_with("RUNNING"), claimed, outcome_unknown=True))
        assert decision == Decision(result=RetryResult(retried=True))

    def test_the_lease_must_be_known(self):
        """Its guard needs a read."""
        assert _retry().decide(observation(run_with(**FAILED), lease_is_known=False)) is None


class TestRelease:
    """The lease of a RUNNING step ends."""

    @pytest.mark.parametrize("holder", ["theirs", "unknown"])
    def test_a_lease_ends_now_whoever_holds_it(self, holder):
        """The token is gone, so that its holder finds out; one more claim counts as released."""
        lease = lease_of(holder, attempt=3, released=1)
        decision = _decision(_release(), observation(lease=stored(lease)))
        assert decision.result == ReleaseResult(released=True)
        assert decision.run_patch is None
        write = decision.lease_write
        assert write is not None
        assert write.lease is not None
        assert (write.guard, write.lease.token, write.lease.released) == ("t1", "", 2)
        assert (write.lease.expires_at, write.lease.released_by) == (READ_TIME, "ann@desk")
        assert write.lease.seconds_left(READ_TIME, clock_skew_seconds=5) == 0

    def test_a_lease_of_another_type_of_step_ends_too(self):
        """The workers of all types that have leases use the same ledger."""
        state = observation(run_with(stepType="LLM_REPORT"), stored())
        assert _decision(_release(), state).result.released

    def test_a_lease_that_is_released_for_later_ends_now(self):
        """A step that waits out a backoff can be taken over at once."""
        waiting = stored(lease_of("theirs", token="", released=1))
        assert _decision(_release(), observation(lease=waiting)).result.released

    @pytest.mark.parametrize(
        ("state", "reason"),
        [
            (observation(run_with("READY"), stored()), Reason.NOT_RUNNING),
            (observation(run_with("SUCCEEDED"), stored()), Reason.NOT_RUNNING),
            (observation(run_with(run_status="FAILED"), stored()), Reason.RUN_FINAL),
            (observation(run_of({"other": chart_step()})), Reason.STEP_MISSING),
            (observation(lease=expired(1, token="")), Reason.RELEASED),
            (observation(lease=expired(0, token="")), Reason.RELEASED),
            (observation(), Reason.UNLEASED),
            (observation(run_with(stepType="LLM_REPORT")), Reason.OTHER_TYPE),
        ],
    )
    def test_what_has_no_lease_to_end_is_refused(self, state, reason):
        """Nothing is written."""
        assert _decision(_release(), state) == Decision(result=ReleaseResult(released=False, reason=reason))

    def test_a_step_without_a_lease_gets_one_that_has_ended(self):
        """Then a daemon may take it over, although its worker can't be stopped."""
        write = _decision(_release(takes_unleased=True), observation()).lease_write
        assert write is not None
        assert write.lease is not None
        assert (write.guard, write.lease.owner, write.lease.token) == (ABSENT, UNKNOWN_OWNER, "")
        assert (write.lease.attempt, write.lease.released, write.lease.message_id) == (1, 1, "")
        assert write.lease.seconds_left(READ_TIME, clock_skew_seconds=5) == 0
