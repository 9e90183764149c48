"""The quota ledger on the embedded Firestore: exact over processes and threads, and at midnight."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.support.charts.chart_img_samples import (
    account,
    at_once,
    commits_held,
    granted,
    store_usage,
    until,
    usage,
    usage_commits,
    usage_fault,
    used,
)
from tests.support.fakes import HandClock, scope_of
from worker_chart_export.charts.chart_img.quota import QuotaLedger, _Usage
from worker_chart_export.charts.chart_img.usage_document import Taken
from worker_chart_export.observability import metrics

NOW = datetime(2025, 12, 15, 12, tzinfo=UTC)
TODAY, YESTERDAY, TOMORROW = (f"2025-12-{day}T00:00:00Z" for day in (15, 14, 16))
ACCOUNT = account(daily_limit=50)


class TestCount:
    """The limit is exact over all threads and processes."""

    def test_the_limit_is_reached_and_not_passed(self, quota, documents):
        """Sequential calls reach the limit and do not pass it."""
        results = [quota.count(account(daily_limit=3), scope_of()) for _ in range(5)]
        assert granted(results) == (3, 2)
        assert used(documents) == 3

    def test_two_processes_with_many_threads_spend_exactly_the_limit(self, cloud, documents):
        """Two processes with many threads spend exactly the limit, in far fewer commits than calls."""
        ledgers, commits = [QuotaLedger(documents), QuotaLedger(documents)], usage_commits(cloud)
        calls = [partial(ledger.count, ACCOUNT, scope_of()) for ledger in ledgers for _ in range(60)]
        assert granted(at_once(calls)) == (50, 70)
        assert used(documents) == 50
        assert commits() <= 25

    def test_all_waiting_calls_share_one_commit_for_exactly_their_number(self, cloud, quota, documents):
        """All calls that queue during a commit share the next one, which adds exactly their number."""
        ready = threading.Barrier(21)
        with commits_held(cloud) as arrived:
            calls = [partial(_after, ready, quota, ACCOUNT) for _ in range(20)]
            others = threading.Thread(target=lambda: at_once(calls))
            first = threading.Thread(target=quota.count, args=(ACCOUNT, scope_of()))
            first.start()
            assert arrived.wait(10)
            others.start()
            ready.wait(10)
            until(lambda: len(quota._counters["acc-1"].queue._waiting) == 21)
        first.join()
        others.join()
        assert (used(documents), cloud.firestore.calls["Commit"]) == (21, 2)

    def test_nothing_is_reserved_ahead(self, quota, documents):
        """No call is reserved ahead: each one is counted when it is made."""
        quota.count(ACCOUNT, scope_of())
        assert used(documents) == 1

    def test_a_process_that_writes_alone_does_not_read_the_count(self, cloud, quota, documents):
        """Only the first two counts read: the second one's read shows that nobody else writes."""
        assert granted([quota.count(ACCOUNT, scope_of()) for _ in range(10)]) == (10, 0)
        assert (used(documents), cloud.firestore.calls["Commit"]) == (10, 10)
        assert cloud.firestore.calls["BatchGetDocuments"] == 2 + 1  # and the test's own

    @pytest.mark.parametrize("stored", [{"usageToday": 48}, {"dailyLimit": 5}])
    def test_a_write_of_others_is_seen_by_the_next_count(self, quota, documents, stored):
        """A count or a limit that another client wrote is respected without a read before it."""
        assert granted([quota.count(ACCOUNT, scope_of()) for _ in range(3)]) == (3, 0)
        documents.document("chart_img_accounts_usage/acc-1").update(stored)
        assert granted([quota.count(ACCOUNT, scope_of()) for _ in range(5)]) == (2, 3)

    def test_a_raised_limit_is_seen_by_the_next_count(self, quota, documents):
        """A refusal is never made from memory: the limit may have been raised."""
        one = account(daily_limit=3)
        assert granted([quota.count(one, scope_of()) for _ in range(5)]) == (3, 2)
        documents.document("chart_img_accounts_usage/acc-1").update({"dailyLimit": 4})
        assert granted([quota.count(one, scope_of()) for _ in range(5)]) == (1, 4)

    def test_a_deleted_document_starts_again(self, quota, documents):
        """A usage document that was deleted is made again by the next count."""
        assert granted([quota.count(ACCOUNT, scope_of()) for _ in range(3)]) == (3, 0)
        documents.document("chart_img_accounts_usage/acc-1").delete()
        assert quota.count(ACCOUNT, scope_of()).granted
        assert used(documents) == 1

    def test_accounts_are_counted_apart(self, quota, documents):
        """Each account has its own count in its own document."""
        at_once([partial(quota.count, account(name), scope_of()) for name in ("a", "b") * 5])
        assert [used(documents, name) for name in ("a", "b")] == [5, 5]

    def test_a_refusal_writes_nothing(self, cloud, quota, documents):
        """A refused count leaves the document unchanged."""
        store_usage(documents, usageToday=50, windowStart="2999-01-01T00:00:00Z")
        commits = usage_commits(cloud)
        assert not quota.count(ACCOUNT, scope_of()).granted
        assert commits() == 0

    @pytest.mark.parametrize(("count", "is_left"), [(0, True), (48, True), (49, True), (50, False)])
    def test_a_look_counts_nothing(self, quota, documents, count, is_left):
        """It says whether one call would be granted."""
        store_usage(documents, windowStart="2999-01-01T00:00:00Z", usageToday=count)
        assert quota.has_calls_left(ACCOUNT).granted is is_left
        assert used(documents) == count

    def test_foreign_fields_are_kept(self, quota, documents):
        """The fields of other workers in the document are kept."""
        store_usage(
            documents, usageToday=7, windowStart="2999-01-01T00:00:00Z", note={"by": "hand"}, dailyLimit=9
        )
        assert granted([quota.count(ACCOUNT, scope_of()) for _ in range(4)]) == (2, 2)
        assert usage(documents) == {
            "usageToday": 9,
            "windowStart": "2999-01-01T00:00:00Z",
            "note": {"by": "hand"},
            "dailyLimit": 9,
        }


