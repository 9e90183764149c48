"""The leases of this process: how long they are trusted, loss callbacks, and logs."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from localcloud import Fault
from tests.support.fakes import NOON, HandClock, scope_of
from tests.support.ledger.ledger_process import TERMS, LedgerProcess
from tests.support.ledger.samples import stored
from worker_chart_export.errors import (
    AccountsExhausted,
    BackendRefused,
    BackendUnavailable,
    Interrupted,
    LeaseLost,
    StepError,
)
from worker_chart_export.ledger.lease import HeldLease
from worker_chart_export.ledger.operator_ledger import OperatorLedger
from worker_chart_export.timing import SystemClock

TRUSTED_SECONDS = 59  # of a lease of 60 s, with a skew of 1 s


@pytest.fixture
def clock():
    """Return the worker's clock, which the test moves; the server's continues by itself."""
    return HandClock()


@pytest.fixture
def worker(documents, clock):
    """Return a worker with that clock."""
    return LedgerProcess(documents, clock=clock)


@pytest.fixture
def held(clock):
    """Return a lease that is trusted for ten seconds."""
    return HeldLease(run_id="r", step_id="s", stored=stored(), trusted_until=clock.ticks + 10, clock=clock)


class TestTrust:
    """The check before anything is paid for."""

    def test_a_lease_is_trusted_for_less_than_it_lasts(self, held, clock):
        """A lease is trusted for a shorter time than it lasts."""
        clock.advance(9.99)
        held.check()

    def test_a_lease_that_was_not_renewed_is_trusted_no_more(self, held, clock):
        """A lease without renewal is no longer trusted, as when a frozen process wakes."""
        clock.advance(10)
        with pytest.raises(LeaseLost, match="it ended before it was renewed"):
            held.check()

    def test_a_lease_that_was_renewed_is_trusted_for_longer(self, held, clock):
        """A renewed lease is trusted from the start of the heartbeat's request."""
        held.trusted_until = clock.ticks + 60
        clock.advance(59)
        held.check()

    def test_a_claim_is_trusted_from_the_start_of_its_read(self, run, worker, clock, cloud):
        """A claim is trusted from the start of its read, because the lease counts from that read."""
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

    def test_a_lease_is_not_renewed_longer_than_any_work_lasts(self, run, documents, clock):
        """The next heartbeat after that time loses the lease of a thread that hangs, and stops its work."""
        terms = replace(TERMS, max_work_seconds=100)
        worker = LedgerProcess(documents, clock=clock, terms=terms)
        claim = worker.claim(run.run_id, "s0")
        for _ in range(2):
            clock.advance(50)
            worker.heartbeats.beat()
            claim.held.check()
        expires_at = run.lease("s0")["expiresAt"]
        clock.advance(1)
        worker.heartbeats.beat()
        with pytest.raises(LeaseLost, match="the work has lasted longer than 100 s"):
            claim.held.check()
        assert run.lease("s0")["expiresAt"] == expires_at

    def test_a_heart_beat_may_take_longer_than_the_time_between_two(self, run, documents, cloud):
        """How long Firestore may take depends on the lease, however often it is renewed."""
        worker = LedgerProcess(documents, terms=replace(TERMS, heartbeat_seconds=0.01))
        claim = worker.claim(run.run_id, "s0")
        before = run.lease("s0")["expiresAt"]
        cloud.firestore.faults.add(Fault(method="BatchWrite", delay_seconds=0.2, times=1))
        worker.heartbeats.beat()
        assert run.lease("s0")["expiresAt"] > before
        assert claim.held.lease.expires_at == run.lease("s0")["expiresAt"]

    def test_a_heart_beat_is_trusted_from_when_it_began(self, run, worker, clock, cloud):
        """A heartbeat whose response came half a minute late is trusted from its start."""
        claim = worker.claim(run.run_id, "s0")
        clock.advance(50)
        late = Fault(method="BatchWrite", before=lambda _request: clock.advance(30), times=1)
        cloud.firestore.faults.add(late)
        worker.heartbeats.beat()
        clock.advance(TRUSTED_SECONDS - 30 - 1)
        claim.held.check()
        clock.advance(2)
        with pytest.raises(LeaseLost):
            claim.held.check()


