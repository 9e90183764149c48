"""An account that is used up for today: by the server's day, and until its document is corrected."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from localcloud import Fault
from tests.support.charts.chart_img_samples import account, at_once, usage, used
from tests.support.fakes import HandClock, chart_request
from worker_chart_export.charts.chart_img.usage_document import USAGE
from worker_chart_export.errors import ChartApiLimitExceeded

FIRST, SECOND = account("first", key="key-one"), account("second", key="key-two")
LIMITS = "chart_api_limit_exceeded"


def _answer(cloud, name, **fields):
    cloud.chart_img.faults.add(Fault(answer=name, **fields))


def _made_by(image):
    return image.meta["accountId"]


class TestMidnight:
    """The server's day counts, and not our clock."""

    @pytest.mark.parametrize("minutes", [-5, 0, 5])
    def test_a_used_up_account_is_not_called_until_the_server_s_midnight(
        self, make, cloud, documents, server_time, minutes
    ):
        """A used-up account is called once and then not again until the server's midnight."""
        clock = HandClock()
        midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        server_time.set(midnight - timedelta(minutes=2))
        clock.wall = midnight + timedelta(minutes=minutes - 2)
        _answer(cloud, "limit_exceeded", match="key-one", times=1)
        provider = make(FIRST, SECOND, clock=clock)
        assert [_made_by(provider.chart(chart_request())) for _ in range(5)] == ["second"] * 5
        assert (cloud.chart_img.calls_per_key.as_dict(), used(documents, "first")) == (
            {"key-one": 1, "key-two": 5},
            1000,
        )
        clock.advance(121)
        server_time.set(midnight + timedelta(seconds=1))
        assert _made_by(provider.chart(chart_request())) == "first"

    @pytest.mark.usefixtures("_no_pauses")
    def test_a_call_counted_before_midnight_is_counted_again_after_it(
        self, make, cloud, documents, server_time
    ):
        """A call counted before midnight is counted again after it, so that neither day overspends."""
        clock = HandClock()
        midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        server_time.set(midnight - timedelta(seconds=2))

        def pass_midnight(_request):
            clock.advance(3)
            server_time.set(midnight + timedelta(seconds=1))

        cloud.chart_img.faults.add(Fault(answer="too_many_requests", times=1, before=pass_midnight))
        provider = make(account("first", key="key-one", daily_limit=1), clock=clock)
        provider.chart(chart_request())
        assert usage(documents, "first")["windowStart"] == midnight.strftime("%Y-%m-%dT00:00:00Z")
        with pytest.raises(ChartApiLimitExceeded):
            provider.chart(chart_request())
        assert cloud.chart_img.charts_per_key.as_dict() == {"key-one": 1}

    @pytest.mark.usefixtures("_no_pauses")
    def test_a_call_counted_before_it_counts_until_then(self, make, cloud, documents, server_time):
        """Before the server's midnight a kept count is used, although our clock is on the next day."""
        clock = HandClock()
        midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        server_time.set(midnight - timedelta(seconds=30))
        clock.wall = midnight + timedelta(minutes=5)
        _answer(cloud, "too_many_requests", times=3)
        make(FIRST, clock=clock).chart(chart_request())
        assert used(documents, "first") == 1


