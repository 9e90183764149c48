"""The number of calls that a daily quota allows, by the usage document and the server's time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import NOON
from worker_chart_export.charts.chart_img.usage_document import seconds_of_day_left, take, window_of

TODAY, YESTERDAY, TOMORROW = (f"2025-12-{day}T00:00:00Z" for day in (15, 14, 16))
MIDNIGHT = datetime(2025, 12, 15, tzinfo=UTC)


def _take(document, *, wanted=1, daily_limit=44, now=NOON):
    return take(document, wanted=wanted, daily_limit=daily_limit, now=now)


def _document(window=TODAY, used=10, **fields):
    return {"windowStart": window, "usageToday": used, **fields}


class TestWindow:
    """The window of a count."""

    def test_a_missing_document_starts_at_zero(self):
        """A missing document starts at zero, in today's window."""
        taken = _take(None, wanted=3)
        assert (taken.granted, taken.window) == (3, MIDNIGHT)
        assert taken.fields == {"windowStart": TODAY, "usageToday": 3}

    def test_today_s_count_goes_on(self):
        """A count in today's window is increased."""
        assert _take(_document(), wanted=2).fields == {"windowStart": TODAY, "usageToday": 12}

    def test_an_earlier_window_starts_at_zero(self):
        """The count of an earlier window starts at zero."""
        taken = _take(_document(YESTERDAY, used=44), wanted=2)
        assert taken.fields == {"windowStart": TODAY, "usageToday": 2}

    def test_a_later_window_is_adopted(self):
        """A later window is adopted with its count, because another worker's clock is ahead."""
        taken = _take(_document(TOMORROW), wanted=2)
        assert taken.window == MIDNIGHT + timedelta(days=1)
        assert taken.fields == {"windowStart": TOMORROW, "usageToday": 12}

    def test_a_later_window_that_is_used_up_is_not_moved_back(self):
        """A used-up later window stays, because today has no calls left either."""
        taken = _take(_document(TOMORROW, used=44))
        assert (taken.granted, taken.fields, taken.window) == (0, None, MIDNIGHT + timedelta(days=1))

    @pytest.mark.parametrize(
        "window",
        [
            datetime(2025, 12, 15, tzinfo=UTC),
            datetime(2025, 12, 15),  # noqa: DTZ001 - as a foreign writer may store it
            "2025-12-15",
            "2025-12-15T00:00:00",
            "2025-12-15T00:00:00+00:00",
            "2025-12-15T00:00:00.000000000Z",
            "2025-12-15T01:00:00+01:00",
            "2025-12-15T13:37:00Z",
        ],
    )
    def test_a_window_may_be_text_or_a_timestamp(self, window):
        """A window is read from text or a timestamp; only its day counts."""
        assert _take(_document(window)).fields == {"windowStart": TODAY, "usageToday": 11}

    @pytest.mark.parametrize(
        ("now", "window"),
        [
            ("2025-12-15T23:59:59.999999+00:00", TODAY),
            ("2025-12-16T00:00:00+00:00", TOMORROW),
            ("2025-12-16T00:30:00+01:00", TODAY),
        ],
    )
    def test_days_change_at_midnight_utc(self, now, window):
        """Days change at midnight UTC."""
        taken = _take(None, now=datetime.fromisoformat(now))
        assert taken.fields is not None
        assert taken.fields["windowStart"] == window


class TestLimit:
    """The number of calls left."""

    @pytest.mark.parametrize(("used", "granted"), [(0, 5), (39, 5), (40, 4), (43, 1), (44, 0), (99, 0)])
    def test_no_more_is_granted_than_is_left(self, used, granted):
        """No more calls are granted than are left."""
        assert _take(_document(used=used), wanted=5).granted == granted

    def test_nothing_is_written_when_nothing_is_left(self):
        """A refusal is not written to the document."""
        assert _take(_document(used=44)).fields is None

    @pytest.mark.parametrize(("limit", "granted"), [(12, 2), (100, 5), (10, 0), (0, 0), (-3, 0), (12.9, 2)])
    def test_the_document_s_limit_wins(self, limit, granted):
        """A limit in the document, smaller or larger, replaces the setting."""
        assert _take(_document(dailyLimit=limit), wanted=5).granted == granted

    @pytest.mark.parametrize("limit", [None, "12", True, float("nan"), float("inf"), []])
    def test_an_invalid_limit_is_ignored(self, limit):
        """An invalid limit in the document is ignored."""
        assert _take(_document(dailyLimit=limit, used=42), wanted=5).granted == 2

    def test_an_earlier_window_keeps_the_document_s_limit(self):
        """The document's limit stays when an earlier window is replaced."""
        assert _take(_document(YESTERDAY, dailyLimit=1), wanted=5).granted == 1


