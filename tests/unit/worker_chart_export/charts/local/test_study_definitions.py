"""What is easily mistaken in TradingView's definitions, as values computed by hand."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from tests.support.charts import oracles
from tests.support.charts.local_chart_samples import bar, bars_from_closes, candles_of
from worker_chart_export.charts.local.input.options import StudyRequest
from worker_chart_export.charts.local.studies.compute import compute_study

#: Open, high, low, close: the first bar is wide, the others are 4 wide.
WIDE_START = ((10, 12, 2, 10), (10, 13, 9, 12), (12, 15, 11, 14))


def _bars(*prices, volume=1.0):
    return [bar(number, row, volume=volume) for number, row in enumerate(prices)]


def _peaks(*highs):
    """Return bars with these highs, each 1 wide."""
    return _bars(*((high - 1, high, high - 1, high) for high in highs))


def _study(name, bars, **inputs):
    return compute_study(
        StudyRequest(name=name, inputs=inputs, overrides={}, force_overlay=None), candles_of(bars)
    )


def _plot(name, key, bars, **inputs):
    """Return one plot as a list, rounded to nine digits, None for a gap."""
    plot = next(plot for plot in _study(name, bars, **inputs).plots if plot.key == key)
    return [None if math.isnan(value) else round(value, 9) for value in plot.values.tolist()]


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_no_oracle_uses_code_of_the_renderer():
    """Oracles import the standard library and each other, nothing else."""
    allowed = {"__future__", "dataclasses", "importlib", "itertools", "math", "pkgutil"}
    for path in Path(oracles.__path__[0]).glob("*.py"):
        others = {name for name in _imports(path) if not name.startswith("tests.support.charts.oracles")}
        assert others <= allowed, path.name


def test_the_true_range_of_directional_movement_begins_on_the_second_bar():
    """`ta.dmi` averages `ta.tr`, which the first bar lacks: 100 x (1 + 2) / (4 + 4)."""
    assert _plot("Directional Movement", "+DI", _bars(*WIDE_START), in_0=2)[2] == 37.5


def test_equal_moves_up_and_down_are_no_directional_movement():
    """A high 0.1 higher and a low 0.1 lower are equal moves, although their floats differ."""
    bars = _bars((1.05, 1.1, 1.0, 1.05), (1.05, 1.2, 0.9, 1.05))
    assert 1.2 - 1.1 != 1.0 - 0.9
    assert _plot("Directional Movement", "+DI", bars, in_0=1)[1] == 0
    assert _plot("Directional Movement", "-DI", bars, in_0=1)[1] == 0


def test_keltner_channels_have_no_range_on_the_first_bar():
    """`ta.kc` averages `ta.tr`: the bands begin a bar later than the middle."""
    bars = _bars(*WIDE_START)
    assert _plot("Keltner Channels", "Middle", bars, in_1=2) == [None, 11, 13]
    assert _plot("Keltner Channels", "Upper", bars, in_1=2) == [None, None, 17]


def test_the_average_true_range_counts_the_first_bar():
    """`ta.atr` averages `ta.tr(true)`: (10 + 4) / 2."""
    assert _plot("Average True Range", "Plot", _bars(*WIDE_START), in_0=2)[1] == 7


def test_the_width_of_bollinger_bands_is_a_percentage():
    """`ta.bbw` of 10 and 14: mean 12, deviation 2, so the bands are 8 apart."""
    assert _plot("Bollinger Bands Width", "Plot", bars_from_closes([10, 14]), in_0=2)[1] == 66.666666667


def test_aroon_counts_from_the_oldest_of_equal_highs():
    """Of two highs of 9 the one two bars ago counts, as `ta.highestbars` does."""
    assert _plot("Aroon", "Upper", _peaks(5, 9, 9, 7), in_0=3)[3] == 33.333333333


@pytest.mark.parametrize(
    ("highs", "marked"),
    [
        ((11, 12, 15, 12, 11), [2]),
        ((11, 12, 13, 13, 12, 11), [3]),
        ((11, 12, 13, 13, 13, 13, 13, 12, 11), [6]),
        ((11, 12, 13, 13, 13, 13, 13, 13, 12, 11), []),
        ((13, 12, 13, 12, 11), []),
    ],
)
def test_a_fractal_is_the_last_of_at_most_five_equal_highs(highs, marked):
    """Bars after a fractal are strictly lower; up to four bars before it may be as high."""
    found = _plot("Williams Fractal", "Up fractals", _peaks(*highs))
    assert [n for n, value in enumerate(found) if value is not None] == marked


def test_a_zig_zag_turns_at_the_first_of_equal_highs():
    """A high that equals one within the bars before it is no pivot."""
    assert set(_plot("Zig Zag", "Plot", _peaks(25, 30, 20, 15, 20, 12, 11), in_1=4)) == {None}
    assert _plot("Zig Zag", "Plot", _peaks(15, 18, 20, 20, 15, 12), in_1=4)[2:4] == [20, None]


@pytest.mark.parametrize(
    ("closes", "ratio"),
    [((11, 11, 9, 9), 1), ((11, 11, 11, 9), 3), ((10, 10, 10, 9), 3), ((11, 10, 10, 11), 4)],
)
def test_advances_are_bars_that_close_at_their_open_or_above(closes, ratio):
    """Closes are compared with opens of 10; without a decline the number of advances is shown."""
    bars = _bars(*((10, 12, 8, close) for close in closes))
    assert _plot("Advance/Decline", "Plot", bars, in_0=4)[3] == ratio


def test_the_first_volume_of_the_klinger_oscillator_is_negative():
    """The first bar has no change, which is not at least zero: its volume counts as falling."""
    bars = bars_from_closes([100.0 + n for n in range(55)])
    expected = 1000 * (1 - 2 / 34 * (33 / 35) ** 21 - 53 / 55)
    assert _plot("Klinger Oscillator", "Plot", bars)[54] == pytest.approx(expected)


def test_an_unchanged_price_is_no_fall_for_the_klinger_oscillator():
    """Typical prices that differ by rounding only count as unchanged."""
    rows = [(0.8, 1.0, 0.7, 0.7) if n % 2 else (0.8, 0.9, 0.7, 0.8) for n in range(60)]
    assert 0.9 + 0.7 + 0.8 != 1.0 + 0.7 + 0.7
    steady = _plot("Klinger Oscillator", "Plot", _bars(*[(0.8, 0.9, 0.7, 0.8)] * 60))
    assert _plot("Klinger Oscillator", "Plot", _bars(*rows)) == steady


def test_the_first_bar_counts_on_both_sides_of_the_money_flow():
    """Typical prices of 10 and 12: 100 x (10 + 12) / (10 + 12 + 10)."""
    bars = _bars((10, 11, 9, 10), (12, 13, 11, 12))
    assert _plot("Money Flow Index", "Plot", bars, in_0=2)[1] == 68.75


@pytest.mark.parametrize(("name", "key"), [("On Balance Volume", "Plot"), ("Price Volume Trend", "PVT")])
def test_a_sum_of_changes_begins_on_the_second_bar(name, key):
    """`ta.obv` and `ta.pvt` have no value on the first bar."""
    found = _plot(name, key, bars_from_closes([10, 12, 12]))
    assert found[0] is None
    assert found[1] > 0


def test_colours_of_the_awesome_oscillator_and_of_macd_in_a_flat_market():
    """A value that equals the one before does not rise; the first has no change to be red for."""
    bars = bars_from_closes([50.0] * 60)
    awesome, macd = (_study(name, bars).plots[0] for name in ("Awesome Oscillator", "MACD"))
    assert awesome.shades[33:36].tolist() == [1, 0, 0]
    assert set(macd.shades[33:].tolist()) == {1}


def test_the_fisher_transform_starts_again_after_bars_without_a_range():
    """The bar after a standstill has the value of a first bar: 0.5 ln((1 + 0.33) / (1 - 0.33))."""
    first = round(0.5 * math.log(1.33 / 0.67), 9)
    middles = _bars(*((m, m + 1, m - 1, m) for m in (10, 11, 11, 12)))
    assert _plot("Fisher Transform", "Fisher", middles, in_0=2) == [None, first, None, first]


@pytest.mark.parametrize(
    ("closes", "crossed"),
    [((10, 9, 12), [2]), ((10, 9, 9, 12), [3]), ((10, 11, 11, 12), []), ((10, 10, 10, 12), [])],
)
def test_averages_cross_only_to_the_other_side(closes, crossed):
    """Bars of equality keep the side of the bars before them; at the start there is no side."""
    found = _plot("MA Cross", "PlotCrosses", bars_from_closes(closes), in_0=1, in_1=2)
    assert [n for n, value in enumerate(found) if value is not None] == crossed


def test_an_average_skips_bars_without_a_value():
    """A bar without a range has no place in it; the average goes on with the bars around it."""
    bars = _bars((5, 10, 0.1, 5.05), (5, 10, 5, 10), (10, 10, 10, 10), (10, 10, 5, 5))
    assert _plot("Stochastic", "%K", bars, in_0=1, in_1=2) == [None, 75, None, 50]


def test_the_volatility_stop_begins_at_the_first_close():
    """Before the average begins the distance is the true range, here 4."""
    assert _plot("Volatility Index", "Plot", _bars(*WIDE_START), periods=3)[:2] == [10, 10]


def test_the_rank_of_a_change_counts_the_missing_one_of_the_first_bar():
    """`ta.percentrank` needs `length` bars before, not `length` numbers."""
    found = _plot("Connors RSI", "CRSI", bars_from_closes([10, 11, 10, 12, 11]), in_2=3)
    assert [value is None for value in found] == [True, True, True, False, False]