class TestUsedUpByAnAnswer:
    """An account that Chart-IMG itself reports as used up."""

    @pytest.mark.parametrize("answer", ["limit_exceeded", "limit_exceeded_200"])
    def test_other_processes_and_the_next_start_make_no_call(self, make, cloud, documents, answer):
        """The count is raised to the limit, so that no other worker and no later start calls in vain."""
        limited = account("first", key="key-one", daily_limit=44)
        documents.document(f"{USAGE}/first").set({"dailyLimit": 30, "note": "kept"})
        _answer(cloud, answer, match="key-one")
        assert _made_by(make(limited, SECOND).chart(chart_request())) == "second"
        assert usage(documents, "first") == {
            "windowStart": datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z"),
            "usageToday": 30,
            "dailyLimit": 30,
            "note": "kept",
        }
        for _ in range(3):
            assert _made_by(make(limited, SECOND).chart(chart_request())) == "second"
        assert cloud.chart_img.calls_per_key.as_dict() == {"key-one": 1, "key-two": 4}

    def test_a_raised_limit_is_noticed_within_a_minute(self, make, cloud, documents):
        """After a person has raised the limit, the account is called again."""
        clock = HandClock()
        _answer(cloud, "limit_exceeded", match="key-one", times=1)
        provider = make(FIRST, SECOND, clock=clock)
        assert _made_by(provider.chart(chart_request())) == "second"
        documents.document(f"{USAGE}/first").update({"dailyLimit": 2000})
        clock.advance(61)
        assert _made_by(provider.chart(chart_request())) == "first"
        assert used(documents, "first") == 1001

    def test_many_answers_at_once_write_the_limit_and_no_more(self, make, cloud, documents):
        """Eight answers at once, and charts of a second process, leave exactly the limit."""
        together = threading.Barrier(8)
        first, other = make(FIRST, SECOND), make(FIRST, SECOND)
        first.chart(chart_request())
        other.chart(chart_request())
        _answer(cloud, "limit_exceeded", match="key-one", before=lambda _request: together.wait(20), times=8)
        at_once([partial(first.chart, chart_request()) for _ in range(8)])
        assert used(documents, "first") == 1000
        calls = cloud.chart_img.calls_per_key["key-one"]
        assert _made_by(other.chart(chart_request())) == "second"
        assert cloud.chart_img.calls_per_key["key-one"] == calls

    def test_a_count_that_could_not_be_written_is_written_with_the_next(self, make, cloud, documents):
        """After a write that Firestore refuses, the next count writes it, without a call."""
        clock = HandClock()
        cloud.firestore.faults.add(
            Fault(method="Commit", match=USAGE, error="PERMISSION_DENIED", skip=1, times=1)
        )
        _answer(cloud, "limit_exceeded", match="key-one", times=1)
        provider = make(FIRST, SECOND, clock=clock)
        assert _made_by(provider.chart(chart_request())) == "second"
        assert used(documents, "first") == 1
        clock.advance(61)
        assert _made_by(provider.chart(chart_request())) == "second"
        assert used(documents, "first") == 1000
        assert cloud.chart_img.calls_per_key["key-one"] == 1


class TestUsedUpByTheDocument:
    """A usage document that says "used up" can be corrected."""

    @pytest.mark.parametrize("correction", [{"dailyLimit": 100}, {"usageToday": 0}])
    def test_it_is_read_again_after_a_minute(self, make, cloud, documents, correction, log_lines):
        """A used-up document is read again after a minute, not for each chart, and logged once."""
        clock = HandClock()
        provider = make(account("first", key="key-one", daily_limit=2), clock=clock)

        def count_charts():
            results = [at_once([partial(provider.chart, chart_request())])[0] for _ in range(3)]
            return sum(not isinstance(result, ChartApiLimitExceeded) for result in results)

        assert count_charts() == 2
        reads = cloud.firestore.calls["BatchGetDocuments"]
        documents.document(f"{USAGE}/first").update(correction)
        assert count_charts() == 0
        assert cloud.firestore.calls["BatchGetDocuments"] == reads
        clock.advance(61)
        assert count_charts() >= 2
        assert [line["accountId"] for line in log_lines() if line["event"] == LIMITS] == ["first"]

    def test_a_window_in_the_future_is_logged_once(self, make, documents, log_lines):
        """A window in the future is logged once with its document, so that it can be corrected."""
        documents.document(f"{USAGE}/first").set({"windowStart": "2099-01-01T00:00:00Z", "usageToday": 0})
        provider = make(FIRST)
        for _ in range(3):
            provider.chart(chart_request())
        (line,) = [line for line in log_lines() if line["event"] == "quota_window_ahead"]
        assert line["severity"] == "ERROR"
        assert line["document"] == "chart_img_accounts_usage/first"
        assert "2099-01-01" in line["message"]

    def test_tomorrow_s_window_is_not_logged(self, make, documents, log_lines):
        """Tomorrow's window is not logged, because another worker's clock may be a little ahead."""
        window = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
        documents.document(f"{USAGE}/first").set({"windowStart": window, "usageToday": 0})
        make(FIRST).chart(chart_request())
        assert [line["event"] for line in log_lines()] == ["chart_api_call_finished"]
