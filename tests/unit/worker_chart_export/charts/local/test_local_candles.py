"""The candle file: what is read, and the clear error for every file that can't be read."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.charts.local_chart_samples import (
    CANDLE_FILES,
    bar,
    bars_from_closes,
    candles_of,
    raw_candles,
)
from worker_chart_export.charts.local.input import candles as candles_module
from worker_chart_export.charts.local.input import json_reader
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.errors import Interrupted, OhlcvUnavailable

GOOD = (10.0, 12.0, 9.0, 11.0)


def _refusal(raw, symbol="IBM", timeframe="1d"):
    with pytest.raises(OhlcvUnavailable) as caught:
        parse_candles(
            raw if isinstance(raw, bytes) else json.dumps(raw).encode(), symbol=symbol, timeframe=timeframe
        )
    assert caught.value.code == "OHLCV_UNAVAILABLE"
    return caught.value.message


@pytest.mark.parametrize("name", CANDLE_FILES)
def test_sample_files_are_read_whole(name):
    """All bars of the sample files are read in order with unchanged numbers."""
    symbol, timeframe = name.split("_")
    rows = json.loads(raw_candles(name))["data"]
    candles = parse_candles(raw_candles(name), symbol=symbol, timeframe=timeframe)
    assert candles.close.tolist() == [row["close"] for row in rows]
    assert candles.volume.tolist() == [row["volume"] for row in rows]
    assert candles.dates[0].isoformat() == rows[0]["date"].replace("Z", "+00:00")


def test_a_bare_array_of_bars_is_read():
    """A bare array of bars, the older format, is read without metadata."""
    assert len(candles_of([bar(0, GOOD), bar(1, GOOD)])) == 2


@pytest.mark.parametrize("volume", [None, "absent"])
def test_a_missing_volume_is_zero(volume):
    """A missing volume is read as 0, the value that the exporter writes for a missing column."""
    row = bar(0, GOOD, volume=volume)
    if volume == "absent":
        del row["volume"]
    assert candles_of([row]).volume.tolist() == [0.0]


def test_rounding_noise_in_a_range_is_accepted_and_corrected():
    """An open that leaves its bar's range by rounding noise is accepted, and the range is widened."""
    candles = candles_of([bar(0, (12.000000000000002, 12.0, 9.0, 11.0))])
    assert candles.high[0] == candles.open[0] == 12.000000000000002


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"{oops", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"7", "neither a JSON object"),
        (b"{}", "no `data` array"),
        (b'{"data": {}}', "no `data` array"),
        (b"[]", "no candles"),
        (b'{"data": []}', "no candles"),
    ],
)
def test_a_file_that_holds_no_candles_is_refused(raw, said):
    """A file without candles is refused with one sentence that says why."""
    assert said in _refusal(raw)


def test_a_huge_file_is_refused_before_it_is_parsed(monkeypatch):
    """A file over the size limit is refused before it is parsed, which would need too much memory."""
    monkeypatch.setattr(candles_module, "MAX_FILE_BYTES", 1000)
    assert "1,001 bytes" in _refusal(b"x" * 1001)


@pytest.mark.parametrize("field", ["open", "high", "low", "close"])
@pytest.mark.parametrize(
    "value", [0, None, "12 USD", "", "1_0", True, [], float("nan"), float("inf"), 10**400, 1e-13, -2e12]
)
def test_a_bad_price_is_refused_by_bar_and_field(field, value):
    """A price that is zero, missing, infinite or no number is refused by bar and field."""
    rows = [bar(n, GOOD) for n in range(3)]
    rows[1][field] = value
    message = _refusal(rows)
    assert message.startswith("Bar 1 of the candle file (2024-01-02T00:00:00Z)")
    assert f"`{field}`" in message
    assert "expected a price that is not zero" in message


