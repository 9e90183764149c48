"""The quota ledger on the embedded Firestore: exact over processes, threads, lost answers and outages."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from google.api_core.exceptions import FailedPrecondition

from localcloud import Fault
from tests.unit.chart_img.material import account, at_once, usage, used
from tests.unit.doubles import budget_of
from worker_chart_export.charts.chart_img.quota import USAGE, QuotaLedger
from worker_chart_export.errors import BackendRefused, BackendUnavailable, Interrupted, StepTimedOut

NOW = datetime(2025, 12, 15, 12, tzinfo=UTC)
TODAY, YESTERDAY, TOMORROW = (f"2025-12-{day}T00:00:00Z" for day in (15, 14, 16))
ACCOUNT = account(daily_limit=50)
AT_MOST_SECONDS = 2.0


@pytest.fixture
def quota(documents):
    """One process's ledger."""
    return QuotaLedger(documents)


def _granted(results):
    """How many were granted and refused; an error fails the test."""
    counts = Counter(result.granted for result in results)
    return counts[True], counts[False]


def _store(documents, **fields):
    documents.document(f"{USAGE}/acc-1").set(fields)


def _fault(cloud, **fields):
    return cloud.firestore.faults.add(Fault(match=USAGE, **fields))


def _commits(cloud):
    """Counts the commits from now on, lost races included."""
    watching = _fault(cloud, method="Commit", before=lambda _request: None)
    return lambda: cloud.firestore.faults.fired(watching)


@contextmanager
def _commits_held(cloud):
    """Commits wait at the server until the block ends; gives what is set when one waits there."""
    arrived, go = threading.Event(), threading.Event()

    def hold(_request):
        arrived.set()
        go.wait(30)

    held = _fault(cloud, method="Commit", before=hold)
    try:
        yield arrived
    finally:
        cloud.firestore.faults.remove(held)
        go.set()


class TestCount:
    """Exactly the limit, over all threads and processes."""

    def test_the_limit_is_reached_and_not_passed(self, quota, documents):
        """One after the other."""
        results = [quota.count(account(daily_limit=3), budget_of()) for _ in range(5)]
        assert _granted(results) == (3, 2)
        assert used(documents) == 3

    def test_two_processes_with_many_threads_spend_exactly_the_limit(self, cloud, documents):
        """In far fewer commits than calls, because those who wait share one."""
        ledgers, commits = [QuotaLedger(documents), QuotaLedger(documents)], _commits(cloud)
        calls = [partial(ledger.count, ACCOUNT, budget_of()) for ledger in ledgers for _ in range(60)]
        assert _granted(at_once(calls)) == (50, 70)
        assert used(documents) == 50
        assert commits() <= 25

    def test_all_who_wait_share_one_commit_for_exactly_their_number(self, cloud, quota, documents):
        """While the first commit is under way the others gather."""
        ready = threading.Barrier(21)
        with _commits_held(cloud) as arrived:
            calls = [partial(_after, ready, quota, ACCOUNT) for _ in range(20)]
            others = threading.Thread(target=lambda: at_once(calls))
            first = threading.Thread(target=quota.count, args=(ACCOUNT, budget_of()))
            first.start()
            assert arrived.wait(10)
            others.start()
            ready.wait(10)
            _until(lambda: len(quota._counters["acc-1"]._turns._waiting) == 21)
        first.join()
        others.join()
        assert (used(documents), cloud.firestore.calls["Commit"]) == (21, 2)

    def test_nothing_is_reserved_ahead(self, quota, documents):
        """One call, one count."""
        quota.count(ACCOUNT, budget_of())
        assert used(documents) == 1

    def test_accounts_are_counted_apart(self, quota, documents):
        """Each in its own document."""
        at_once([partial(quota.count, account(name), budget_of()) for name in ("a", "b") * 5])
        assert [used(documents, name) for name in ("a", "b")] == [5, 5]

    def test_a_refusal_writes_nothing(self, cloud, quota, documents):
        """The document stays as it is."""
        _store(documents, usageToday=50, windowStart="2999-01-01T00:00:00Z")
        commits = _commits(cloud)
        assert not quota.count(ACCOUNT, budget_of()).granted
        assert commits() == 0

    def test_foreign_fields_are_kept(self, quota, documents):
        """Other workers may note what they like."""
        _store(documents, usageToday=7, windowStart="2999-01-01T00:00:00Z", note={"by": "hand"}, dailyLimit=9)
        assert _granted([quota.count(ACCOUNT, budget_of()) for _ in range(4)]) == (2, 2)
        assert usage(documents) == {
            "usageToday": 9,
            "windowStart": "2999-01-01T00:00:00Z",
            "note": {"by": "hand"},
            "dailyLimit": 9,
        }


