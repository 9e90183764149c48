"""Many callers' intents in one commit, and what each of them goes by."""

from __future__ import annotations

import pytest

from tests.support.fakes import HandClock, chart_step, run_of
from tests.support.ledger.samples import (
    MANIFEST,
    READ_TIME,
    claim,
    lease_of,
    observation,
    release,
    run_with,
    seconds,
    snapshot_of,
    stored,
    success,
)
from worker_chart_export.errors import RunInvalid
from worker_chart_export.ledger.commit.plan import CommitRequest, Settled, plan_commit
from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult, Reason
from worker_chart_export.ledger.lease import HeldLease

STALE = observation(run_with("CANCELLED"), stored(), run_is_fresh=False)


def _held(stored_lease=None) -> HeldLease:
    return HeldLease(
        run_id="r", step_id="s", stored=stored_lease or stored(), trusted_until=2000.0, clock=HandClock()
    )


def _request(intent, **changes) -> CommitRequest:
    return CommitRequest(**({"intent": intent, "snapshot": None, "held": None} | changes))


class TestPlan:
    """What becomes of each."""

    def test_those_who_write_share_one_patch_of_the_run(self):
        """Each with its own step's fields."""
        run = run_of({name: chart_step(dependsOn=[]) for name in "ab"})
        plan = plan_commit([(claim(step_id=name), observation(run)) for name in "ab"])
        assert plan.run_patch() == {"steps.a.status": "RUNNING", "steps.b.status": "RUNNING"}
        assert set(plan.lease_writes()) == set(plan.writing) == {0, 1}

    def test_who_is_refused_leaves_at_once(self):
        """Without holding the others up."""
        plan = plan_commit(
            [
                (claim(), observation(None, stored(lease_of("theirs")))),
                (success(), observation(None, stored())),
            ]
        )
        assert plan.settled[0].reason == Reason.STEP_RUNNING
        assert set(plan.writing) == {1}

    def test_an_error_is_its_own(self):
        """A broken step disturbs only itself."""
        plan = plan_commit(
            [(claim(), observation(run_with("??"))), (claim(), observation(run_with("READY")))]
        )
        assert isinstance(plan.failed[0], RunInvalid)
        assert set(plan.writing) == {1}

    def test_a_second_intent_on_a_step_waits_for_the_next_commit(self):
        """It has to be decided by what the first one leaves."""
        plan = plan_commit(
            [(success(), observation(None, stored())), (release(), observation(None, stored()))]
        )
        assert (set(plan.writing), plan.postponed) == ({0}, [1])

    def test_a_second_intent_on_a_step_that_is_only_refused_need_not_wait(self):
        """A refusal leaves nothing."""
        theirs = observation(None, stored(lease_of("theirs")))
        plan = plan_commit([(success(), theirs), (claim(), observation(run_with("READY")))])
        assert (set(plan.settled), set(plan.writing), plan.postponed) == ({0}, {1}, [])

    def test_who_has_to_know_the_lease_is_told_apart(self):
        """The turn has to read."""
        plan = plan_commit([(success(), observation(lease_is_known=False, run_is_fresh=False))])
        assert plan.unread == [0]

    def test_a_release_writes_no_patch(self):
        """Only its lease."""
        plan = plan_commit([(release(), observation(None, stored()))])
        assert plan.run_patch() == {}
        assert set(plan.lease_writes()) == {0}

    @pytest.mark.parametrize("intent", [success(), release(), claim()])
    def test_nothing_is_refused_by_an_old_read(self, intent):
        """No precondition would prove it: a lease could be deleted whose step has run since."""
        assert plan_commit([(intent, STALE)]).unread == [0]

    def test_no_error_is_told_by_an_old_read(self):
        """The step may have been mended."""
        assert plan_commit([(claim(), observation(run_with("??"), run_is_fresh=False))]).unread == [0]

    def test_what_writes_the_run_may_go_by_an_old_read(self):
        """The run's precondition proves it."""
        old = observation(None, stored(), run_is_fresh=False)
        assert set(plan_commit([(success(), old)]).writing) == {0}

    def test_finalizes_and_releases_go_before_claims(self):
        """They end what others wait for."""
        intents = [claim(), success(), release(), claim("other")]
        ranked = sorted(intents, key=lambda intent: intent.rank)
        assert ranked == [success(), release(), claim(), claim("other")]


