"""Candle files in other forms than the documented one: what is accepted, and how that is counted."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from datetime import UTC, datetime

import pytest

from tests.support.charts.local_chart_samples import bar, bars_from_closes, bars_of, plan_of, raw_candles
from worker_chart_export.charts.local.chart_values import chart_values
from worker_chart_export.charts.local.input import candles as candles_module
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.render import render
from worker_chart_export.errors import OhlcvUnavailable

GOOD = (10.0, 12.0, 9.0, 11.0)
NULL = dict.fromkeys(("open", "high", "low", "close", "volume"))
SHORT = {"date": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}


def _read(document, *, symbol="IBM", timeframe="1d"):
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_candles(raw, symbol=symbol, timeframe=timeframe)


def _refusal(document, **more):
    with pytest.raises(OhlcvUnavailable) as caught:
        _read(document, **more)
    return caught.value.message


def _dates(candles):
    return [date.isoformat() for date in candles.dates]


def _renamed(row, names):
    return {names.get(key, key): value for key, value in row.items()}


def _epoch(row, factor=1):
    return datetime.fromisoformat(row["date"]).timestamp() * factor


FORMS = {
    "nullBars": (lambda rows: [*rows[:1], {**rows[0], **NULL}, *rows[1:], None], 2),
    "repeatedLastBar": (lambda rows: [*rows, rows[-1]], 1),
    "newestFirst": (lambda rows: rows[::-1], 3),
    "epochSeconds": (lambda rows: [{**row, "date": _epoch(row)} for row in rows], 3),
    "epochMilliseconds": (lambda rows: [{**row, "date": int(_epoch(row, 1000))} for row in rows], 3),
    "numericStrings": (lambda rows: [{**row, "close": f"{row['close']}"} for row in rows[:2]] + rows[2:], 2),
    "otherKeys": (lambda rows: [_renamed(row, SHORT) for row in rows], 3),
    "byteOrderMark": (lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode(), 1),
    "gzip": (lambda rows: gzip.compress(json.dumps(rows).encode()), 1),
    "exchangePrefix": (lambda rows: {"metadata": {"symbol": "NYSE:IBM"}, "data": rows}, 1),
}


@pytest.mark.parametrize("note", FORMS)
def test_an_accepted_form_gives_the_same_candles_and_is_counted(note):
    """Each form gives the candles of the documented form, with one note that counts it."""
    rows = [bar(day, (10.5 + day, 12.25 + day, 9.0 + day, 11.75 + day), volume=7.0) for day in range(3)]
    change, count = FORMS[note]
    expected, found = _read(rows), _read(change(rows))
    assert found.notes == {note: count}
    assert expected.notes == {}
    assert found.dates == expected.dates
    for field in ("open", "high", "low", "close", "volume"):
        assert getattr(found, field).tolist() == getattr(expected, field).tolist()


@pytest.mark.parametrize("name", ["IBM_1d", "IBM_1M"])
def test_documented_files_have_no_notes(name):
    """The sample files are of the documented form."""
    symbol, timeframe = name.split("_")
    assert _read(raw_candles(name), symbol=symbol, timeframe=timeframe).notes == {}


def test_the_notes_stand_in_the_meta_of_a_chart():
    """A chart says what was accepted; without such forms there is no entry."""
    rows = [{**row, "close": f"{row['close']}"} for row in bars_of()]
    facts = render(_read(rows[::-1]), {}, symbol="IBM", timeframe="1d").facts
    assert facts["candleNotes"] == {"newestFirst": 400, "numericStrings": 400}
    assert "candleNotes" not in render(_read(bars_of()), {}, symbol="IBM", timeframe="1d").facts


@pytest.mark.parametrize("key", ["timestamp", "time", "t"])
def test_the_date_may_have_another_key(key):
    """The date may be called otherwise; the documented key wins over the others."""
    row = bar(0, GOOD)
    other = {key: row["date"], **{name: row[name] for name in SHORT if name != "date"}}
    assert _read([other]).dates == _read([row]).dates
    assert _read([{**row, key: "nonsense"}]).notes == {}
    assert f"Bar 0 of the candle file has `{key}` 'nonsense'" in _refusal([{**other, key: "nonsense"}])


def test_a_wrong_field_with_another_key_is_refused_by_that_key():
    """The message names the key that the file has."""
    rows = [_renamed(bar(day, GOOD), SHORT) for day in range(3)]
    rows[1]["h"] = "high"
    message = _refusal(rows)
    assert message.startswith("Bar 1 of the candle file (2024-01-02T00:00:00Z) has `h` 'high', expected")


class TestNullBars:
    """Bars without any price are left out; bars with some are wrong."""

    @pytest.mark.parametrize(
        "changes", [{}, {"volume": 0}, {"volume": float("nan")}, {"close": float("nan")}]
    )
    def test_a_bar_without_prices_is_left_out(self, changes):
        """A day without trade that a source reports as null is no bar."""
        found = _read([bar(0, GOOD), {**bar(1, GOOD), **NULL, **changes}, bar(2, GOOD)])
        assert (_dates(found), found.notes) == (
            ["2024-01-01T00:00:00+00:00", "2024-01-03T00:00:00+00:00"],
            {"nullBars": 1},
        )

    @pytest.mark.parametrize("changes", [{"open": 10.0}, {"volume": 5.0}])
    def test_a_bar_with_something_is_refused(self, changes):
        """A bar with a price or a volume, and null elsewhere, is refused by the index in the file."""
        rows = [{**bar(0, GOOD), **NULL}, {**bar(1, GOOD), **NULL, **changes}]
        assert "Bar 1 of the candle file (2024-01-02T00:00:00Z) has `" in _refusal(rows)

    def test_a_bar_without_the_keys_is_refused(self):
        """A missing key is no null."""
        assert "has `open` missing" in _refusal([{"date": "2024-01-01T00:00:00Z", "volume": None}])

    def test_a_file_of_such_bars_holds_no_candles(self):
        """A file without any price holds no candles."""
        assert "holds no candles" in _refusal([{**bar(0, GOOD), **NULL}, None])


class TestOrder:
    """The order of the file, and the newest bar that is there twice."""

    @pytest.mark.parametrize("reverse", [False, True])
    def test_of_a_repeated_bar_the_newer_report_counts(self, reverse):
        """The report farther from the older bars counts: it was written last."""
        rows = [bar(0, GOOD), bar(1, GOOD), bar(2, GOOD), bar(2, (10.0, 12.0, 9.0, 11.5))]
        found = _read(rows[::-1] if reverse else rows)
        assert found.close.tolist() == [11.0, 11.0, 11.5]
        expected = {"repeatedLastBar": 1} | ({"newestFirst": 4} if reverse else {})
        assert found.notes == expected

    def test_two_reports_of_the_only_bar(self):
        """A file of one bar, twice, has one bar."""
        assert _read([bar(0, GOOD), bar(0, (10.0, 12.0, 9.0, 10.5))]).close.tolist() == [10.5]

    def test_a_file_of_newest_first_is_drawn_like_another(self):
        """The picture of a file with the newest bar first is that of the same bars."""
        pictures = {
            render(_read(rows), {}, symbol="IBM", timeframe="1d").png for rows in (bars_of(), bars_of()[::-1])
        }
        assert len(pictures) == 1


class TestEpoch:
    """Epoch times: seconds or milliseconds, decided by the whole file."""

    @pytest.mark.parametrize("factor", [1, 1000])
    @pytest.mark.parametrize("text", [False, True])
    def test_old_bars_have_the_unit_of_the_new_ones(self, factor, text):
        """A file from 1962 on has small and negative numbers, which alone could have either unit."""
        years = [1962, 1970, 1971, 2024]
        epochs = [int(datetime(year, 1, 2, tzinfo=UTC).timestamp()) * factor for year in years]
        # Texts of few digits are no epoch times.
        rows = [
            {**bar(0, GOOD), "date": f"{epoch}" if text and abs(epoch) >= 1e9 else epoch} for epoch in epochs
        ]
        found = _read(rows)
        assert _dates(found) == [f"{year}-01-02T00:00:00+00:00" for year in years]
        assert found.notes["epochSeconds" if factor == 1 else "epochMilliseconds"] == 4

    def test_fractions_of_seconds_are_kept(self):
        """Intraday bars may begin within a second."""
        rows = [{**bar(0, GOOD), "date": 1708387200.25}]
        assert _dates(_read(rows, timeframe="1m")) == ["2024-02-20T00:00:00.250000+00:00"]

    @pytest.mark.parametrize("second", ["2024-02-21T00:00:00Z", 20240221])
    def test_dates_and_epoch_times_do_not_mix(self, second):
        """A file has one form of dates; a number of another kind is refused."""
        first = "2024-02-20T00:00:00Z" if isinstance(second, int) else 1708387200
        message = _refusal([{**bar(0, GOOD), "date": first}, {**bar(1, GOOD), "date": second}])
        assert "Bar 1 of the candle file has `date`" in message


class TestDays:
    """The offset of a bar's own date decides its day, on bars of a day and longer."""

    TOKYO = ("2024-02-20T00:00:00+09:00", "2024-02-21T00:00:00+09:00", "2024-03-01T00:00:00+09:00")

    def _rows(self, dates):
        return [{**bar(0, GOOD), "date": date} for date in dates]

    @pytest.mark.parametrize("timeframe", ["1d", "1w", "1M"])
    def test_midnight_in_tokyo_is_that_day(self, timeframe):
        """Midnight in Tokyo is the day that Tokyo has, not the day before."""
        found = _read(self._rows(self.TOKYO), timeframe=timeframe)
        assert _dates(found) == [f"{date[:19]}+00:00" for date in self.TOKYO]
        numbers = chart_values(plan_of(self._rows(self.TOKYO), {}, timeframe=timeframe), timeframe=timeframe)
        assert numbers["bars"] == [f"{date[:19]}Z" for date in self.TOKYO]

    def test_months_are_made_of_the_days_of_tokyo(self):
        """The first of March in Tokyo belongs to March."""
        plan = plan_of(self._rows(self.TOKYO), {"interval": "1M"}, timeframe="1d")
        assert [date.month for date in plan.candles.dates] == [2, 3]

    def test_minutes_are_converted(self):
        """Shorter bars have a moment, which a chart shows in its own time zone."""
        found = _read(self._rows(self.TOKYO[:1]), timeframe="15m")
        assert _dates(found) == ["2024-02-19T15:00:00+00:00"]

    def test_a_range_goes_by_the_days_too(self):
        """A range from the 20th includes the bar of the 20th, whatever the offsets are."""
        when = {"from": "2024-02-20T00:00:00Z", "to": "2024-02-21T00:00:00+09:00"}
        plan = plan_of(self._rows(self.TOKYO), {"range": when})
        assert [date.day for date in plan.visible.dates] == [20, 21]

    def test_a_drawing_goes_by_its_day_too(self):
        """A line at a day of Tokyo is at the bar of that day."""
        line = {"name": "Vertical Line", "input": {"datetime": self.TOKYO[1]}}
        pictures = [
            render(_read(self._rows(dates)), {"drawings": [line]}, symbol="IBM", timeframe="1d").png
            for dates in (self.TOKYO, [f"{date[:19]}Z" for date in self.TOKYO])
        ]
        assert pictures[0] == pictures[1]

    def test_summer_time_keeps_the_order(self):
        """Midnights in New York have two offsets in a year."""
        dates = ("2024-03-09T00:00:00-05:00", "2024-03-10T00:00:00-05:00", "2024-03-11T00:00:00-04:00")
        assert [date.day for date in _read(self._rows(dates)).dates] == [9, 10, 11]

    def test_days_out_of_order_are_refused(self):
        """Bars whose moments ascend and whose days do not are refused; bars of minutes have no days."""
        dates = ("2024-02-20T00:00:00+09:00", "2024-02-19T20:00:00-05:00")
        assert "Bar 1 of" in _refusal(self._rows(dates))
        assert len(_read(self._rows(dates), timeframe="1m")) == 2


