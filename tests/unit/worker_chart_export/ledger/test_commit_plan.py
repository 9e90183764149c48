"""The intents of many callers in one commit, and the facts that each one uses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.fakes import HandClock, chart_step, run_of
from tests.support.ledger.samples import (
    MANIFEST,
    READ_TIME,
    claim,
    lease_of,
    release,
    run_with,
    seconds,
    snapshot_of,
    stored,
    success,
)
from worker_chart_export.errors import BackendRefused, RunInvalid
from worker_chart_export.ledger.commit.plan import CommitRequest, Resolution, plan_commit
from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult, Reason
from worker_chart_export.ledger.lease import HeldLease


def _held(stored_lease=None) -> HeldLease:
    return HeldLease(
        run_id="r", step_id="s", stored=stored_lease or stored(), trusted_until=2000.0, clock=HandClock()
    )


def _request(intent, **changes) -> CommitRequest:
    return CommitRequest(**({"intent": intent, "snapshot": None, "held": None} | changes))


def _steps(**statuses):
    """Return a run with one chart step for each name."""
    return run_of({name: chart_step(status=status, dependsOn=[]) for name, status in statuses.items()})


def _plan(requests, run=None, leases=None, *, is_fresh=True):
    """Plan from one read of the run and of these leases."""
    return plan_commit(requests, snapshot_of(run or run_with(), leases=leases or {}), is_fresh=is_fresh)


class TestPlan:
    """Many requests in one commit."""

    def test_intents_that_write_share_one_patch_of_the_run(self):
        """All intents that write share one patch of the run, each with its step's fields."""
        requests = [_request(claim(step_id=name)) for name in "ab"]
        plan = _plan(requests, _steps(a="READY", b="READY"))
        assert plan.run_patch == {"steps.a.status": "RUNNING", "steps.b.status": "RUNNING"}
        assert set(plan.lease_writes) == {"a", "b"}
        assert set(plan.writing) == set(requests)

    def test_a_refusal_is_resolved_at_once(self):
        """A refused intent gets its result at once and does not delay the others."""
        refused, writing = _request(claim(step_id="a")), _request(success(step_id="b"))
        theirs = stored(lease_of("theirs"))
        plan = _plan([refused, writing], _steps(a="RUNNING", b="RUNNING"), {"a": theirs, "b": stored()})
        resolution = plan.resolved[refused]
        assert (resolution.result.reason, resolution.lease) == (Reason.STEP_RUNNING, theirs)
        assert set(plan.writing) == {writing}

    def test_an_error_fails_its_own_request_alone(self):
        """An error of a broken step ends only its own intent."""
        broken, writing = _request(claim(step_id="a")), _request(claim(step_id="b"))
        plan = _plan([broken, writing], _steps(a="??", b="READY"))
        assert isinstance(plan.failed[broken], RunInvalid)
        assert set(plan.writing) == {writing}

    def test_a_second_intent_on_a_step_waits_for_the_next_commit(self):
        """A second intent on a step waits for the next commit, because the first changes the step."""
        first, second, other = _request(success()), _request(release()), _request(claim(step_id="b"))
        plan = _plan([first, second, other], _steps(s="RUNNING", b="READY"), {"s": stored()})
        assert set(plan.writing) == {first, other}
        assert (plan.resolved, plan.failed, plan.needs_read) == ({}, {}, False)

    def test_a_second_intent_on_a_step_that_is_only_refused_does_not_wait(self):
        """A second intent does not wait when the first is refused, because a refusal changes nothing."""
        first, second = _request(success()), _request(claim())
        plan = _plan([first, second], run_with("READY"), {"s": stored(lease_of("theirs"))})
        assert (set(plan.resolved), set(plan.writing)) == ({first}, {second})

    def test_a_lease_that_is_needed_and_not_known_has_to_be_read(self):
        """When an intent needs a lease that is unknown, the plan asks for a read."""
        assert _plan([_request(success())], is_fresh=False).needs_read

    def test_a_release_writes_no_patch(self):
        """A release writes only its lease and no patch of the run."""
        plan = _plan([_request(release())], leases={"s": stored()})
        assert plan.run_patch == {}
        assert set(plan.lease_writes) == {"s"}

    @pytest.mark.parametrize("intent", [success(), release(), claim()])
    def test_nothing_is_refused_by_an_old_read(self, intent):
        """An old read refuses nothing: no precondition would prove it."""
        request = _request(intent, held=_held())
        assert _plan([request], run_with("CANCELLED"), is_fresh=False).needs_read

    def test_no_error_is_final_by_an_old_read(self):
        """An old read raises no error, because the step can have been corrected."""
        plan = _plan([_request(claim())], run_with("??"), is_fresh=False)
        assert (plan.needs_read, plan.failed) == (True, {})

    def test_what_writes_the_run_may_go_by_an_old_read(self):
        """An intent that writes the run may use an old read, because the run's precondition proves it."""
        request = _request(success(), held=_held())
        assert set(_plan([request], is_fresh=False).writing) == {request}

    def test_a_fresh_read_without_a_time_fails_what_needs_one(self):
        """A claim with a lease fails when a fresh read has no time."""
        request = _request(claim())
        plan = plan_commit([request], snapshot_of(run_with("READY"), read_time=None), is_fresh=True)
        assert isinstance(plan.failed[request], BackendRefused)

    def test_an_unexpected_error_fails_its_own_request_alone(self):
        """An unexpected error of one decision ends only its own intent, as refused."""
        broken, writing = _request(claim(step_id="a")), _request(claim(step_id="b"))
        broken.intent = SimpleNamespace(step_id="a")
        plan = _plan([broken, writing], _steps(a="READY", b="READY"))
        assert "unexpected AttributeError" in str(plan.failed[broken])
        assert set(plan.writing) == {writing}

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
        state = request.observation(fresh, is_fresh=True)
        assert (state.lease, state.lease_is_known) == (stored(update_time="t9"), True)

    def test_a_fresh_read_without_the_lease_is_known_too(self):
        """A fresh read without the lease proves that it was deleted."""
        fresh = snapshot_of(run_with(), leases={"s": None})
        state = _request(success(), held=_held()).observation(fresh, is_fresh=True)
        assert (state.lease, state.lease_is_known) == (None, True)

    def test_without_a_fresh_read_the_held_lease_is_used(self):
        """Without a fresh read the held lease is used, so a finalize needs no read."""
        state = _request(success(), held=_held()).observation(snapshot_of(run_with()), is_fresh=False)
        assert (state.lease, state.lease_is_known) == (stored(), True)

    def test_without_a_held_lease_the_caller_s_read_is_used(self):
        """Without a held lease the one in the caller's own read is used."""
        own = snapshot_of(run_with(), leases={"s": stored()})
        state = _request(claim(), snapshot=own).observation(snapshot_of(None), is_fresh=False)
        assert (state.lease, state.lease_is_known) == (stored(), True)

    @pytest.mark.parametrize(("update_time", "is_known"), [("r1", True), ("r2", False)])
    def test_that_there_is_no_lease_is_known_as_long_as_the_run_is_the_same(self, update_time, is_known):
        """A claim since the caller's read has changed the run. No precondition would find its lease."""
        own = snapshot_of(run_with(), leases={"s": None})
        known = snapshot_of(run_with(), update_time=update_time)
        state = _request(success(None), snapshot=own).observation(known, is_fresh=False)
        assert (state.lease, state.lease_is_known) == (None, is_known)

    def test_without_any_it_is_unknown(self):
        """Without any of them the lease is unknown and must be read."""
        state = _request(claim()).observation(snapshot_of(None), is_fresh=False)
        assert (state.lease, state.lease_is_known) == (None, False)

    def test_time_is_that_of_the_newer_read(self):
        """The newest run is used, and leases are compared with the latest known time."""
        own = snapshot_of(run_with(), asked_at=1500.0, read_time=READ_TIME + seconds(500))
        state = _request(claim(), snapshot=own).observation(snapshot_of(run_with()), is_fresh=False)
        assert state.read_time == READ_TIME + seconds(500)

    @pytest.mark.parametrize("is_unknown", [True, False])
    def test_an_unknown_outcome_is_one_of_the_facts(self, is_unknown):
        """Only after one may a mark or a token prove that an earlier commit took effect."""
        request = _request(claim(), outcome_unknown=is_unknown)
        assert request.observation(snapshot_of(None), is_fresh=True).outcome_unknown is is_unknown

    @pytest.mark.parametrize(
        ("intent", "needed"),
        [(claim(), True), (claim(None), False), (success(), True), (success(None), True), (release(), True)],
    )
    def test_leases_are_read_only_for_intents_that_need_one(self, intent, needed):
        """Leases are read for all intents but a claim without a lease, which reads one document."""
        assert _request(intent).intent.needs_lease is needed

    def test_a_claim_that_was_won_took_a_lease(self):
        """A won claim has a lease, which must be released when its caller has left."""
        request = _request(claim())
        won = ClaimResult(claimed=True, status="RUNNING")
        request.answer = Resolution(result=won, lease=stored(), snapshot=snapshot_of(run_with()))
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
        request.answer = Resolution(result=result, lease=lease, snapshot=snapshot_of(run_with()))
        assert not request.won_a_step

    def test_a_claim_that_has_no_answer_took_none(self):
        """A claim without a result has no lease yet."""
        assert not _request(claim()).won_a_step

    def test_the_run_after_our_own_commit_is_known(self):
        """After our own commit the run is known with its new update time, but not its leases."""
        read = snapshot_of(run_with(), leases={"s": stored()})
        after = read.after(success().patch(), "r2")
        assert after.run is not None
        assert after.run.document["steps"]["s"]["outputs"]["gcs_uri"] == MANIFEST
        assert (after.update_time, after.read_time, after.leases) == ("r2", None, {})