class TestRequest:
    """What a caller's decision goes by."""

    def test_the_fresh_read_of_the_lease_is_the_best(self):
        """Newer than what is held."""
        fresh = snapshot_of(run_with(), leases={"s": stored(update_time="t9")})
        request = _request(success(), held=_held())
        assert request.known_lease(fresh, is_fresh=True) == (stored(update_time="t9"), True)

    def test_a_fresh_read_without_the_lease_is_known_too(self):
        """It is gone."""
        fresh = snapshot_of(run_with(), leases={"s": None})
        assert _request(success(), held=_held()).known_lease(fresh, is_fresh=True) == (None, True)

    def test_else_the_lease_that_is_held_counts(self):
        """As this process last wrote it: no read is needed to finalize."""
        state = _request(success(), held=_held()).observation(snapshot_of(run_with()), is_fresh=False)
        assert (state.lease, state.lease_is_known, state.run_is_fresh) == (stored(), True, False)

    def test_else_the_lease_in_the_caller_s_own_read(self):
        """The handler read it with the run."""
        own = snapshot_of(run_with(), leases={"s": stored()})
        assert _request(claim(), snapshot=own).known_lease(snapshot_of(None), is_fresh=False)[0] == stored()

    def test_without_any_it_is_unknown(self):
        """A turn has to read it."""
        assert _request(claim()).known_lease(snapshot_of(None), is_fresh=False) == (None, False)

    def test_time_is_that_of_the_newer_read(self):
        """The run is the best known, but leases are judged by the latest time there is."""
        own = snapshot_of(run_with(), asked_at=1500.0, read_time=READ_TIME + seconds(500))
        state = _request(claim(), snapshot=own).observation(snapshot_of(run_with()), is_fresh=False)
        assert state.read_time == READ_TIME + seconds(500)

    def test_a_minimal_client_s_read_has_no_time(self):
        """And nothing is made up for it."""
        state = _request(claim(None)).observation(snapshot_of(run_with(), read_time=None), is_fresh=True)
        assert state.read_time is None

    @pytest.mark.parametrize(
        ("intent", "needed"),
        [(claim(), True), (claim(None), False), (success(), True), (success(None), False), (release(), True)],
    )
    def test_leases_are_read_only_for_those_who_go_by_one(self, intent, needed):
        """A claim without a lease costs one document."""
        assert _request(intent).needs_lease is needed

    def test_a_claim_that_was_won_took_a_lease(self):
        """Should its caller wait no more, it has to be given back."""
        request = _request(claim())
        won = ClaimResult(claimed=True, status="RUNNING")
        request.answer = Settled(result=won, lease=stored(), snapshot=snapshot_of(run_with()))
        assert request.won_a_step

    @pytest.mark.parametrize(
        ("result", "lease"),
        [
            (ClaimResult(claimed=False, status="RUNNING"), stored()),
            (ClaimResult(claimed=True, status="RUNNING"), None),
            (FinalizeResult(updated=True, status="SUCCEEDED"), stored()),
        ],
    )
    def test_nothing_else_took_one(self, result, lease):
        """A claim that was lost, or without a lease, or what ends one: there is nothing to give back."""
        request = _request(claim())
        request.answer = Settled(result=result, lease=lease, snapshot=snapshot_of(run_with()))
        assert not request.won_a_step

    def test_a_claim_that_is_not_settled_took_none(self):
        """Yet."""
        assert not _request(claim()).won_a_step

    def test_the_run_after_our_own_commit_is_known(self):
        """With its new update time, but without the leases of before."""
        read = snapshot_of(run_with(), leases={"s": stored()})
        after = read.after(success().patch(), "r2")
        assert after.run is not None
        assert after.run.document["steps"]["s"]["outputs"]["gcs_uri"] == MANIFEST
        assert (after.update_time, after.read_time, after.leases) == ("r2", None, {})
