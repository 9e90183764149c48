"""Which bars a chart shows: room, warm-up, ranges, shifts, resampling and sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.charts.local_chart_samples import bar, bars_of, candles_of, plan_of, request_of
from worker_chart_export.charts.local.input.candles import parse_timeframe
from worker_chart_export.charts.local.input.resample import regular_hours, resampled
from worker_chart_export.errors import OhlcvUnavailable

BARS = bars_of()


def _shown(payload, bars=BARS, timeframe="1d"):
    return plan_of(bars, payload, timeframe=timeframe).visible


def test_at_800_pixels_about_115_bars_are_shown():
    """Bars are about 6 pixels apart, as in the API's pictures."""
    grid = plan_of(BARS, request_of("ctpl_price_ma1226_vol_v1")).grid
    assert 110 <= grid.count <= 125
    assert 6 <= grid.pitch < 6.1


@pytest.mark.parametrize("width", [401, 800, 1111, 1920, 2048])
def test_no_pixel_stays_blank(width):
    """The first bar's room begins at the left edge, whatever the width."""
    grid = plan_of(BARS, {"width": width}).grid
    assert grid.left == pytest.approx(0)
    assert len(set(grid.centers)) == grid.count


def test_a_wide_chart_leaves_the_warm_up_that_the_studies_need():
    """At 1920 pixels all bars with room are shown, except those that the studies need before."""
    plain = plan_of(BARS, {"width": 1920}).grid
    slow = plan_of(BARS, {"width": 1920, "studies": [{"name": "Klinger Oscillator"}]}).grid
    assert plain.count == 304
    assert slow.first > 180


def test_a_short_history_keeps_the_bars_that_a_small_chart_shows():
    """With little history about 115 bars are shown, though they are not all settled."""
    grid = plan_of(BARS[:130], {"width": 1920, "studies": [{"name": "MACD"}]}).grid
    assert grid.count == 115


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ALL", "2011-07-28"),
        ("1D", "2013-03-01"),
        ("DTD", "2013-03-01"),
        ("5D", "2013-02-25"),
        ("WTD", "2013-02-25"),
        ("MTD", "2013-03-01"),
        ("1M", "2013-02-01"),
        ("3M", "2012-12-03"),
        ("6M", "2012-09-04"),
        ("YTD", "2013-01-02"),
        ("1Y", "2012-03-01"),
        ("5Y", "2011-07-28"),
    ],
)
def test_a_named_range_ends_at_the_newest_bar(name, first):
    """A range by name goes back from the newest bar by the calendar."""
    shown = _shown({"range": name})
    assert (f"{shown.dates[0]:%F}", f"{shown.dates[-1]:%F}") == (first, "2013-03-01")


def test_a_range_by_dates_holds_the_bars_between_them():
    """The chart shows the bars from the first date to the last, both included."""
    shown = _shown({"range": {"from": "2012-03-05T00:00:00Z", "to": "2012-03-09"}})
    assert [f"{date:%d}" for date in shown.dates] == ["05", "06", "07", "08", "09"]


def test_a_shift_to_the_left_shows_older_bars():
    """The newest bars are left out, and the last price is that of the last bar shown."""
    plan = plan_of(BARS, {"shiftLeft": 10})
    assert plan.visible.dates[-1] == candles_of(BARS).dates[-11]
    assert any(f"{plan.visible.close[-1]:.2f}" == label.text for label in plan.panes[0].axis.labels)


def test_a_shift_to_the_right_leaves_room_after_the_newest_bar():
    """The newest bar moves to the left by as many bars."""
    plain, shifted = plan_of(BARS, {}).grid, plan_of(BARS, {"shiftRight": 20}).grid
    assert plain.count - shifted.count == 20
    assert plain.centers[-1] - shifted.centers[-1] == pytest.approx(20 * plain.pitch, abs=1)


def _hours(count, *, start=datetime(2024, 1, 1, tzinfo=UTC)):
    return [
        bar(n, (100 + n, 102 + n, 99 + n, 101 + n), volume=1.0, step=timedelta(hours=1), start=start)
        for n in range(count)
    ]


def test_hours_become_longer_bars():
    """Four bars of an hour become one: its first open, its extremes, its last close, its whole volume."""
    shown = _shown({"interval": "4h"}, _hours(12), "1h")
    assert [f"{date:%H}" for date in shown.dates] == ["00", "04", "08"]
    assert (shown.open[1], shown.high[1], shown.low[1], shown.close[1]) == (104, 109, 103, 108)
    assert shown.volume.tolist() == [4, 4, 4]


def test_bars_of_hours_begin_with_the_session():
    """Bars of a market that opens at 9:30 begin at 9:30, 11:30 ..."""
    days = [datetime(2024, 1, day, 9, 30, tzinfo=UTC) for day in (2, 3)]
    rows = [bar(n, (10, 12, 9, 11), step=timedelta(minutes=30), start=day) for day in days for n in range(13)]
    shown = _shown({"interval": "2h", "session": "extended"}, rows, "30m")
    assert [f"{date:%H:%M}" for date in shown.dates[:4]] == ["09:30", "11:30", "13:30", "15:30"]


@pytest.mark.parametrize(
    ("interval", "dates"),
    [
        ("1W", ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29"]),
        ("1M", ["2024-01-01", "2024-02-01", "2024-03-01"]),
        ("3M", ["2024-01-01", "2024-04-01"]),
        ("1Y", ["2024-01-01"]),
        ("2D", ["2024-01-01", "2024-01-03", "2024-01-05"]),
    ],
)
def test_days_become_weeks_months_and_years(interval, dates):
    """Weeks begin on Monday; months, quarters and years are those of the calendar."""
    rows = [bar(n, (10, 12, 9, 11)) for n in range(95)]
    found = resampled(candles_of(rows), parse_timeframe(interval), UTC)
    assert [f"{date:%F}" for date in found.dates][: len(dates)] == dates


@pytest.mark.parametrize(("own", "target"), [("1d", "1h"), ("1w", "1d"), ("30m", "45m"), ("1M", "1W")])
def test_longer_bars_can_t_be_taken_apart(own, target):
    """Bars that are longer than the chart's, or no part of them, are refused by name."""
    with pytest.raises(OhlcvUnavailable, match="can't be made of them"):
        plan_of(BARS, {"interval": parse_timeframe(target).label}, timeframe=own)


def test_hours_before_and_after_regular_trade_are_left_out():
    """Bars of a stock outside 9:30 to 16:00 in New York are left out in a regular session only."""
    start = datetime(2024, 1, 2, 9, 0, tzinfo=UTC)  # 4:00 in New York
    rows = [bar(n, (10, 12, 9, 11), step=timedelta(minutes=30), start=start) for n in range(32)]
    candles = candles_of(rows, "30m")
    kept = regular_hours(candles)
    assert (f"{kept.dates[0]:%H:%M}", f"{kept.dates[-1]:%H:%M}") == ("14:30", "20:30")
    assert len(_shown({"session": "extended"}, rows, "30m")) == 32
    assert len(_shown({}, rows, "30m")) == 13


def test_a_market_without_a_session_keeps_all_bars():
    """Bars around the clock, of a coin, are all regular."""
    assert len(_shown({}, _hours(48), "1h")) == 48
