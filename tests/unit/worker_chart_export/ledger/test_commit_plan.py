"""The intents of many callers in one commit, and the facts that each one uses."""

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
    """The decision on each intent."""

    def test_those_who_write_share_one_patch_of_the_run(self):
        """All intents that write share one patch of the run, each with its step's fields."""
        run = run_of({name: chart_step(dependsOn=[]) for name in "ab"})
        plan = plan_commit([(claim(step_id=name), observation(run)) for name in "ab"])
        assert plan.run_patch() == {"steps.a.status": "RUNNING", "steps.b.status": "RUNNING"}
        assert set(plan.lease_writes()) == set(plan.writing) == {0, 1}

    def test_a_refused_intent_leaves_at_once(self):
        """A refused intent gets its result at once and does not delay the others."""
        plan = plan_commit(
            [
                (claim(), observation(None, stored(lease_of("theirs")))),
                (success(), observation(None, stored())),
            ]
        )
        assert plan.settled[0].reason == Reason.STEP_RUNNING
        assert set(plan.writing) == {1}

    def test_an_error_is_its_own(self):
        """An error of a broken step ends only its own intent."""
        plan = plan_commit(
            [(claim(), observation(run_with("??"))), (claim(), observation(run_with("READY")))]
        )
        assert isinstance(plan.failed[0], RunInvalid)
        assert set(plan.writing) == {1}

    def test_a_second_intent_on_a_step_waits_for_the_next_commit(self):
        """A second intent on a step waits for the next commit, because the first changes the step."""
        plan = plan_commit(
            [(success(), observation(None, stored())), (release(), observation(None, stored()))]
        )
        assert (set(plan.writing), plan.postponed) == ({0}, [1])

    def test_a_second_intent_on_a_step_that_is_only_refused_need_not_wait(self):
        """A second intent that is refused does not wait, because a refusal changes nothing."""
        theirs = observation(None, stored(lease_of("theirs")))
        plan = plan_commit([(success(), theirs), (claim(), observation(run_with("READY")))])
        assert (set(plan.settled), set(plan.writing), plan.postponed) == ({0}, {1}, [])

    def test_intents_that_need_the_lease_are_separate(self):
        """Intents that need the lease are returned separately, so that it is read."""
        plan = plan_commit([(success(), observation(lease_is_known=False, run_is_fresh=False))])
        assert plan.unread == [0]

    def test_a_release_writes_no_patch(self):
        """A release writes only its lease and no patch of the run."""
        plan = plan_commit([(release(), observation(None, stored()))])
        assert plan.run_patch() == {}
        assert set(plan.lease_writes()) == {0}

    @pytest.mark.parametrize("intent", [success(), release(), claim()])
    def test_nothing_is_refused_by_an_old_read(self, intent):
        """An old read refuses nothing: no precondition would prove it."""
        assert plan_commit([(intent, STALE)]).unread == [0]

    def test_an_old_read_raises_no_error(self):
        """An old read raises no error, because the step can have been corrected."""
        assert plan_commit([(claim(), observation(run_with("??"), run_is_fresh=False))]).unread == [0]

    def test_what_writes_the_run_may_go_by_an_old_read(self):
        """An intent that writes the run may use an old read, because the run's precondition proves it."""
        old = observation(None, stored(), run_is_fresh=False)
        assert set(plan_commit([(success(), old)]).writing) == {0}

    def test_finalizes_and_releases_go_before_claims(self):
        """Finalizes and releases come before claims, because other callers wait for them."""
        intents = [claim(), success(), release(), claim("other")]
        ranked = sorted(intents, key=lambda intent: intent.rank)
        assert ranked == [success(), release(), claim(), claim("other")]


class TestRequest:
    """The facts that a caller's decision uses."""

    def test_the_fresh_read_of_the_lease_is_the_best(self):
        """A fresh read of the lease is used first, because it is newer than the held one."""
        fresh = snapshot_of(run_with(), leases={"s": stored(update_time="t9")})
        request = _request(success(), held=_held())
        assert request.known_lease(fresh, is_fresh=True) == (stored(update_time="t9"), True)

    def test_a_fresh_read_without_the_lease_is_known_too(self):
        """A fresh read without the lease proves that it was deleted."""
        fresh = snapshot_of(run_with(), leases={"s": None})
        assert _request(success(), held=_held()).known_lease(fresh, is_fresh=True) == (None, True)

    def test_else_the_lease_that_is_held_counts(self):
        """Without a fresh read the held lease is used, so a finalize needs no read."""
        state = _request(success(), held=_held()).observation(snapshot_of(run_with()), is_fresh=False)
        assert (state.lease, state.lease_is_known, state.run_is_fresh) == (stored(), True, False)

    def test_else_the_lease_in_the_caller_s_own_read(self):
        """Without a held lease the one in the caller's own read is used."""
        own = snapshot_of(run_with(), leases={"s": stored()})
        assert _request(claim(), snapshot=own).known_lease(snapshot_of(None), is_fresh=False)[0] == stored()

    def test_without_any_it_is_unknown(self):
        """Without any of them the lease is unknown and must be read."""
        assert _request(claim()).known_lease(snapshot_of(None), is_fresh=False) == (None, False)

    def test_time_is_that_of_the_newer_read(self):
        """The newest run is used, and leases are compared with the latest known time."""
        own = snapshot_of(run_with(), asked_at=1500.0, read_time=READ_TIME + seconds(500))
        state = _request(claim(), snapshot=own).observation(snapshot_of(run_with()), is_fresh=False)
        assert state.read_time == READ_TIME + seconds(500)

    def test_a_minimal_client_s_read_has_no_time(self):
        """The read of a minimal client has no time, and none is invented."""
        state = _request(claim(None)).observation(snapshot_of(run_with(), read_time=None), is_fresh=True)
        assert state.read_time is None

    @pytest.mark.parametrize(
        ("intent", "needed"),
        [(claim(), True), (claim(None), False), (success(), True), (success(None), False), (release(), True)],
    )
    def test_leases_are_read_only_for_intents_that_need_one(self, intent, needed):
        """Leases are read only for intents that need one; a claim without a lease reads one document."""
        assert _request(intent).needs_lease is needed

    def test_a_claim_that_was_won_took_a_lease(self):
        """A won claim has a lease, which must be released when its caller has left."""
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
    def test_no_other_request_has_one(self, result, lease):
        """A lost claim, a claim without a lease, a finalize and a release have no lease to release."""
        request = _request(claim())
        request.answer = Settled(result=result, lease=lease, snapshot=snapshot_of(run_with()))
        assert not request.won_a_step

    def test_a_claim_that_is_not_settled_took_none(self):
        """A claim without a result has no lease yet."""
        assert not _request(claim()).won_a_step

    def test_the_run_after_our_own_commit_is_known(self):
        """After our own commit the run is known with its new update time, but not its leases."""
        read = snapshot_of(run_with(), leases={"s": stored()})
        after = read.after(success().patch(), "r2")
        assert after.run is not None
        assert after.run.document["steps"]["s"]["outputs"]["gcs_uri"] == MANIFEST
        assert (after.update_time, after.read_time, after.leases) == ("r2", None, {})
