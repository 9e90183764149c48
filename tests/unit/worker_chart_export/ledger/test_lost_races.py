"""Single claims and finalizes, with failures and other writers in between."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from localcloud import Fault
from tests.support.fakes import OHLCV_ID, STEP_ID, chart_step, ohlcv_step
from tests.support.ledger.claim_calls import RUNNING, Book
from worker_chart_export.errors import BackendRefused, BackendUnavailable, RunInvalid, WorkerError
from worker_chart_export.ledger.commit import group_commit
from worker_chart_export.ledger.run_snapshot import RunSnapshot
from worker_chart_export.orchestration import FinalizeResult, Reason


@pytest.fixture
def book(documents):
    """Create a run on its own cloud, for faults."""
    return Book(documents).put()


def _snapshots():
    return sum(isinstance(found, RunSnapshot) for found in gc.get_objects())


class TestFaults:
    """What Firestore and other writers can do in between."""

    def test_a_lost_race_is_read_and_decided_again(self, book, cloud):
        """After three writes by a foreign writer the fourth commit of the claim succeeds."""
        cloud.firestore.faults.add(Fault(method="Commit", contend=True, times=3))
        assert book.claim().claimed
        assert book.step()["status"] == "RUNNING"

    @pytest.mark.parametrize(
        ("fault", "known"),
        [
            (Fault(method="Commit", contend=True, times=2), 1),
            (Fault(method="Commit", contend=True), 0),
            (Fault(method="Commit", error="INVALID_ARGUMENT"), 0),
        ],
        ids=["won_in_the_end", "never_won", "refused"],
    )
    def test_failed_commits_leave_no_run_to_the_garbage_collector(
        self, book, cloud, monkeypatch, fault, known
    ):
        """Each lost race has read the run. In a large run such garbage would fill the memory."""
        monkeypatch.setattr(group_commit, "GIVE_UP_AFTER_SECONDS", 20 if known else 0.2)
        cloud.firestore.faults.add(fault)
        gc.collect()
        before = _snapshots()  # those that other tests still hold
        gc.disable()
        try:
            with suppress(WorkerError):
                book.claim()
            left = _snapshots() - before
        finally:
            gc.enable()
        assert left == known  # the run after the own commit

    def test_a_race_lost_to_another_claim_is_lost(self, book, cloud):
        """A claim is lost when the step becomes RUNNING between its read and its commit."""
        other = Fault(method="Commit", before=lambda _request: rival.put(RUNNING), times=1)
        rival = Book(book.client)
        cloud.firestore.faults.add(other)
        outcome = book.claim()
        assert (outcome.claimed, outcome.reason) == (False, Reason.STEP_RUNNING)

    def test_a_dependency_undone_in_between_is_seen(self, book, cloud):
        """A dependency that changes in between is found by the commit's precondition."""
        steps = {OHLCV_ID: ohlcv_step(status="FAILED"), STEP_ID: chart_step()}
        cloud.firestore.faults.add(Fault(method="Commit", before=lambda _request: book.put(steps), times=1))
        assert book.claim().reason == Reason.DEPENDS_ON
        assert book.step()["status"] == "READY"

    def test_a_run_deleted_in_between_is_missing(self, book, cloud):
        """A run that is deleted in between is missing and is not created by the commit."""
        cloud.firestore.faults.add(
            Fault(method="Commit", before=lambda _request: book.reference.delete(), times=1)
        )
        assert book.claim().reason == Reason.RUN_MISSING
        assert book.reference.get().exists is False

    def test_endless_contention_ends_as_unavailable(self, book, cloud, monkeypatch):
        """Endless contention raises an outage, and the caller tries later."""
        monkeypatch.setattr(group_commit, "GIVE_UP_AFTER_SECONDS", 0.2)
        cloud.firestore.faults.add(Fault(method="Commit", contend=True))
        with pytest.raises(BackendUnavailable):
            book.claim()
        assert book.step()["status"] == "READY"

    def test_a_contended_commit_that_is_aborted_is_tried_again(self, book, cloud):
        """A commit that is aborted by contention is repeated, because nothing was written."""
        cloud.firestore.faults.add(Fault(method="Commit", error="ABORTED", times=2))
        assert book.claim().claimed

    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"])
    def test_a_finalize_that_landed_without_an_answer_has_won(self, book, cloud, status):
        """A finalize that was applied without a response has won, by its finishing time in the step."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="Commit", error=status, after_effect=True, times=1))
        assert book.succeed() == FinalizeResult(updated=True, status="SUCCEEDED")
        assert cloud.firestore.calls["Commit"] - 2 == 1  # the fixture and `put` made the other two commits

    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
    def test_a_finalize_that_did_not_land_is_made_again(self, book, cloud, status):
        """A finalize that was not applied is repeated, because the step is still RUNNING."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="Commit", error=status, times=1))
        assert book.fail().updated
        assert book.step()["status"] == "FAILED"

    def test_a_finalize_that_another_made_after_an_unknown_outcome_is_lost(self, book, cloud):
        """After an unknown outcome a finalize by another worker is a loss, by its finishing time."""
        book.put(RUNNING)
        other = {STEP_ID: chart_step(status="SUCCEEDED", finishedAt="2025-12-15T11:00:00Z")}
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        cloud.firestore.faults.add(
            Fault(method="BatchGetDocuments", before=lambda _request: book.put(other), skip=1, times=1)
        )
        assert book.succeed().reason == Reason.STEP_FINAL

    def test_a_claim_that_did_not_land_is_made_again(self, book, cloud):
        """A claim that was not applied is repeated, because the step is still READY."""
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        assert book.claim().claimed
        assert book.step()["status"] == "RUNNING"

    def test_a_claim_that_landed_without_an_answer_is_not_counted_as_won(self, book, cloud):
        """Without a lease a claim that was applied without a response does not count as won."""
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        with pytest.raises(BackendUnavailable, match=r"it is unknown whether the claim was committed"):
            book.claim()

    def test_the_client_itself_never_repeats_a_commit(self, book, cloud):
        """The client never repeats a commit: its own retry would turn an applied commit into a lost race."""
        cloud.firestore.calls.reset()
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        with pytest.raises(BackendUnavailable):
            book.claim()
        assert cloud.firestore.calls["Commit"] == 1

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_a_refusal_is_not_tried_again(self, book, cloud, method):
        """A refusal is not repeated, because a person must change something first."""
        cloud.firestore.calls.reset()
        cloud.firestore.faults.add(Fault(method=method, error="PERMISSION_DENIED"))
        with pytest.raises(BackendRefused, match=r"firestore refused"):
            book.claim()
        assert cloud.firestore.calls[method] == 1

    def test_a_read_is_repeated_during_a_short_outage(self, book, cloud):
        """A read is repeated during a short outage."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE", times=2))
        assert book.claim().claimed

    def test_a_finalize_outlasts_reads_that_fail(self, book, cloud):
        """A finalize repeats failed reads, because its charts are already paid for."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED", times=3))
        assert book.succeed().updated

    def test_a_firestore_that_stays_unavailable_raises_an_outage(self, book, cloud, monkeypatch):
        """An outage is raised when the time for retries has ended."""
        monkeypatch.setattr(group_commit, "GIVE_UP_AFTER_SECONDS", 0.2)
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
        with pytest.raises(BackendUnavailable, match=r"^firestore is unavailable: .*injected fault"):
            book.claim()

    def test_a_run_that_can_t_be_read_is_an_error_of_the_run(self, book):
        """A run that can't be read raises an error of the run, neither a loss nor an outage."""
        book.put(status="??")
        with pytest.raises(RunInvalid):
            book.claim()