class TestLoss:
    """Callbacks of a lost lease."""

    def test_the_operator_who_released_the_lease_is_named(self, documents, run, worker):
        """The heartbeat reads who has released the lease."""
        claim = worker.claim(run.run_id, "s0")
        operator = OperatorLedger(client=documents, clock=SystemClock(), operator="ann@desk")
        operator.release(run.run_id, "s0", takes_unleased=False)
        worker.heartbeats.beat()
        with pytest.raises(LeaseLost, match="ann@desk has released it"):
            claim.held.check()

    def test_all_callbacks_run_once(self, held):
        """Each callback runs once, and the first reason stays."""
        errors = []
        held.on_lost(errors.append)
        held.lose("first")
        held.lose("second")
        assert [str(error) for error in errors] == ["the lease of the step is lost: first"]
        assert held.is_lost

    def test_a_callback_after_the_loss_runs_at_once(self, held):
        """A callback that is added after the loss runs at once."""
        held.lose("gone")
        errors = []
        held.on_lost(errors.append)
        assert len(errors) == 1

    def test_a_lost_lease_stays_lost(self, held, clock):
        """A lost lease stays lost, whatever a running heartbeat writes afterwards."""
        held.lose("gone")
        held.trusted_until = clock.ticks + 60
        with pytest.raises(LeaseLost, match="gone"):
            held.check()

    def test_a_failed_heart_beat_loses_no_lease(self, run, worker, cloud):
        """A failed heartbeat loses no lease, because only Firestore is unavailable."""
        claim = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE", times=1))
        with pytest.raises(BackendUnavailable):
            worker.heartbeats.beat()
        claim.held.check()

    def test_a_lease_taken_between_the_heart_beat_s_read_and_write_is_lost(self, run, worker, cloud):
        """A lease that is taken between a heartbeat's read and write is lost, by the write's precondition."""
        claim = worker.claim(run.run_id, "s0")
        other = worker.claim(run.run_id, "s1")
        taken = Fault(method="BatchWrite", before=lambda _request: run.let_lease_end("s0"), times=1)
        cloud.firestore.faults.add(taken)
        worker.heartbeats.beat()
        with pytest.raises(LeaseLost, match="just taken"):
            claim.held.check()
        other.held.check()

    def test_a_lease_that_a_commit_is_about_to_change_is_left_to_it(self, run, worker, calls):
        """A heartbeat skips a lease that a commit is about to change; else each would break the other."""
        claim = worker.claim(run.run_id, "s0")
        calls.reset()
        with claim.held.lock:
            worker.heartbeats.beat()
        assert calls.as_dict() == {}

    def test_a_forgotten_lease_is_not_renewed(self, run, worker, calls):
        """A forgotten lease is no longer renewed."""
        worker.ledger.forget(worker.claim(run.run_id, "s0"))
        calls.reset()
        worker.heartbeats.beat()
        assert calls.as_dict() == {}


