"""The quota ledger when commits fail, others write, Firestore is unavailable, or the step is stopped."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from functools import partial

import pytest
from google.api_core.exceptions import FailedPrecondition

from tests.support.charts.chart_img_samples import (
    account,
    at_once,
    commits_held,
    granted,
    store_usage,
    until,
    usage,
    usage_fault,
    used,
)
from tests.support.fakes import scope_of
from worker_chart_export.charts.chart_img.quota import QuotaLedger, _Call
from worker_chart_export.charts.chart_img.usage_document import USAGE
from worker_chart_export.errors import BackendRefused, BackendUnavailable, Interrupted, StepTimedOut
from worker_chart_export.timing import Backoff

ACCOUNT = account(daily_limit=50)
MAX_SECONDS = 2.0


class TestFailures:
    """Failing commits and other writers."""

    def test_lost_answers_waste_calls_and_overspend_none(self, cloud, documents):
        """A lost response after a commit wastes its calls and overspends none."""
        usage_fault(cloud, method="Commit", error="UNAVAILABLE", after_effect=True, probability=0.4)
        ledgers = [QuotaLedger(documents), QuotaLedger(documents)]
        calls = [partial(ledger.count, ACCOUNT, scope_of()) for ledger in ledgers for _ in range(60)]
        made, refused = granted(at_once(calls))
        assert made + refused == 120
        assert made <= used(documents) == 50

    def test_commits_that_never_arrive_are_made_again(self, cloud, quota, documents):
        """A commit that never arrived is repeated and wastes no count."""
        usage_fault(cloud, method="Commit", error="UNAVAILABLE", times=3)
        assert quota.count(ACCOUNT, scope_of()).granted
        assert used(documents) == 1

    def test_a_foreign_writer_takes_part(self, documents):
        """With a foreign writer that spends 20 of the 50, the total is still exact."""
        quota, reference = QuotaLedger(documents), documents.document(f"{USAGE}/acc-1")
        today = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
        store_usage(documents, windowStart=today, usageToday=0)

        def foreign():
            spent = 0
            while spent < 20:
                snapshot = reference.get()
                option = documents.write_option(last_update_time=snapshot.update_time)
                try:
                    reference.update({"usageToday": snapshot.get("usageToday") + 1}, option=option)
                except FailedPrecondition:
                    continue
                spent += 1

        foreigner = threading.Thread(target=foreign)
        foreigner.start()
        made, _ = granted([quota.count(ACCOUNT, scope_of()) for _ in range(25)])
        foreigner.join(60)
        made += granted([quota.count(ACCOUNT, scope_of()) for _ in range(25)])[0]
        assert (made, used(documents)) == (30, 50)

    def test_contention_is_outlasted(self, cloud, quota, documents):
        """A commit that lost a race is repeated."""
        usage_fault(cloud, method="Commit", contend=True, times=4)
        quota.count(ACCOUNT, scope_of())
        assert quota.count(ACCOUNT, scope_of()).granted
        assert used(documents) == 2

    def test_contention_without_end_is_an_outage(self, cloud, quota, documents):
        """Endless contention is an outage, and no uncounted call is made."""
        quota.count(ACCOUNT, scope_of())
        usage_fault(cloud, method="Commit", contend=True)
        with pytest.raises(BackendUnavailable):
            quota.count(ACCOUNT, scope_of(0.5))
        assert used(documents) == 1

    def test_a_deleted_document_is_created_again(self, cloud, quota, documents):
        """A document that was deleted in between is created again with a count of zero."""
        quota.count(ACCOUNT, scope_of())
        reference = documents.document(f"{USAGE}/acc-1")
        usage_fault(cloud, method="Commit", before=lambda _request: reference.delete(), times=1)
        assert quota.count(ACCOUNT, scope_of()).granted
        assert used(documents) == 1

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_an_unavailable_firestore_ends_with_the_step_s_time(self, cloud, quota, method):
        """An unavailable Firestore is an outage for the count in flight, a timeout for queued ones."""
        usage_fault(cloud, method=method, error="UNAVAILABLE")
        started = time.monotonic()
        results = at_once([partial(quota.count, ACCOUNT, scope_of(0.5)) for _ in range(5)])
        assert any(isinstance(result, BackendUnavailable) for result in results)
        assert all(isinstance(result, BackendUnavailable | StepTimedOut) for result in results)
        assert time.monotonic() - started < MAX_SECONDS

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_a_firestore_that_hangs_holds_no_call_beyond_its_time(self, cloud, quota, method):
        """A Firestore that hangs holds no call beyond its time; the count in flight is an outage."""
        usage_fault(cloud, method=method, delay_seconds=20)
        started = time.monotonic()
        results = at_once([partial(quota.count, ACCOUNT, scope_of(0.5)) for _ in range(5)])
        assert any(isinstance(result, BackendUnavailable) for result in results)
        assert all(isinstance(result, BackendUnavailable | StepTimedOut) for result in results)
        assert time.monotonic() - started < MAX_SECONDS

    def test_the_pauses_grow_until_a_commit_succeeds(self, cloud, quota, monkeypatch):
        """The first attempt waits for nothing."""
        pauses = []
        monkeypatch.setattr(Backoff, "delay_seconds", lambda _self, failures: pauses.append(failures) or 0.0)
        for times in (3, 1):
            usage_fault(cloud, method="Commit", error="UNAVAILABLE", times=times)
            quota.count(ACCOUNT, scope_of())
        assert pauses == [1, 2, 3, 1]

    def test_a_window_that_is_used_up_is_known_before_the_document_says_so(self, cloud, quota, documents):
        """Also to a process that is the only writer, and does not read the document before a count."""
        for _ in range(3):
            counted = quota.count(ACCOUNT, scope_of())
        fault = usage_fault(cloud, method="Commit", error="PERMISSION_DENIED")
        quota.use_up(ACCOUNT, counted, scope_of())
        assert (quota.has_calls_left(ACCOUNT).granted, used(documents)) == (False, 3)
        cloud.firestore.faults.remove(fault)
        assert not quota.count(ACCOUNT, scope_of()).granted
        assert used(documents) == 50

    def test_a_step_without_time_leaves_it_to_the_next_count_to_say_that_it_is_used_up(
        self, quota, documents
    ):
        """That count needs no read, because nobody else writes."""
        for _ in range(3):
            counted = quota.count(ACCOUNT, scope_of())
        quota.use_up(ACCOUNT, counted, scope_of(0))
        assert used(documents) == 3
        assert not quota.count(ACCOUNT, scope_of()).granted
        assert used(documents) == 50

    @pytest.mark.parametrize("last_error", [None, BackendUnavailable("firestore", "x")])
    def test_a_call_without_time_left_ends_with_the_error_of_its_last_attempt(self, last_error):
        """Without an attempt it is a timeout."""
        call = _Call(scope=scope_of(0))
        call.last_error = last_error
        assert not call.may_be_counted()
        assert call.error is last_error if last_error else isinstance(call.error, StepTimedOut)

    def test_a_call_that_is_stopped_in_the_queue_ends_with_the_stop(self):
        """What the attempt before it met does not matter."""
        scope = scope_of()
        call = _Call(scope=scope)
        call.last_error, stop = BackendUnavailable("firestore", "x"), Interrupted("stop")
        scope.stop(stop)
        assert not call.may_be_counted()
        assert call.error is stop

    def test_a_refusal_of_firestore_is_raised_at_once(self, cloud, quota):
        """A refusal of Firestore is raised at once, because waiting does not help."""
        usage_fault(cloud, method="Commit", error="PERMISSION_DENIED")
        with pytest.raises(BackendRefused, match="firestore refused"):
            quota.count(ACCOUNT, scope_of())

    def test_a_document_that_can_t_be_stored_is_a_refusal(self, cloud, quota):
        """A document that can't be stored raises BackendRefused."""
        usage_fault(cloud, method="Commit", error="INVALID_ARGUMENT")
        with pytest.raises(BackendRefused, match="firestore refused"):
            quota.count(ACCOUNT, scope_of())


