"""Claims of READY steps, of steps with an expired lease, and after an unknown outcome."""

from __future__ import annotations

import pytest

from tests.support.fakes import chart_step, ohlcv_step, run_of
from tests.support.ledger.samples import (
    FINISHED,
    READ_TIME,
    S,
    claim,
    expired,
    lease_of,
    observation,
    offer_of,
    run_with,
    seconds,
    stored,
)
from worker_chart_export.errors import BackendUnavailable, RunInvalid
from worker_chart_export.ledger.decisions import ABSENT, ClaimResult, Decision, LeaseWrite, Reason
from worker_chart_export.ledger.lease import NEVER, Lease

READY = run_with("READY")


def _decision(intent, state) -> Decision:
    decision = intent.decide(state)
    assert decision is not None
    return decision


def _refusal(intent, state) -> ClaimResult:
    """Return the result of a claim that writes nothing."""
    decision = _decision(intent, state)
    assert (decision.run_patch, decision.lease_write) == (None, None)
    assert not decision.result.claimed
    result: ClaimResult = decision.result
    return result


class TestReady:
    """Claims that change READY to RUNNING."""

    def test_a_ready_step_becomes_running(self):
        """A READY step becomes RUNNING, and the claimer holds it."""
        decision = _decision(claim(), observation(READY))
        assert decision.run_patch == {"steps.s.status": "RUNNING"}
        assert (decision.result.claimed, decision.result.status) == (True, "RUNNING")
        assert decision.result.taken_over is None

    @pytest.mark.parametrize("found", [stored(), expired(900), expired(900, token="", retried_by="a@b")])
    def test_its_lease_replaces_one_that_is_left_over(self, found):
        """The claim of a READY step replaces a left-over lease: first attempt, new start."""
        decision = _decision(claim(), observation(READY, found))
        assert decision.lease_write == LeaseWrite(lease=offer_of().first(READ_TIME), guard="t1")

    def test_its_lease_is_expected_to_be_absent(self):
        """Without a lease, or when it was not read, the claim creates the document."""
        for is_known in (True, False):
            decision = _decision(claim(), observation(READY, lease_is_known=is_known))
            assert decision.lease_write == LeaseWrite(lease=offer_of().first(READ_TIME), guard=ABSENT)

    @pytest.mark.parametrize("charts_of", [NEVER, READ_TIME - seconds(9000)])
    def test_the_lease_of_a_retry_gives_the_start_and_the_operator(self, charts_of):
        """The first attempt after a retry keeps the start of the failed attempts, if that is noted."""
        note = lease_of(
            "a@b", token="", attempt=0, started_at=charts_of, retried_by="a@b", retried_at=READ_TIME
        )
        write = _decision(claim(), observation(READY, stored(note))).lease_write
        assert write is not None
        assert write.lease is not None
        assert (write.guard, write.lease.attempt, write.lease.released) == ("t1", 1, 0)
        assert write.lease.started_at == (READ_TIME if charts_of == NEVER else charts_of)
        assert write.lease.may_have_charts is (charts_of != NEVER)
        assert (write.lease.retried_by, write.lease.retried_at) == ("a@b", READ_TIME)
        assert write.lease.trying_since == READ_TIME

    def test_its_lease_counts_from_the_server_s_time_of_the_read(self):
        """The lease starts at the server's time of the read, whatever the local clock shows."""
        decision = _decision(claim(), observation(READY, read_time=READ_TIME + seconds(4000)))
        assert decision.lease_write is not None
        assert decision.lease_write.lease is not None
        assert decision.lease_write.lease.expires_at == READ_TIME + seconds(4120)

    def test_its_lease_is_never_counted_from_an_unknown_time(self):
        """When the server's time is unknown the run is read first."""
        assert claim().decide(observation(READY, read_time=None)) is None

    def test_its_lease_need_not_be_known(self):
        """The claim of a READY step needs no read of its lease."""
        assert _decision(claim(), observation(READY, lease_is_known=False)).result.claimed

    def test_a_claim_without_a_lease_deletes_what_is_left_of_an_earlier_one(self):
        """A claim without a lease deletes an old lease; else a rescue would take the step over at once."""
        decision = _decision(claim(None), observation(READY))
        assert (decision.result.claimed, decision.lease_write) == (True, LeaseWrite(lease=None))

    def test_a_claim_without_a_lease_needs_no_read_time(self):
        """A claim without a lease needs no read time, as a minimal client has none."""
        decision = _decision(claim(None), observation(READY, read_time=None))
        assert (decision.result.claimed, decision.lease_write) == (True, LeaseWrite(lease=None))

    def test_a_claim_whose_first_try_did_not_land_is_made_again(self):
        """When the step is still READY after an unknown outcome, it is claimed again."""
        assert _decision(claim(), observation(READY, outcome_unknown=True)).run_patch is not None

    def test_dependencies_are_checked_again(self):
        """Dependencies are checked again, because they can have changed since the message."""
        steps = {"d": ohlcv_step(status="FAILED"), S: chart_step(dependsOn=["d"])}
        assert _refusal(claim(), observation(run_of(steps))).reason == Reason.DEPENDS_ON

    def test_a_step_that_can_t_be_read_is_an_error(self):
        """A step that can't be read raises an error and is not a lost claim."""
        with pytest.raises(RunInvalid):
            claim().decide(observation(run_with("??")))


