"""Every study's values equal a plain-Python oracle, on real and on generated candles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.charts import reference_studies
from tests.support.charts.local_chart_samples import (
    CANDLE_FILES,
    bars_from_closes,
    bars_of,
    column,
    plan_of,
    plots_of,
    request_of,
)
from worker_chart_export.charts.local.studies.volume_profile import value_area, volume_profile

HLC = ("high", "low", "close")


def _assert_same(found, expected, size=1.0, tolerance=1e-9):
    """Check that values are equal within `tolerance` of `size`, with gaps at the same bars."""
    assert [value is None for value in found] == [value is None for value in expected]
    for bar, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one is not None:
            assert one == pytest.approx(other, abs=tolerance * size, rel=tolerance), f"bar {bar}"


def _studies(*requests):
    return {"studies": [{"name": name, "input": inputs} for name, inputs in requests]}


def _check_averages(bars):
    closes = column(bars, "close")
    size = max(closes)
    payload = _studies(
        ("Moving Average Double", {"firstPeriods": 12, "secondPeriods": 26}),
        ("Moving Average Double", {"firstPeriods": 5, "secondPeriods": 9, "method": "Exponential"}),
        ("Moving Average Double", {"firstPeriods": 3, "secondPeriods": 7, "method": "Weighted"}),
        ("Moving Average Double", {"firstPeriods": 4, "secondPeriods": 6, "method": "Smoothed"}),
        ("Bollinger Bands", {"in_0": 20, "in_1": 2}),
    )
    found = plots_of(plan_of(bars, payload))
    exponential, wilder = reference_studies.ema(closes, 9), reference_studies.wilder(closes, 6)
    expected = {
        ("MA Double 12 26", "Plot 1"): reference_studies.sma(closes, 12),
        ("MA Double 12 26", "Plot 2"): reference_studies.sma(closes, 26),
        ("MA Double Exponential 5 9", "Plot 2"): reference_studies.with_gap(
            exponential, reference_studies.drawn_from(exponential, 0.2)
        ),
        ("MA Double Weighted 3 7", "Plot 1"): reference_studies.wma(closes, 3),
        ("MA Double Smoothed 4 6", "Plot 2"): reference_studies.with_gap(
            wilder, reference_studies.drawn_from(wilder, 1 / 6)
        ),
    }
    for key, values in zip(
        ("Median", "Upper", "Lower"), reference_studies.bollinger(closes, 20, 2), strict=True
    ):
        expected["BB 20 2", key] = values
    for key, values in expected.items():
        _assert_same(found[key], values, size)


def _check_oscillators(bars):
    closes = column(bars, "close")
    payload = _studies(
        ("MACD", {}), ("Relative Strength Index", {"smoothingLine": "SMA"}), ("Stochastic RSI", {})
    )
    found = plots_of(plan_of(bars, payload | {"height": 900}))
    line, signal, _ = reference_studies.macd(closes, 12, 26, 9)
    line = reference_studies.with_gap(line, reference_studies.drawn_from(line, 2 / 27))
    signal = reference_studies.with_gap(signal, reference_studies.drawn_from(signal, 2 / 27, 2 / 10))
    strength = reference_studies.rsi(closes, 14)
    strength = reference_studies.with_gap(strength, reference_studies.drawn_from(strength, 1 / 14))
    k, d = reference_studies.stochastic_rsi(strength, 14, 3, 3)
    _assert_same(found["MACD 12 26 9 close", "MACD"], line, max(closes))
    _assert_same(found["MACD 12 26 9 close", "Signal"], signal, max(closes))
    _assert_same(found["MACD 12 26 9 close", "Histogram"], reference_studies.minus(line, signal), max(closes))
    _assert_same(found["RSI 14 SMA 14", "Plot"], strength, 100)
    _assert_same(found["RSI 14 SMA 14", "Smoothed MA"], reference_studies.sma(strength, 14), 100)
    _assert_same(found["Stoch RSI 14 14 3 3", "%K"], k, 100, 1e-7)
    _assert_same(found["Stoch RSI 14 14 3 3", "%D"], d, 100, 1e-7)


def _check_trend_and_volume(bars):
    highs, lows, closes = (column(bars, field) for field in HLC)
    payload = _studies(
        ("Average Directional Index", {}),
        ("Average Directional Index", {"in_0": 8, "in_1": 5}),
        ("On Balance Volume", {"smoothingLine": "WMA", "smoothingLength": 4}),
        ("Parabolic SAR", {}),
        ("Parabolic SAR", {"in_0": 0.01, "in_1": 0.03, "in_2": 0.15}),
    )
    found = plots_of(plan_of(bars, payload | {"height": 900}))
    for smoothing, length in ((14, 14), (8, 5)):
        values = reference_studies.adx(highs, lows, closes, smoothing, length)
        visible = reference_studies.drawn_from(values, 1 / length, 1 / smoothing)
        _assert_same(
            found[f"ADX {smoothing} {length}", "ADX"], reference_studies.with_gap(values, visible), 100
        )
    balance = reference_studies.on_balance_volume(closes, column(bars, "volume"))
    _assert_same(found["OBV WMA 4", "Plot"], balance, max(map(abs, balance)) + 1)
    _assert_same(
        found["OBV WMA 4", "Smoothed MA"], reference_studies.wma(balance, 4), max(map(abs, balance)) + 1
    )
    for title, steps in (
        ("SAR 0.02 0.02 0.2", (0.02, 0.02, 0.2)),
        ("SAR 0.01 0.03 0.15", (0.01, 0.03, 0.15)),
    ):
        drawn = found[title, "Plot"]
        values = reference_studies.parabolic_sar(highs, lows, *steps)
        _assert_same(drawn, reference_studies.with_gap(values, reference_studies.first(drawn)), max(highs))


@pytest.mark.parametrize("name", CANDLE_FILES)
@pytest.mark.parametrize("check", [_check_averages, _check_oscillators, _check_trend_and_volume])
def test_studies_of_real_candles_equal_the_oracle(name, check):
    """Every study of the sample files equals the oracle bar by bar."""
    check(bars_of(name))


closes_lists = st.lists(st.floats(min_value=-0.08, max_value=0.08), min_size=60, max_size=260).map(
    lambda steps: [100 * math.exp(math.fsum(steps[: n + 1])) for n in range(len(steps))]
)


@settings(max_examples=15, deadline=None)
@given(closes=closes_lists, scale=st.sampled_from([1e-8, 1.0, 1e6]))
@pytest.mark.parametrize("check", [_check_averages, _check_oscillators, _check_trend_and_volume])
def test_studies_of_generated_candles_equal_the_oracle(check, closes, scale):
    """Studies of random walks, jumps and standstills equal the oracle, at tiny and huge prices."""
    bars = bars_from_closes([close * scale for close in closes])
    for number, one in enumerate(bars):
        one["volume"] = float((number * 7919) % 1000)
    check(bars)


@pytest.mark.parametrize("source", ["open", "high", "low", "close", "hl2", "hlc3", "ohlc4"])
def test_macd_is_computed_from_the_requested_source(source):
    """MACD uses the price that its input `in_3` names."""
    bars = bars_of()
    mean = {"hl2": ("high", "low"), "hlc3": HLC, "ohlc4": ("open", *HLC)}.get(source, (source,))
    prices = [math.fsum(float(bar[field]) for field in mean) / len(mean) for bar in bars]
    found = plots_of(plan_of(bars, _studies(("MACD", {"in_0": 5, "in_1": 9, "in_2": 4, "in_3": source}))))
    line, _, _ = reference_studies.macd(prices, 5, 9, 4)
    expected = reference_studies.with_gap(line, reference_studies.drawn_from(line, 0.2))
    _assert_same(found[f"MACD 5 9 4 {source}", "MACD"], expected, 200)


@pytest.mark.parametrize("rows", [1, 7, 24, 100])
def test_volume_profile_equals_the_oracle_and_keeps_all_volume(rows):
    """The volume profile equals the oracle and keeps the total volume."""
    bars = bars_of()
    plan = plan_of(bars, request_of("ctpl_price_vpvr_obv_v1"))
    visible = bars[plan.grid.first :]
    profile = volume_profile(plan.visible, rows=rows, area_percent=70)
    up, down = reference_studies.volume_profile(visible, rows)
    total = sum(column(visible, "volume"))
    assert profile.up.tolist() == pytest.approx(up, abs=1e-6 * total)
    assert profile.down.tolist() == pytest.approx(down, abs=1e-6 * total)
    assert float((profile.up + profile.down).sum()) == pytest.approx(total)
    assert profile.control == max(range(rows), key=lambda n: (up[n] + down[n], -n))


def test_value_area_grows_from_the_control_row_to_the_larger_neighbour():
    """The value area grows to the larger neighbour, upwards on a tie, until its percentage is reached."""
    assert value_area([1, 5, 10, 4, 5], 2, 70) == (1, 4)
    assert value_area([3, 10, 3], 1, 70) == (1, 3)
    assert value_area([3, 10, 3], 1, 0) == (1, 2)
    assert value_area([3, 10, 3], 1, 100) == (0, 3)


def test_a_flat_market_gives_flat_lines_and_no_noise():
    """At equal prices the bands equal the average, RSI is 100, ADX 0 and StochRSI empty."""
    bars = bars_from_closes([50.0] * 300)
    for one in bars:
        one["high"] = one["low"] = 50.0
    names = ("Bollinger Bands", "Relative Strength Index", "Average Directional Index", "Stochastic RSI")
    found = plots_of(plan_of(bars, {"height": 900, "studies": [{"name": name} for name in names]}))
    assert found["BB 20 2", "Upper"][-1] == found["BB 20 2", "Lower"][-1] == 50.0
    assert found["RSI 14", "Plot"][-1] == 100
    assert found["ADX 14 14", "ADX"][-1] == 0
    assert set(found["Stoch RSI 14 14 3 3", "%K"]) == {None}


def test_constant_prices_after_movement_give_a_gap_in_the_stochastic():
    """The stochastic of an RSI that is constant up to rounding is empty."""
    closes = [100 + 3 * math.sin(n) for n in range(250)] + [100.0] * 40
    found = plots_of(plan_of(bars_from_closes(closes), {"studies": [{"name": "Stochastic RSI"}]}))
    drawn = found["Stoch RSI 14 14 3 3", "%K"]
    assert drawn[240] is not None
    assert drawn[-1] is None