class TestStop:
    """A stopped step counts nothing and waits for nothing."""

    def test_a_stopped_call_counts_nothing(self, cloud, quota, documents):
        """A stopped call neither counts nor reads the document."""
        scope = scope_of()
        scope.stop(Interrupted("stop"))
        with pytest.raises(Interrupted):
            quota.count(ACCOUNT, scope)
        assert cloud.firestore.calls["BatchGetDocuments"] == 0
        assert usage(documents) is None

    def test_a_call_without_time_counts_nothing(self, quota, documents):
        """A call without time left counts nothing."""
        with pytest.raises(StepTimedOut):
            quota.count(ACCOUNT, scope_of(0))
        assert usage(documents) is None

    def test_time_that_ends_in_the_queue_is_a_time_out(self, cloud, quota):
        """A time that ends in the queue is a timeout, neither an outage nor contention."""
        with commits_held(cloud) as arrived:
            first = threading.Thread(target=at_once, args=([partial(quota.count, ACCOUNT, scope_of())],))
            first.start()
            assert arrived.wait(10)
            with pytest.raises(StepTimedOut):
                quota.count(ACCOUNT, scope_of(0.3))
        first.join(30)

    def test_a_stop_ends_the_wait_for_firestore(self, cloud, quota):
        """A stop ends a call's wait for Firestore, although the commit continues."""
        scope = scope_of(60)
        with commits_held(cloud) as arrived:
            stopped = []

            def stop():
                assert arrived.wait(10)
                stopped.append(time.monotonic())
                scope.stop(Interrupted("stop"))

            stopper = threading.Thread(target=stop)
            stopper.start()
            with pytest.raises(Interrupted):
                quota.count(ACCOUNT, scope)
            stopper.join()
            assert time.monotonic() - stopped[0] < MAX_SECONDS

    def test_calls_stopped_in_the_queue_are_not_counted(self, cloud, quota, documents):
        """Calls that are stopped in the queue are not counted by the next commit."""
        stopped, going = scope_of(60), scope_of(60)
        with commits_held(cloud) as arrived:
            threads = [threading.Thread(target=at_once, args=([partial(quota.count, ACCOUNT, going)],))]
            threads[0].start()
            assert arrived.wait(10)
            for scope in (stopped, stopped, stopped, going):
                call = partial(quota.count, ACCOUNT, scope)
                threads.append(threading.Thread(target=at_once, args=([call],)))
                threads[-1].start()
            until(lambda: len(quota._counters["acc-1"].queue._waiting) == 5)
            stopped.stop(Interrupted("stop"))
        for thread in threads:
            thread.join(30)
        assert used(documents) == 2