@pytest.mark.parametrize("value", [-1, "-5", "five", True, float("nan"), float("inf")])
def test_a_bad_volume_is_refused(value):
    """A volume that is negative, infinite or a text without a number is refused."""
    message = _refusal([bar(0, GOOD, volume=value)])
    assert "`volume`" in message
    assert "expected 0 to 1e+18" in message


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ((10, 9, 12, 11), "`high` 9 below `low` 12"),
        ((13, 12, 9, 11), "`open` 13 outside its range, expected 9 to 12"),
        ((10, 12, 9, 8), "`close` 8 outside its range, expected 9 to 12"),
    ],
)
def test_a_bar_whose_prices_contradict_each_other_is_refused(prices, said):
    """A bar with high below low, or with open or close outside them, is refused."""
    assert said in _refusal([bar(0, GOOD), bar(1, prices)])


@pytest.mark.parametrize(
    "date",
    [
        *(None, True, [], 7, 20240220, float("nan"), 1e14, 1e400, "", "yesterday", "2024-13-01T00:00:00Z"),
        *("0001-01-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "0999-12-31"),
        *("1708387200_", "999999999999999", "-99999999999"),
    ],
)
@pytest.mark.parametrize("timeframe", ["1d", "1w", "1M", "5m"])
def test_a_bad_date_is_refused(date, timeframe):
    """A bad date, the ends of the calendar too, is refused with the bar's index and the expected format."""
    row = bar(0, GOOD) | {"date": date}
    message = _refusal([row], timeframe=timeframe)
    assert "Bar 0 of the candle file has `date`" in message
    assert "expected YYYY-MM-DDTHH:MM:SSZ or epoch seconds, in the years 1000 to 9000" in message


@pytest.mark.parametrize(
    ("days", "index", "said"),
    [
        ((0, 0, 1), 1, "repeats the bar before it"),
        ((0, 1, 1, 1), 3, "repeats the bar before it"),
        ((2, 1, 1), 2, "repeats the bar before it"),
        ((2, 1, 1, 0), 2, "repeats the bar before it"),
        ((0, 2, 1), 2, "is older than the bar before it"),
        ((3, 2, 4), 2, "is newer than the bar before it"),
    ],
)
def test_bars_out_of_order_are_refused(days, index, said):
    """Bars that are out of order, or doubled other than the newest, are refused."""
    message = _refusal([bar(day, GOOD) for day in days])
    assert f"Bar {index} of" in message
    assert said in message


def test_a_row_that_is_no_bar_is_refused():
    """A row that is not a bar is refused with its index."""
    assert "Bar 1 of the candle file is not a JSON object" in _refusal([bar(0, GOOD), 7])


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"symbol": "AAPL"}, "about 'AAPL', expected 'IBM'"),
        ({"timeframe": "soon"}, "holds 'soon' bars, expected '1d'"),
    ],
)
def test_a_file_about_something_else_is_refused(metadata, said):
    """A file of another symbol or timeframe is refused with the found and the expected one."""
    assert said in _refusal({"metadata": metadata, "data": [bar(0, GOOD)]})


@pytest.mark.parametrize(
    ("found", "asked"), [("1d", "1D"), ("15", "15m"), ("60", "1h"), ("240", "4h"), ("1W", "1w")]
)
def test_one_time_frame_in_two_spellings_is_the_same(found, asked):
    """Two spellings of one timeframe are equal, because systems write them differently."""
    document = {"metadata": {"symbol": "ibm", "timeframe": found}, "data": [bar(0, GOOD)]}
    assert len(parse_candles(json.dumps(document).encode(), symbol="IBM", timeframe=asked)) == 1


@pytest.mark.parametrize(("found", "months"), [("1m", "m"), ("1M", "M"), ("1", "m"), ("1w", "W")])
def test_a_minute_is_no_month(found, months):
    """The comparison is case-sensitive: `1m` is a minute, `1M` a month."""
    document = {"metadata": {"timeframe": found}, "data": [bar(0, GOOD)]}
    assert parse_candles(json.dumps(document).encode(), symbol="IBM", timeframe="1d").timeframe.unit == months


KEYS = (
    "data",
    "metadata",
    "symbol",
    "date",
    "open",
    "high",
    "low",
    "close",
    "volume",
    *"tohlcv",
    "timestamp",
)
TEXTS = ("2024-02-20T00:00:00+09:00", "0001-01-01", "9999-12-31", "1708387200", "12.5", "1e400", "NYSE:IBM")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@settings(max_examples=200, deadline=None)
@given(document=json_values)
def test_no_document_breaks_the_reader(document):
    """Any JSON document gives either candles or the documented error."""
    try:
        candles = parse_candles(json.dumps(document).encode(), symbol="IBM", timeframe="1d")
    except OhlcvUnavailable:
        return
    assert len(candles) > 0