def _after(barrier, quota, counted_account):
    barrier.wait(10)
    return quota.count(counted_account, scope_of())


class TestMidnight:
    """The server's day counts."""

    @pytest.mark.parametrize(
        ("window", "stored", "left"), [(YESTERDAY, TODAY, 50), (TODAY, TODAY, 20), (TOMORROW, TOMORROW, 20)]
    )
    def test_windows_around_today(self, quota, documents, server_time, window, stored, left):
        """An earlier window is replaced, a later one is adopted."""
        server_time.set(NOW)
        store_usage(documents, windowStart=window, usageToday=30)
        results = at_once([partial(quota.count, ACCOUNT, scope_of()) for _ in range(60)])
        assert granted(results) == (left, 60 - left)
        assert usage(documents) == {"windowStart": stored, "usageToday": 50}

    def test_a_count_that_needs_no_read_sees_that_a_day_began(self, quota, documents, server_time):
        """The commit's own time shows the new day: the call counts in it, with the new day's end."""
        server_time.set(NOW)
        for _ in range(3):
            quota.count(ACCOUNT, scope_of())
        server_time.set(NOW + timedelta(days=1))
        counted = quota.count(ACCOUNT, scope_of())
        assert (counted.granted, counted.window.day) == (True, 16)
        assert usage(documents) == {"windowStart": TOMORROW, "usageToday": 1}

    def test_what_was_used_up_yesterday_is_not_counted_today(self, quota, documents, server_time):
        """The answer of Chart-IMG came after midnight: the document stays as it is."""
        server_time.set(NOW)
        counted = quota.count(ACCOUNT, scope_of())
        server_time.set(NOW + timedelta(days=1))
        quota.use_up(ACCOUNT, counted, scope_of())
        assert usage(documents) == {"windowStart": TODAY, "usageToday": 1}

    def test_the_metrics_show_a_window_until_it_ends(self, documents, log_lines):
        """A window that is a day ahead is no wrong one, but the count starts again at its end."""
        clock = HandClock()
        midnight = NOW.replace(hour=0)
        usage_read = _Usage(fields=None, update_time=None, server_time=midnight, asked_at=clock.monotonic())
        tomorrow = midnight + timedelta(days=1)
        taken = Taken(granted=1, used=31, limit=50, window=tomorrow, fields=None)
        QuotaLedger(documents, clock)._counter(ACCOUNT)._report(taken, usage_read)
        seen = []
        for seconds in (2 * 86400 - 1, 1):
            clock.advance(seconds)
            seen.append(metrics.quota_seen()["acc-1"])
        assert seen == [(31, 50), (0, 50)]
        assert log_lines() == []

    def test_a_day_that_begins_between_read_and_commit(self, cloud, quota, documents, server_time):
        """The call counts in the window of the day in which it is made."""
        server_time.set(NOW)
        usage_fault(cloud, method="Commit", before=lambda _: server_time.set(NOW + timedelta(days=1)))
        assert quota.count(ACCOUNT, scope_of()).window.day == 16
        assert usage(documents) == {"windowStart": TOMORROW, "usageToday": 1}

    def test_two_processes_around_midnight_overspend_neither_day(self, cloud, documents, server_time):
        """Two processes around midnight overspend neither day, and the window moves once."""
        windows = []

        def note(request):
            (write,) = request.writes
            windows.append(write.update.fields["windowStart"].string_value)

        usage_fault(cloud, method="Commit", before=note)
        ledgers = [QuotaLedger(documents), QuotaLedger(documents)]
        midnight, made = datetime(2025, 12, 16, tzinfo=UTC), []
        server_time.set(midnight - timedelta(seconds=60))

        def spend(ledger):
            while (counted := ledger.count(ACCOUNT, scope_of())).granted:
                made.append(counted.window.day)
                if len(made) == 30:
                    server_time.set(midnight)

        assert at_once([partial(spend, ledger) for ledger in ledgers for _ in range(4)]) == [None] * 8
        per_day = Counter(made)
        assert 30 <= per_day[15] <= 50
        assert per_day[16] == 50
        assert set(windows) == {TODAY, TOMORROW}
        assert usage(documents) == {"windowStart": TOMORROW, "usageToday": 50}