def _after(barrier, quota, counted_account):
    barrier.wait(10)
    return quota.count(counted_account, budget_of())


def _until(holds):
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.01)


class TestMidnight:
    """The day is the server's."""

    @pytest.mark.parametrize(
        ("window", "stored", "left"), [(YESTERDAY, TODAY, 50), (TODAY, TODAY, 20), (TOMORROW, TOMORROW, 20)]
    )
    def test_windows_around_today(self, quota, documents, server_time, window, stored, left):
        """Yesterday's is over, a later one is adopted."""
        server_time.set(NOW)
        _store(documents, windowStart=window, usageToday=30)
        results = at_once([partial(quota.count, ACCOUNT, budget_of()) for _ in range(60)])
        assert _granted(results) == (left, 60 - left)
        assert usage(documents) == {"windowStart": stored, "usageToday": 50}

    def test_two_processes_around_midnight_overspend_neither_day(self, cloud, documents, server_time):
        """The window moves once and never back."""
        windows = []

        def note(request):
            (write,) = request.writes
            windows.append(write.update.fields["windowStart"].string_value)

        _fault(cloud, method="Commit", before=note)
        ledgers = [QuotaLedger(documents), QuotaLedger(documents)]
        server_time.set(datetime(2025, 12, 15, 23, 59, 59, 700_000, tzinfo=UTC))

        def spend(ledger):
            ended, granted = time.monotonic() + 0.8, []
            while time.monotonic() < ended:
                counted = ledger.count(ACCOUNT, budget_of())
                granted += [counted.window] * counted.granted
            return granted

        results = at_once([partial(spend, ledger) for ledger in ledgers for _ in range(4)])
        per_day = Counter(window.day for granted in results for window in granted)
        assert per_day == {15: 50, 16: 50}
        assert set(windows) == {TODAY, TOMORROW}
        assert usage(documents) == {"windowStart": TOMORROW, "usageToday": 50}

    def test_a_server_that_falls_back_moves_no_window_back(self, quota, documents, server_time):
        """What was counted stays counted."""
        server_time.set(NOW + timedelta(days=1))
        quota.count(ACCOUNT, budget_of())
        server_time.set(NOW)
        counted = quota.count(ACCOUNT, budget_of())
        assert counted.window.day == 16
        assert usage(documents) == {"windowStart": TOMORROW, "usageToday": 2}