@pytest.mark.parametrize(
    "document",
    [
        '{"data": [], "metadata": {"note": "\\ud83d\\ude00 \u00e9 \U0001f600"}, "more": [1, {"a": null}]}',
        '{"metadata": {}, "data": [BAR, BAR2]}',
        " [ BAR , BAR2 ] \n",
        '{"data": [BAR], "data": [BAR, BAR2]}',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("block_bytes", [1, 7, 65536])
def test_a_file_is_read_as_json_reads_it(document, encoding, block_bytes, monkeypatch):
    """In each encoding, wherever the parts that are decoded at a time end, the bars are those of `json`."""
    monkeypatch.setattr(json_reader, "_BLOCK_BYTES", block_bytes)
    text = document.replace("BAR2", json.dumps(bar(1, GOOD))).replace("BAR", json.dumps(bar(0, GOOD)))
    raw, expected = text.encode(encoding), json.loads(text.encode(encoding))
    rows = expected if isinstance(expected, list) else expected["data"]
    if not rows:
        assert "no candles" in _refusal(raw)
    else:
        found = parse_candles(raw, symbol="IBM", timeframe="1d")
        assert found.close.tolist() == [row["close"] for row in rows]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"data": [}', "Expecting value (character 10)"),
        (b'{"data" []}', "Expecting ':' delimiter (character 8)"),
        (b'{"data": [] "a": 1}', "Expecting ',' delimiter (character 12)"),
        (b"{'data': []}", "Expecting property name enclosed in double quotes (character 1)"),
        (b'{"data": [], }', "Expecting property name enclosed in double quotes (character 13)"),
        (b'{"data": []} {', "Extra data (character 13)"),
        (b'[{"date": "', "Unterminated string starting at (character 10)"),
        (b'{"a": "' + b"x" * 200_000 + b'"}', "a value has more than 65,536 characters (character 6)"),
        (b'{"a": ' + b"[[[1, 2]]], " * 20_000, "Expecting property name enclosed"),
        (b'{"a": [' + b"[1], " * 40_000 + b"]}", "a value has more than 65,536 characters"),
        (b" " * 200_000 + b"x", "Expecting value (character 200,000)"),
        (b'{"a": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_what_is_wrong_with_the_json_is_named(raw, said):
    """The reason and its place in the file are part of the message."""
    assert said in _refusal(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b",".join([b"[]"] * 700_000) + b"]",
        b'{"data": [[' + b",".join([b"[]"] * 700_000) + b"]]}",
        b'{"metadata": {"a": [' + b",".join([b"{}"] * 700_000) + b"]}}",
        b'{"more": [' + b",".join([b'""'] * 700_000) + b'], "data": []}',
        b'{"metadata": {"symbol": "' + "\U0001f600".encode() * 500_000 + b'"}}',
        b"[" + b" " * 2_000_000 + b"]",
    ],
    ids=["lists", "a bar of lists", "metadata", "another value", "wide characters", "spaces"],
)
def test_what_a_file_holds_does_not_take_memory(raw):
    """2 MB of small or wide values, for which `json` needs up to 50 MB, are refused with 4 MB at most."""
    tracemalloc.start()
    try:
        _refusal(raw)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_stop_ends_the_read_of_a_long_file():
    """The check is called while the bars are read."""
    raw, calls = json.dumps(bars_from_closes([100.0] * 10_000)).encode(), []

    def check():
        calls.append(None)
        if len(calls) == 2:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        parse_candles(raw, symbol="IBM", timeframe="1d", check=check)


def test_a_date_that_no_time_zone_can_hold_is_refused():
    """A date before the year 1 in UTC is refused like each other wrong date."""
    message = _refusal([bar(0, GOOD) | {"date": "0001-01-01T00:00:00+23:00"}])
    assert "Bar 0 of the candle file has `date`" in message


def test_a_long_history_is_read():
    """A history of thousands of bars is read."""
    assert len(candles_of(bars_from_closes([100.0] * 5000))) == 5000