class TestBook:
    """What the ledger writes and logs."""

    def test_claims_are_logged_won_or_lost(self, run, worker, log_lines):
        """Claims are logged as won or lost, with the reason of a loss."""
        worker.claim(run.run_id, "s0")
        worker.try_claim(run.run_id, "s0")
        results = [
            (line["claimed"], line.get("reason")) for line in log_lines() if line["event"] == "claim_attempt"
        ]
        assert results == [(True, None), (False, "step_running")]

    def test_a_take_over_names_its_former_holder(self, run, worker, log_lines):
        """A take-over is logged with the former owner."""
        worker.claim(run.run_id, "s0")
        run.let_lease_end("s0")
        worker.claim(run.run_id, "s0")
        (line,) = [line for line in log_lines() if line["event"] == "lease_taken_over"]
        assert (line["formerOwner"], line["formerAttempt"]) == (worker.ledger.owner, 1)

    def test_a_success_is_marked_with_the_server_s_time_in_microseconds(self, run, worker, clock):
        """The finishing time identifies its writer. It is right although the worker's clock is not."""
        before = datetime.now(UTC)
        claim = worker.claim(run.run_id, "s0")
        clock.advance(90)
        clock.wall = NOON
        worker.succeed(claim)
        written = run.step("s0")["finishedAt"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", written)
        seconds = (datetime.fromisoformat(written) - before).total_seconds()
        assert 90 <= seconds < 150

    def test_a_refused_finalize_is_logged(self, run, worker, log_lines):
        """A refused finalize is logged with its reason; the step stays, and the lease is deleted."""
        claim = worker.claim(run.run_id, "s0")
        run.set_status("s0", "CANCELLED")
        assert worker.succeed(claim).reason == "step_final"
        line = log_lines()[-1]
        assert (line["event"], line["reason"]) == ("finalize_refused", "step_final")
        assert line["status"] == "CANCELLED"
        assert (run.step("s0")["status"], run.lease("s0")) == ("CANCELLED", None)

    def test_an_error_of_a_foreign_answer_can_be_stored(self, run, worker):
        """An error with lone surrogates of a foreign response can be stored."""
        worker.fail(worker.claim(run.run_id, "s0"), StepError("X", "bad \ud800", {"m": "\udfff"}))
        assert run.step("s0")["error"] == {"code": "X", "message": "bad ?", "details": {"m": "?"}}

    @pytest.mark.parametrize(
        ("backend", "code"), [("storage", "GCS_WRITE_FAILED"), ("firestore", "STEP_TIMEOUT")]
    )
    def test_a_step_released_too_often_fails_with_its_backend_s_code(self, run, worker, backend, code):
        """The eleventh release fails the step with its backend's code."""
        claim = worker.claim(run.run_id, "s0")
        for _ in range(10):
            assert worker.ledger.release(claim, cause=BackendUnavailable(backend, "503")).released
            run.let_lease_end("s0")
            claim = worker.claim(run.run_id, "s0")
        assert worker.ledger.release(claim, cause=BackendUnavailable(backend, "503")).failed
        assert (run.step("s0")["error"]["code"], run.lease("s0")) == (code, None)

    def test_a_step_that_waits_for_an_account_is_released_without_end(self, run, worker):
        """No number of releases fails a step that waits for an account, and it uses up no attempt."""
        for attempt in range(1, 16):
            claim = worker.claim(run.run_id, "s0")
            assert claim.attempt == attempt
            assert worker.ledger.release(claim, cause=AccountsExhausted("none is left")).released
            assert worker.try_claim(run.run_id, "s0").reason == "step_running"
            run.let_lease_end("s0")
        assert (run.step("s0")["status"], run.lease("s0")["released"]) == ("RUNNING", 15)

    def test_a_release_after_a_refusal_counts_as_an_attempt_and_waits(self, run, worker):
        """A release after a refusal uses up an attempt; the step can't be taken over at once."""
        for attempt in range(1, 6):
            claim = worker.claim(run.run_id, "s0")
            assert worker.ledger.release(claim, cause=BackendRefused("firestore", "no")).released
            lease = run.lease("s0")
            assert (lease["attempt"], lease["released"], lease["token"]) == (attempt, 0, "")
            assert worker.try_claim(run.run_id, "s0").reason == "step_running"
            run.let_lease_end("s0")
        assert worker.try_claim(run.run_id, "s0").reason == "crash_loop"

    def test_a_release_at_shutdown_counts_as_none(self, run, worker):
        """A release because the worker stops uses up no attempt; the step can be taken over at once."""
        claim = worker.claim(run.run_id, "s0")
        assert worker.ledger.release(claim, cause=Interrupted("stop")).released
        assert run.lease("s0")["released"] == 1
        assert worker.claim(run.run_id, "s0").attempt == 2

    def test_a_step_whose_workers_crash_is_failed(self, run, worker):
        """A step whose workers crashed is failed after five attempts."""
        for _ in range(5):
            worker.claim(run.run_id, "s0")
            run.let_lease_end("s0")
        assert worker.try_claim(run.run_id, "s0").reason == "crash_loop"
        assert (run.step("s0")["error"]["code"], run.lease("s0")) == ("CRASH_LOOP", None)

    def test_a_release_that_fails_is_no_error(self, run, worker, cloud, clock):
        """A failed release raises no error, because the lease expires by itself."""
        claim = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
        clock_moves = Fault(method="BatchGetDocuments", before=lambda _request: clock.advance(9))
        cloud.firestore.faults.add(clock_moves)
        assert worker.ledger.release(claim).reason == "unknown"
        assert worker.heartbeats.held() == []

    def test_a_finalize_of_a_stopped_step_is_repeated_once(self, run, worker, cloud):
        """After an unknown outcome the finalize of a stopped step is read and repeated once."""
        claim, scope = worker.claim(run.run_id, "s0"), scope_of()
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
        scope.stop(Interrupted("stop requested"))
        cloud.firestore.calls.reset()
        with pytest.raises(BackendUnavailable):
            worker.ledger.finalize(claim, manifest_uri="gs://b/m", scope=scope)
        assert (cloud.firestore.calls["Commit"], cloud.firestore.calls["BatchGetDocuments"]) == (2, 1)

    def test_a_run_is_created_once(self, worker, documents):
        """A second create of a run with the same id changes nothing."""
        assert worker.ledger.create_run("new", {"steps": {}})
        assert not worker.ledger.create_run("new", {"steps": {"s": {}}})
        assert documents.document("flow_runs/new").get().to_dict() == {"steps": {}}

    def test_reading_a_run_of_an_unavailable_firestore_is_reported(self, worker, cloud):
        """Reading a run and the probe report an unavailable Firestore."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
        for ask in (lambda: worker.ledger.read("r"), worker.ledger.probe):
            with pytest.raises(BackendUnavailable, match=r"^firestore is unavailable: ResourceExhausted"):
                ask()


def test_the_terms_of_these_tests_are_what_their_numbers_say():
    """The lease settings of these tests have the numbers that the tests use."""
    assert TERMS.trusted_seconds == TRUSTED_SECONDS
