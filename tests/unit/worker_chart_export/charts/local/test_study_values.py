"""Every study's values equal a plain-Python oracle, on real and on generated candles."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.charts.local_chart_samples import CANDLE_FILES, bars_from_closes, bars_of, candles_of
from tests.support.charts.oracles import ORACLES, Bars
from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.input.options import StudyRequest
from worker_chart_export.charts.local.studies.compute import STUDIES, compute_study

#: Studies without plots of one value per bar have tests of their own.
WITHOUT_ORACLE = {"Volume Profile Visible Range"}
FIELDS = ("date", "open", "high", "low", "close", "volume")
CASES = [(name, variant) for name, one in ORACLES.items() for variant in one.variants]


@cache
def _candles_of_file(file):
    return candles_of(bars_of(file))


def _computed(name, inputs, candles):
    """Return the plots of a study by key, as lists with None for a gap."""
    request = StudyRequest(name=name, inputs=inputs, overrides={}, force_overlay=None)
    study = compute_study(request, candles, 0)
    return {plot.key: [None if math.isnan(v) else v for v in plot.values.tolist()] for plot in study.plots}


def _check(name, inputs, bars, candles=None):
    """Compare a study with its oracle; within 1e-6 of the value, or 1e-9 of the plot's size."""
    defaults = {key: one.default for key, one in catalogue().studies[name].inputs.items()}
    columns = {field: [bar[field] for bar in bars] for field in FIELDS}
    expected = ORACLES[name].compute(Bars(**columns), defaults | inputs)
    found = _computed(name, inputs, candles or candles_of(bars))
    assert set(expected) == set(found)
    for key, values in expected.items():
        assert [v is None for v in found[key]] == [v is None for v in values], key
        size = max((abs(v) for v in values if v is not None), default=0.0)
        # As `pytest.approx`, which takes a hundred times as long for each value.
        wrong = {
            bar: (one, other)
            for bar, (one, other) in enumerate(zip(found[key], values, strict=True))
            if other is not None and not abs(one - other) <= max(1e-6 * abs(other), 1e-9 * size)
        }
        assert wrong == {}, key


def test_every_study_has_an_oracle():
    """No study is drawn without an independent check of its values."""
    assert set(STUDIES) - WITHOUT_ORACLE == set(ORACLES)


@pytest.mark.parametrize("file", CANDLE_FILES)
@pytest.mark.parametrize(("name", "inputs"), CASES)
def test_a_study_of_real_candles_equals_its_oracle(name, inputs, file):
    """Every study of the sample files equals its oracle bar by bar."""
    _check(name, inputs, bars_of(file), _candles_of_file(file))


closes_lists = st.lists(st.floats(min_value=-0.08, max_value=0.08), min_size=5, max_size=120).map(
    lambda steps: [100 * math.exp(math.fsum(steps[: n + 1])) for n in range(len(steps))]
)


@settings(max_examples=10, deadline=None)
@given(closes=closes_lists, scale=st.sampled_from([1e-8, 1.0, 1e6]))
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_a_study_of_generated_candles_equals_its_oracle(name, closes, scale):
    """Studies of random walks, jumps and standstills equal their oracles, at tiny and huge prices."""
    bars = bars_from_closes([close * scale for close in closes])
    for number, one in enumerate(bars):
        one["volume"] = float((number * 7919) % 1000)
    _check(name, {}, bars)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("step", [n / 64 for n in range(1, 9)])
def test_averages_that_are_equal_but_for_rounding_do_not_cross(step, scale):
    """An exponential average begins with the simple one: their first difference is rounding, and no side."""
    closes = [scale * 100.0] * 5 + [scale * 100 * math.exp(step)] * 6
    lengths = {"in_0": 10, "in_1": 10}
    drawn = _computed("MA with EMA Cross", lengths, candles_of(bars_from_closes(closes)))
    assert drawn["MA"][-1] != pytest.approx(drawn["EMA"][-1], rel=1e-4)
    assert set(drawn["Crosses"]) == {None}


def test_a_flat_market_gives_flat_lines_and_no_noise():
    """At equal prices the bands equal the average, RSI is 100, ADX 0 and StochRSI empty."""
    bars = bars_from_closes([50.0] * 300)
    for one in bars:
        one["high"] = one["low"] = 50.0
    candles = candles_of(bars)
    bands = _computed("Bollinger Bands", {}, candles)
    assert bands["Upper"][-1] == bands["Lower"][-1] == 50.0
    assert _computed("Relative Strength Index", {}, candles)["Plot"][-1] == 100
    assert set(_computed("Stochastic RSI", {}, candles)["%K"]) == {None}


def test_constant_prices_after_movement_give_a_gap_in_the_stochastic():
    """The stochastic of an RSI that is constant up to rounding is empty."""
    closes = [100 + 3 * math.sin(n) for n in range(250)] + [100.0] * 40
    drawn = _computed("Stochastic RSI", {}, candles_of(bars_from_closes(closes)))["%K"]
    assert drawn[240] is not None
    assert drawn[-1] is None
