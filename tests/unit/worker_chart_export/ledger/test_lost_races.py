"""Single claims and finalizes, and what Firestore and other writers may do in between."""

from __future__ import annotations

import pytest

from localcloud import Fault
from tests.support.fakes import OHLCV_ID, STEP_ID, chart_step, ohlcv_step
from tests.support.ledger.claim_calls import RUNNING, Book
from worker_chart_export.errors import BackendRefused, BackendUnavailable, RunInvalid
from worker_chart_export.ledger.commit import group_commit
from worker_chart_export.orchestration import FinalizeResult, Reason


@pytest.fixture
def book(documents):
    """A run on a cloud of its own, for faults."""
    return Book(documents).put()


class TestFaults:
    """What Firestore and other writers may do in between."""

    def test_a_lost_race_is_read_and_decided_again(self, book, cloud):
        """A foreign writer touched the run three times; the fourth commit stands."""
        cloud.firestore.faults.add(Fault(method="Commit", contend=True, times=3))
        assert book.claim().claimed
        assert book.step()["status"] == "RUNNING"

    def test_a_race_lost_to_another_claim_is_lost(self, book, cloud):
        """The step became RUNNING between our read and our commit."""
        other = Fault(method="Commit", before=lambda _request: rival.put(RUNNING), times=1)
        rival = Book(book.client)
        cloud.firestore.faults.add(other)
        outcome = book.claim()
        assert (outcome.claimed, outcome.reason) == (False, Reason.STEP_RUNNING)

    def test_a_dependency_undone_in_between_is_seen(self, book, cloud):
        """The commit's precondition proves all that was decided by."""
        steps = {OHLCV_ID: ohlcv_step(status="FAILED"), STEP_ID: chart_step()}
        cloud.firestore.faults.add(Fault(method="Commit", before=lambda _request: book.put(steps), times=1))
        assert book.claim().reason == Reason.DEPENDS_ON
        assert book.step()["status"] == "READY"

    def test_a_run_deleted_in_between_is_missing(self, book, cloud):
        """And is not made again by the commit."""
        cloud.firestore.faults.add(
            Fault(method="Commit", before=lambda _request: book.reference.delete(), times=1)
        )
        assert book.claim().reason == Reason.RUN_MISSING
        assert book.reference.get().exists is False

    def test_endless_contention_ends_as_unavailable(self, book, cloud, monkeypatch):
        """The caller tries later."""
        monkeypatch.setattr(group_commit, "GIVE_UP_AFTER_SECONDS", 0.2)
        cloud.firestore.faults.add(Fault(method="Commit", contend=True))
        with pytest.raises(BackendUnavailable):
            book.claim()
        assert book.step()["status"] == "READY"

    def test_a_contended_commit_that_is_aborted_is_tried_again(self, book, cloud):
        """Nothing was written."""
        cloud.firestore.faults.add(Fault(method="Commit", error="ABORTED", times=2))
        assert book.claim().claimed

    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"])
    def test_a_finalize_that_landed_without_an_answer_has_won(self, book, cloud, status):
        """Its own mark stands in the step."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="Commit", error=status, after_effect=True, times=1))
        assert book.succeed() == FinalizeResult(updated=True, status="SUCCEEDED")
        assert cloud.firestore.calls["Commit"] - 2 == 1  # the fixture and `put` made the other two

    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
    def test_a_finalize_that_did_not_land_is_made_again(self, book, cloud, status):
        """The step is still RUNNING when it is read again."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="Commit", error=status, times=1))
        assert book.fail().updated
        assert book.step()["status"] == "FAILED"

    def test_a_finalize_that_another_made_after_an_unknown_outcome_is_lost(self, book, cloud):
        """The mark there is not ours."""
        book.put(RUNNING)
        other = {STEP_ID: chart_step(status="SUCCEEDED", finishedAt="2025-12-15T11:00:00Z")}
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        cloud.firestore.faults.add(
            Fault(method="BatchGetDocuments", before=lambda _request: book.put(other), skip=1, times=1)
        )
        assert book.succeed().reason == Reason.STEP_FINAL

    def test_a_claim_that_did_not_land_is_made_again(self, book, cloud):
        """READY after an unknown outcome is READY."""
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        assert book.claim().claimed
        assert book.step()["status"] == "RUNNING"

    def test_a_claim_that_landed_without_an_answer_is_not_counted_as_won(self, book, cloud):
        """Without a lease it can't be told from somebody else's."""
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        with pytest.raises(BackendUnavailable, match=r"it is unknown whether the claim was committed"):
            book.claim()

    def test_the_client_itself_never_repeats_a_commit(self, book, cloud):
        """Its own retry of Unavailable would turn a commit that landed into a lost race."""
        cloud.firestore.calls.reset()
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        with pytest.raises(BackendUnavailable):
            book.claim()
        assert cloud.firestore.calls["Commit"] == 1

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_a_refusal_is_not_tried_again(self, book, cloud, method):
        """Somebody has to change something first."""
        cloud.firestore.calls.reset()
        cloud.firestore.faults.add(Fault(method=method, error="PERMISSION_DENIED"))
        with pytest.raises(BackendRefused, match=r"firestore refused"):
            book.claim()
        assert cloud.firestore.calls[method] == 1

    def test_a_read_is_repeated_while_firestore_is_away_for_a_moment(self, book, cloud):
        """Reads are safe to repeat."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE", times=2))
        assert book.claim().claimed

    def test_a_finalize_outlasts_reads_that_fail(self, book, cloud):
        """The charts are made and paid for, and nobody would finalize the step instead."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED", times=3))
        assert book.succeed().updated

    def test_a_firestore_that_stays_away_is_told(self, book, cloud, monkeypatch):
        """Once the time for it is over."""
        monkeypatch.setattr(group_commit, "GIVE_UP_AFTER_SECONDS", 0.2)
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
        with pytest.raises(BackendUnavailable, match=r"^firestore is unavailable: .*injected fault"):
            book.claim()

    def test_a_run_that_can_t_be_read_is_an_error_of_the_run(self, book):
        """Neither lost nor away."""
        book.put(status="??")
        with pytest.raises(RunInvalid):
            book.claim()