class TestRunning:
    """Claims of a step that is RUNNING."""

    def test_its_lease_has_to_be_known(self):
        """The claim of a RUNNING step needs its lease, because its expiry decides."""
        assert claim().decide(observation(lease_is_known=False)) is None

    @pytest.mark.parametrize("ended_since", [-60, -0.5, 0, 4.9])
    def test_a_lease_that_lasts_is_respected(self, ended_since):
        """A lease is respected until the clock skew after its end."""
        assert _refusal(claim(), observation(None, expired(ended_since))).reason == Reason.STEP_RUNNING

    def test_the_refusal_has_the_time_that_the_lease_lasts(self):
        """A worker that waits for the step knows when to try again."""
        refusal = _refusal(claim(), observation(lease=stored(lease_of("theirs"))))
        assert refusal.lease_seconds_left == 65  # a minute, and the clock skew

    def test_without_a_lease_it_is_left_alone(self):
        """A RUNNING step without a lease is not taken over, because its worker keeps none."""
        assert _refusal(claim(), observation(None, None)).reason == Reason.UNLEASED

    def test_a_claimer_without_a_lease_takes_nothing_over(self):
        """A claimer without a lease takes no step over, however long its lease has expired."""
        assert _refusal(claim(None), observation(None, expired(900))).reason == Reason.STEP_RUNNING

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
    def test_in_a_run_that_is_final_it_is_not_taken_over(self, status):
        """In a final run no step is taken over."""
        final = run_with("RUNNING", run_status=status)
        assert _refusal(claim(), observation(final, expired(900))).reason == Reason.RUN_FINAL


class TestTakeOver:
    """Claims of a step whose lease has expired."""

    @pytest.mark.parametrize("ended_since", [5, 900])
    def test_it_is_claimed_with_the_next_attempt(self, ended_since):
        """A take-over writes the next attempt with a new token, guarded by the lease's update time."""
        found = expired(ended_since)
        decision = _decision(claim(), observation(None, found))
        assert decision.result == ClaimResult(
            claimed=True, status="RUNNING", run=run_with(), taken_over=found.lease
        )
        assert decision.lease_write == LeaseWrite(lease=offer_of().after(found.lease, READ_TIME), guard="t1")

    def test_its_patch_proves_that_the_step_is_running_still(self):
        """A take-over writes RUNNING again, so that the run's precondition proves the status."""
        assert _decision(claim(), observation(None, expired(9))).run_patch == {"steps.s.status": "RUNNING"}

    def test_a_released_step_is_taken_over_at_once(self):
        """A released step is taken over at once, without the clock skew."""
        found = stored(lease_of("theirs").released_until(READ_TIME))
        assert _decision(claim(), observation(None, found)).result.claimed

    def test_a_released_step_is_left_until_its_backoff_ends(self):
        """A released step is not taken over before its backoff ends, because its backend needs the time."""
        found = stored(lease_of("theirs").released_until(READ_TIME + seconds(1)))
        assert _refusal(claim(), observation(None, found)).reason == Reason.STEP_RUNNING

    def test_a_broken_lease_has_expired(self):
        """An invalid lease counts as expired; else its step would stay RUNNING."""
        found = stored(Lease.parse({"attempt": "x", "expiresAt": "tomorrow"}))
        decision = _decision(claim(), observation(None, found))
        assert decision.lease_write is not None
        assert decision.lease_write.lease is not None
        assert (decision.lease_write.lease.attempt, decision.lease_write.lease.started_at) == (2, READ_TIME)

    def test_as_long_as_enough_attempts_were_released_it_goes_on(self):
        """Released attempts do not count as crashes, so the step can be claimed again."""
        found = expired(9, attempt=12, released=10)
        assert _decision(claim(), observation(None, found)).result.claimed