class TestUsedUp:
    """A window that Chart-IMG says is used up."""

    def test_its_count_is_raised_to_the_limit(self):
        """The count is raised to the limit, and nothing is granted."""
        taken = take(_document(used=10), wanted=2, daily_limit=44, now=NOON, used_up=MIDNIGHT)
        assert (taken.granted, taken.used) == (0, 44)
        assert taken.fields == {"windowStart": TODAY, "usageToday": 44}

    @pytest.mark.parametrize("used", [44, 50])
    def test_a_count_at_the_limit_stays(self, used):
        """A count that is not below the limit is not written."""
        taken = take(_document(used=used), wanted=0, daily_limit=44, now=NOON, used_up=MIDNIGHT)
        assert (taken.granted, taken.fields) == (0, None)

    @pytest.mark.parametrize("days", [-1, 1])
    def test_another_window_is_not_touched(self, days):
        """A window that has ended, or that is not this one, changes nothing."""
        window = MIDNIGHT + timedelta(days=days)
        taken = take(_document(used=10), wanted=1, daily_limit=44, now=NOON, used_up=window)
        assert taken.fields == {"windowStart": TODAY, "usageToday": 11}


class TestBroken:
    """Documents with invalid values."""

    @pytest.mark.parametrize("count", [None, "10", True, float("nan"), float("inf"), [], {}, 1e300])
    def test_a_count_that_can_t_be_read_is_used_up(self, count):
        """An invalid count means used up, because overspending is worse."""
        assert _take(_document(used=count)).granted == 0

    def test_a_missing_count_is_zero(self):
        """A missing count is zero."""
        assert _take({"windowStart": TODAY}).fields == {"windowStart": TODAY, "usageToday": 1}

    @pytest.mark.parametrize(
        ("count", "granted", "used"), [(43.5, 0, 44), (-7, 5, 5), (0, 5, 5), (41.0, 3, 44)]
    )
    def test_an_odd_count_is_rounded_up(self, count, granted, used):
        """Fractions of a count are rounded up, and negative counts are zero."""
        taken = _take(_document(used=count), wanted=5)
        assert (taken.granted, taken.used) == (granted, used)

    def test_a_document_that_need_not_change(self):
        """Its count and its limit are returned."""
        taken = _take(_document(used=44, dailyLimit=40.5), wanted=0)
        assert (taken.used, taken.limit, taken.fields) == (44, 40, None)
        assert _take(None, wanted=0).fields is None

    def test_the_time_zone_of_the_machine_does_not_matter(self, monkeypatch):
        """Days and times without a zone are those of UTC."""
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert window_of(datetime.fromisoformat("2025-12-15T23:00:00+00:00")) == MIDNIGHT
            assert _take(_document("2025-12-15T00:00:00")).fields == {"windowStart": TODAY, "usageToday": 11}
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_the_rest_of_a_day(self):
        """It ends at midnight UTC, also for a time in another zone."""
        assert seconds_of_day_left(datetime.fromisoformat("2025-12-15T01:00:00.5+03:00")) == 7199.5

    @pytest.mark.parametrize(
        "window", [None, "", "today", 7, "9999-12-31T23:00:00-05:00", "0001-01-01T00:00:00+05:00"]
    )
    def test_a_window_that_can_t_be_read_is_today(self, window):
        """An invalid window is read as today's, so that no call is spent twice."""
        assert _take(_document(window), wanted=5).fields == {"windowStart": TODAY, "usageToday": 15}

    def test_a_used_up_account_without_a_window_gets_one(self):
        """A used-up account without a window gets one, so that it does not stay used up."""
        taken = _take({"usageToday": 44})
        assert (taken.granted, taken.fields) == (0, {"windowStart": TODAY})

    @given(
        document=st.dictionaries(
            st.sampled_from(["windowStart", "usageToday", "dailyLimit"]),
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats()
            | st.text(max_size=5)
            | st.sampled_from([YESTERDAY, TODAY, TOMORROW])
            | st.datetimes(timezones=st.just(UTC)),
        ),
        wanted=st.integers(1, 50),
    )
    def test_for_any_document_nothing_is_overspent(self, document, wanted):
        """For any document no more is granted than allowed, and the window never moves back."""
        taken = _take(document, wanted=wanted)
        assert 0 <= taken.granted <= wanted
        assert taken.window >= window_of(NOON)
        if taken.granted and taken.fields is not None:
            limit = document.get("dailyLimit")
            allowed = limit if isinstance(limit, int) and not isinstance(limit, bool) else 44
            if not isinstance(limit, float):
                assert taken.fields["usageToday"] <= allowed