class TestRounding:
    """Open and close may lie outside high and low by rounding."""

    @pytest.mark.parametrize(
        "prices",
        [
            (10.0, 12.25, 9.0, 12.254),
            (10.0, 12.25, 9.75, 9.746),
            (9.746, 12.25, 9.75, 10.0),
            (0.0119, 0.0123, 0.0118, 0.01234),
            (38_100, 38_120, 38_050, 38_120.4),
            (-37.0, 10.5, -37.55, -37.554),
            (12.000000000000002, 12.0, 9.0, 11.0),
        ],
    )
    def test_the_range_is_widened(self, prices):
        """The bar's range includes its open and close, and is counted."""
        found = _read([bar(0, prices)])
        assert found.high[0] == max(prices)
        assert found.low[0] == min(prices)
        assert found.notes["pricesBeyondRange"] == 1

    @pytest.mark.parametrize(
        "prices",
        [
            (10.0, 12.25, 9.0, 12.26),
            (10.0, 12.25, 9.75, 9.7),
            (100.0, 101.0, 99.0, 101.5),
            (0.01, 0.012, 0.01, 0.0124),
            (-37.0, 10.5, -37.55, -37.6),
        ],
    )
    def test_more_than_rounding_is_refused(self, prices):
        """A price outside by more than half of the last decimal is wrong."""
        assert "`close`" in _refusal([bar(0, prices)])


