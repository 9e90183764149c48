"""Leases that this process holds: how long it trusts them, who hears of a loss, and what is logged."""

from __future__ import annotations

import pytest

from localcloud import Fault
from tests.support.fakes import HandClock, scope_of
from tests.support.ledger.ledger_process import TERMS, LedgerProcess
from tests.support.ledger.samples import stored
from worker_chart_export.errors import BackendUnavailable, Interrupted, LeaseLost, StepError
from worker_chart_export.ledger.lease import HeldLease

TRUSTED_SECONDS = 59  # of a lease of 60, by a skew of 1


@pytest.fixture
def clock():
    """The worker's clock, moved by the test; the server's goes on by itself."""
    return HandClock()


@pytest.fixture
def worker(documents, clock):
    """A worker by that clock."""
    return LedgerProcess(documents, clock=clock)


@pytest.fixture
def held(clock):
    """A lease that may be trusted for ten seconds."""
    return HeldLease(run_id="r", step_id="s", stored=stored(), trusted_until=clock.ticks + 10, clock=clock)


class TestTrust:
    """Before anything is paid for."""

    def test_a_lease_is_trusted_for_less_than_it_lasts(self, held, clock):
        """Up to the last moment."""
        clock.advance(9.99)
        held.check()

    def test_a_lease_that_was_not_renewed_is_trusted_no_more(self, held, clock):
        """A process that was frozen comes here when it wakes."""
        clock.advance(10)
        with pytest.raises(LeaseLost, match="it ended before it was renewed"):
            held.check()

    def test_a_lease_that_was_renewed_is_trusted_for_longer(self, held, clock):
        """From when the heart-beat asked for it."""
        held.renewed(stored(), trusted_until=clock.ticks + 60)
        clock.advance(59)
        held.check()

    def test_a_claim_is_trusted_from_when_its_read_was_asked_for(self, run, worker, clock, cloud):
        """Not from when the answer came, which may be long afterwards: its end is counted from the read."""
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        clock.advance(0.4)
        late = Fault(method="Commit", before=lambda _request: clock.advance(15), times=1)
        cloud.firestore.faults.add(late)
        claim = worker.ledger.claim(run.run_id, "s0", snapshot=snapshot)
        clock.advance(TRUSTED_SECONDS - 0.4 - 15 - 0.5)
        claim.held.check()
        clock.advance(1)
        with pytest.raises(LeaseLost):
            claim.held.check()

    def test_a_heart_beat_is_trusted_from_when_it_began(self, run, worker, clock, cloud):
        """Its answer came half a minute later."""
        claim = worker.claim(run.run_id, "s0")
        clock.advance(50)
        late = Fault(method="BatchWrite", before=lambda _request: clock.advance(30), times=1)
        cloud.firestore.faults.add(late)
        worker.heart_beats.beat()
        clock.advance(TRUSTED_SECONDS - 30 - 1)
        claim.held.check()
        clock.advance(2)
        with pytest.raises(LeaseLost):
            claim.held.check()


class TestLoss:
    """Who is told."""

    def test_all_who_asked_are_told_once(self, held):
        """The first reason stays."""
        told = []
        held.on_lost(told.append)
        held.lose("first")
        held.lose("second")
        assert [str(error) for error in told] == ["the lease of the step is lost: first"]
        assert held.is_lost

    def test_who_asks_too_late_is_told_at_once(self, held):
        """Nobody works on unknowing."""
        held.lose("gone")
        told = []
        held.on_lost(told.append)
        assert len(told) == 1

    def test_what_is_lost_stays_lost(self, held, clock):
        """Whatever a heart-beat under way writes afterwards."""
        held.lose("gone")
        held.renewed(stored(), trusted_until=clock.ticks + 60)
        with pytest.raises(LeaseLost, match="gone"):
            held.check()

    def test_a_heart_beat_that_fails_loses_nothing(self, run, worker, cloud):
        """Firestore is away, no more."""
        claim = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE", times=1))
        with pytest.raises(BackendUnavailable):
            worker.heart_beats.beat()
        claim.held.check()

    def test_a_lease_taken_between_the_heart_beat_s_read_and_write_is_lost(self, run, worker, cloud):
        """The write's own precondition tells."""
        claim = worker.claim(run.run_id, "s0")
        other = worker.claim(run.run_id, "s1")
        taken = Fault(method="BatchWrite", before=lambda _request: run.let_lease_end("s0"), times=1)
        cloud.firestore.faults.add(taken)
        worker.heart_beats.beat()
        with pytest.raises(LeaseLost, match="just taken"):
            claim.held.check()
        other.held.check()

    def test_a_lease_that_a_commit_is_about_to_change_is_left_to_it(self, run, worker, calls):
        """They would take each other for strangers."""
        claim = worker.claim(run.run_id, "s0")
        calls.reset()
        with claim.held.lock:
            worker.heart_beats.beat()
        assert calls.as_dict() == {}

    def test_what_was_forgotten_is_renewed_no_more(self, run, worker, calls):
        """Its work has ended."""
        worker.ledger.forget(worker.claim(run.run_id, "s0"))
        calls.reset()
        worker.heart_beats.beat()
        assert calls.as_dict() == {}