class TestCrashLoop:
    """A step whose workers crash one after the other."""

    @pytest.mark.parametrize(("attempt", "released"), [(3, 0), (5, 2), (40, 1)])
    def test_after_the_last_attempt_it_is_failed_instead(self, attempt, released):
        """After the last attempt the step is failed, and its lease is deleted with the same guard."""
        found = expired(9, attempt=attempt, released=released)
        decision = _decision(claim(), observation(None, found))
        assert decision.run_patch is not None
        assert decision.run_patch["steps.s.status"] == "FAILED"
        assert decision.run_patch["steps.s.finishedAt"] == FINISHED
        assert decision.lease_write == LeaseWrite(lease=None, guard="t1")

    def test_the_worker_that_fails_it_has_not_claimed_it(self):
        """The worker that fails the step gets the reason and the last owner, and no claim."""
        found = expired(9, attempt=3)
        result = _decision(claim(), observation(None, found)).result
        assert (result.claimed, result.status, result.reason) == (False, "FAILED", Reason.CRASH_LOOP)
        assert result.taken_over == found.lease

    def test_its_error_has_the_attempts_and_the_last_owner(self):
        """The error has the number of attempts and the last owner."""
        patch = _decision(claim(), observation(None, expired(9, attempt=4, released=1))).run_patch
        assert patch is not None
        error = patch["steps.s.error"]
        assert error["code"] == "CRASH_LOOP"
        assert error["message"].startswith("3 attempts left no result")
        assert error["details"] == {"attempt": 4, "released": 1, "lastOwner": "host:1:theirs"}

    def test_an_error_that_can_t_be_stored_is_stored_without_its_details(self):
        """In a run document that is nearly full the error keeps its code and its sentence."""
        patch = _decision(claim().shortened(), observation(None, expired(9, attempt=3))).run_patch
        assert patch is not None
        error = patch["steps.s.error"]
        assert (error["code"], set(error)) == ("CRASH_LOOP", {"code", "message"})


class TestRefused:
    """Firestore can't store a claim."""

    def test_the_step_is_failed_instead(self):
        """No message could ever start the step."""
        decision = _decision(claim().shortened(), observation(READY))
        result = decision.result
        assert (result.claimed, result.status, result.reason) == (False, "FAILED", Reason.REFUSED)
        assert decision.lease_write == LeaseWrite(lease=None)

    def test_a_claim_without_a_lease_never_fails_a_step(self):
        """It has no shorter form."""
        assert claim(None).shortened() is None


class TestUnknownOutcome:
    """The outcome of an earlier commit is unknown."""

    def test_one_s_own_token_in_the_lease_is_a_claim_that_was_won(self):
        """Its own token in the lease proves that the claim was won, and nothing more is written."""
        decision = _decision(claim(), observation(None, stored(), outcome_unknown=True))
        assert decision == Decision(result=ClaimResult(claimed=True, status="RUNNING", run=run_with()))

    def test_another_s_token_is_a_claim_that_was_lost(self):
        """Another token proves that the claim was lost, as without an earlier attempt."""
        found = stored(lease_of("theirs"))
        assert _refusal(claim(), observation(None, found, outcome_unknown=True)).reason == Reason.STEP_RUNNING

    def test_without_a_lease_it_can_t_be_determined(self):
        """Without a lease the outcome can't be determined, and the caller must come again later."""
        with pytest.raises(BackendUnavailable, match="unknown whether the claim was committed"):
            claim(None).decide(observation(outcome_unknown=True))

    def test_a_step_that_has_ended_is_not_claimed(self):
        """A step that ended before the commit is not claimed, whichever worker ended it."""
        ended = observation(run_with("SUCCEEDED"), outcome_unknown=True)
        assert _refusal(claim(), ended).reason == Reason.STEP_FINAL