class TestTrouble:
    """Commits that fail, and others that write."""

    def test_lost_answers_waste_calls_and_overspend_none(self, cloud, documents):
        """The commit landed, and nobody was told."""
        _fault(cloud, method="Commit", error="UNAVAILABLE", after_effect=True, probability=0.4)
        ledgers = [QuotaLedger(documents), QuotaLedger(documents)]
        calls = [partial(ledger.count, ACCOUNT, budget_of()) for ledger in ledgers for _ in range(60)]
        granted, refused = _granted(at_once(calls))
        assert granted + refused == 120
        assert granted <= used(documents) == 50

    def test_commits_that_never_arrive_are_made_again(self, cloud, quota, documents):
        """Nothing is wasted then."""
        _fault(cloud, method="Commit", error="UNAVAILABLE", times=3)
        assert quota.count(ACCOUNT, budget_of()).granted
        assert used(documents) == 1

    def test_a_foreign_writer_takes_part(self, documents):
        """It spends 20 of the 50, one by one, while we spend the rest."""
        quota, reference = QuotaLedger(documents), documents.document(f"{USAGE}/acc-1")
        today = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
        _store(documents, windowStart=today, usageToday=0)

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
        granted, _ = _granted([quota.count(ACCOUNT, budget_of()) for _ in range(25)])
        foreigner.join(60)
        granted += _granted([quota.count(ACCOUNT, budget_of()) for _ in range(25)])[0]
        assert (granted, used(documents)) == (30, 50)

    def test_contention_is_outlasted(self, cloud, quota, documents):
        """Lost races are run again."""
        _fault(cloud, method="Commit", contend=True, times=4)
        quota.count(ACCOUNT, budget_of())
        assert quota.count(ACCOUNT, budget_of()).granted
        assert used(documents) == 2

    def test_contention_without_end_is_an_outage(self, cloud, quota, documents):
        """No call is made that is not counted."""
        quota.count(ACCOUNT, budget_of())
        _fault(cloud, method="Commit", contend=True)
        with pytest.raises(BackendUnavailable):
            quota.count(ACCOUNT, budget_of(0.5))
        assert used(documents) == 1

    def test_a_document_deleted_meanwhile_is_made_again(self, cloud, quota, documents):
        """As if it had never been."""
        quota.count(ACCOUNT, budget_of())
        store = cloud.firestore
        deleted = []

        def delete(_request):
            if not deleted:
                deleted.append(True)
                documents.document(f"{USAGE}/acc-1").delete()

        store.faults.add(Fault(method="Commit", match=USAGE, before=delete, times=1))
        assert quota.count(ACCOUNT, budget_of()).granted
        assert used(documents) == 1

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_a_firestore_that_is_away_ends_with_the_step_s_time(self, cloud, quota, method):
        """As an outage, for all who wait, and soon."""
        _fault(cloud, method=method, error="UNAVAILABLE")
        started = time.monotonic()
        results = at_once([partial(quota.count, ACCOUNT, budget_of(0.5)) for _ in range(5)])
        assert all(isinstance(result, BackendUnavailable) for result in results)
        assert time.monotonic() - started < AT_MOST_SECONDS

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_a_firestore_that_hangs_holds_nobody_beyond_its_time(self, cloud, quota, method):
        """Who takes the turn for the others is let go like them."""
        _fault(cloud, method=method, delay_seconds=20)
        started = time.monotonic()
        results = at_once([partial(quota.count, ACCOUNT, budget_of(0.5)) for _ in range(5)])
        assert all(isinstance(result, BackendUnavailable) for result in results)
        assert time.monotonic() - started < AT_MOST_SECONDS

    def test_a_refusal_of_firestore_is_told_at_once(self, cloud, quota):
        """Waiting won't mend it."""
        _fault(cloud, method="Commit", error="PERMISSION_DENIED")
        with pytest.raises(BackendRefused, match="firestore refused"):
            quota.count(ACCOUNT, budget_of())

    def test_a_document_that_can_t_be_stored_is_a_refusal(self, cloud, quota):
        """Of the backend, in the words of its kind of error."""
        _fault(cloud, method="Commit", error="INVALID_ARGUMENT")
        with pytest.raises(BackendRefused, match="firestore refused"):
            quota.count(ACCOUNT, budget_of())


class TestStop:
    """A step that is stopped counts nothing and waits for nothing."""

    def test_who_is_stopped_counts_nothing(self, cloud, quota, documents):
        """Not even a look."""
        budget = budget_of()
        budget.stop(Interrupted("stop"))
        with pytest.raises(Interrupted):
            quota.count(ACCOUNT, budget)
        assert cloud.firestore.calls["BatchGetDocuments"] == 0
        assert usage(documents) is None

    def test_who_has_no_time_left_counts_nothing(self, quota, documents):
        """It could not call any more."""
        with pytest.raises(StepTimedOut):
            quota.count(ACCOUNT, budget_of(0))
        assert usage(documents) is None

    def test_a_stop_wakes_who_waits_for_firestore(self, cloud, quota):
        """Though the commit goes on."""
        budget = budget_of(60)
        with _commits_held(cloud) as arrived:
            stopped = []

            def stop():
                assert arrived.wait(10)
                stopped.append(time.monotonic())
                budget.stop(Interrupted("stop"))

            stopper = threading.Thread(target=stop)
            stopper.start()
            with pytest.raises(Interrupted):
                quota.count(ACCOUNT, budget)
            stopper.join()
            assert time.monotonic() - stopped[0] < AT_MOST_SECONDS

    def test_those_stopped_while_they_wait_are_not_counted(self, cloud, quota, documents):
        """The next commit is for the others alone."""
        stopped, going = budget_of(60), budget_of(60)
        with _commits_held(cloud) as arrived:
            threads = [threading.Thread(target=at_once, args=([partial(quota.count, ACCOUNT, going)],))]
            threads[0].start()
            assert arrived.wait(10)
            for budget in (stopped, stopped, stopped, going):
                call = partial(quota.count, ACCOUNT, budget)
                threads.append(threading.Thread(target=at_once, args=([call],)))
                threads[-1].start()
            _until(lambda: len(quota._counters["acc-1"]._turns._waiting) == 5)
            stopped.stop(Interrupted("stop"))
        for thread in threads:
            thread.join(30)
        assert used(documents) == 2