class TestBook:
    """What the ledger writes and says."""

    def test_claims_are_logged_won_or_lost(self, run, worker, log_lines):
        """With the reason of a loss."""
        worker.claim(run.run_id, "s0")
        worker.try_claim(run.run_id, "s0")
        told = [
            (line["claimed"], line.get("reason")) for line in log_lines() if line["event"] == "claim_attempt"
        ]
        assert told == [(True, None), (False, "step_running")]

    def test_a_take_over_names_its_former_holder(self, run, worker, log_lines):
        """Somebody may want to look at that process."""
        worker.claim(run.run_id, "s0")
        run.let_lease_end("s0")
        worker.claim(run.run_id, "s0")
        (line,) = [line for line in log_lines() if line["event"] == "lease_taken_over"]
        assert (line["formerOwner"], line["formerAttempt"]) == (worker.ledger.owner, 1)

    def test_a_success_is_marked_with_microseconds(self, run, worker):
        """The time tells whose patch it is."""
        worker.succeed(worker.claim(run.run_id, "s0"))
        assert run.step("s0")["finishedAt"] == "2025-12-15T12:00:00.123456Z"

    def test_a_refused_finalize_is_logged(self, run, worker, log_lines):
        """With why; the step stays as the orchestrator wanted it, and its lease is cleared away."""
        claim = worker.claim(run.run_id, "s0")
        run.set_status("s0", "CANCELLED")
        assert worker.succeed(claim).reason == "step_final"
        line = log_lines()[-1]
        assert (line["event"], line["reason"]) == ("finalize_refused", "step_final")
        assert (run.step("s0")["status"], run.lease("s0")) == ("CANCELLED", None)

    def test_an_error_of_a_foreign_answer_can_be_stored(self, run, worker):
        """Lone surrogates and all."""
        worker.fail(worker.claim(run.run_id, "s0"), StepError("X", "bad \ud800", {"m": "\udfff"}))
        assert run.step("s0")["error"] == {"code": "X", "message": "bad ?", "details": {"m": "?"}}

    @pytest.mark.parametrize(
        ("backend", "code"), [("storage", "GCS_WRITE_FAILED"), ("firestore", "STEP_TIMEOUT")]
    )
    def test_a_step_given_back_too_often_fails_with_its_backend_s_code(self, run, worker, backend, code):
        """At the eleventh time."""
        claim = worker.claim(run.run_id, "s0")
        for _ in range(10):
            assert worker.ledger.release(claim, cause=BackendUnavailable(backend, "503")).released
            run.let_lease_end("s0")
            claim = worker.claim(run.run_id, "s0")
        assert worker.ledger.release(claim, cause=BackendUnavailable(backend, "503")).failed
        assert (run.step("s0")["error"]["code"], run.lease("s0")) == (code, None)

    def test_a_step_whose_workers_crash_is_failed(self, run, worker):
        """After five attempts."""
        for _ in range(5):
            worker.claim(run.run_id, "s0")
            run.let_lease_end("s0")
        assert worker.try_claim(run.run_id, "s0").reason == "crash_loop"
        assert (run.step("s0")["error"]["code"], run.lease("s0")) == ("CRASH_LOOP", None)

    def test_a_release_that_fails_is_no_error(self, run, worker, cloud, clock):
        """The lease ends by itself."""
        claim = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
        clock_moves = Fault(method="BatchGetDocuments", before=lambda _request: clock.advance(9))
        cloud.firestore.faults.add(clock_moves)
        assert worker.ledger.release(claim).reason == "unknown"
        assert worker.heart_beats.held() == []

    def test_a_finalize_of_a_step_that_was_stopped_is_tried_and_looked_after_once(self, run, worker, cloud):
        """Its worker has to go, but a commit without an answer may have taken effect."""
        claim, scope = worker.claim(run.run_id, "s0"), scope_of()
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
        scope.stop(Interrupted("told to"))
        cloud.firestore.calls.reset()
        with pytest.raises(BackendUnavailable):
            worker.ledger.succeed(claim, manifest_uri="gs://b/m", scope=scope)
        assert (cloud.firestore.calls["Commit"], cloud.firestore.calls["BatchGetDocuments"]) == (2, 1)

    def test_a_run_is_created_once(self, worker, documents):
        """A second one of that id changes nothing."""
        assert worker.ledger.create_run("new", {"steps": {}})
        assert not worker.ledger.create_run("new", {"steps": {"s": {}}})
        assert documents.document("flow_runs/new").get().to_dict() == {"steps": {}}

    def test_reading_a_run_that_is_away_is_told(self, worker, cloud):
        """As unavailable; so is a probe."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
        for ask in (lambda: worker.ledger.read("r"), worker.ledger.probe):
            with pytest.raises(BackendUnavailable, match=r"^firestore is unavailable: ResourceExhausted"):
                ask()


def test_the_terms_of_these_tests_are_what_their_numbers_say():
    """Else they would prove little."""
    assert TERMS.trusted_seconds == TRUSTED_SECONDS