class TestGzip:
    """A candle file as gzip."""

    def test_no_more_than_the_limit_is_inflated(self):
        """Of 100 MB in 100 kB no more than the limit is inflated."""
        raw = gzip.compress(b" " * 100_000_000)
        tracemalloc.start()
        try:
            assert "inflates to more than 16,777,216 bytes" in _refusal(raw)
            assert tracemalloc.get_traced_memory()[1] < 40_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("raw", [gzip.compress(b"[1]" * 99)[:-9], b"\x1f\x8b"], ids=["cut off", "short"])
    def test_a_broken_one_is_refused(self, raw):
        """What only starts like gzip is refused with the reason."""
        assert "not the gzip that it starts as" in _refusal(raw)

    def test_the_size_counts_as_it_is_inflated(self, monkeypatch):
        """The limit is that of the JSON, not that of the gzip."""
        raw = gzip.compress(json.dumps(bars_from_closes([100.0] * 100)).encode())
        monkeypatch.setattr(candles_module, "MAX_FILE_BYTES", 10_000)
        assert len(raw) < 10_000
        assert "inflates to more than 10,000 bytes" in _refusal(raw)


@pytest.mark.parametrize(
    ("symbol", "is_same"),
    [("NYSE:IBM", True), ("nyse:ibm", True), ("NYSE:IBM2", False), ("IBM:NYSE", False), ("NYSE IBM", False)],
)
def test_an_exchange_before_the_symbol_is_accepted(symbol, is_same):
    """A file may name the exchange before the symbol, as Chart-IMG does."""
    document = {"metadata": {"symbol": symbol}, "data": [bar(0, GOOD)]}
    if is_same:
        assert _read(document).notes == {"exchangePrefix": 1}
    else:
        assert "expected 'IBM'" in _refusal(document)


def test_several_forms_are_counted_together():
    """A file may have several other forms; each bar counts once for each."""
    rows = [_renamed({**row, "date": _epoch(row), "volume": "1"}, SHORT) for row in bars_of()[:10]]
    found = _read(b"\xef\xbb\xbf" + json.dumps({"data": [None, *rows[::-1]]}).encode())
    assert found.notes == {
        "byteOrderMark": 1,
        "nullBars": 1,
        "newestFirst": 10,
        "epochSeconds": 10,
        "numericStrings": 10,
        "otherKeys": 10,
    }
