"""Where a study no longer depends on the start of the candle file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.charts.local_chart_samples import bars_of, candles_of, plan_of, request_of
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.input.options import StudyRequest
from worker_chart_export.charts.local.primitives.marks import Strokes
from worker_chart_export.charts.local.studies.compute import compute_study

RECURSIVE = ("Relative Strength Index", "MACD", "Average Directional Index", "Parabolic SAR")


def _study(name, candles, **inputs):
    return compute_study(StudyRequest(name=name, inputs=inputs, overrides={}, force_overlay=None), candles, 0)


@pytest.mark.parametrize("name", RECURSIVE)
@pytest.mark.parametrize("cut", [60, 130, 200])
def test_settled_values_hardly_depend_on_the_start_of_the_history(name, cut):
    """A settled value of a short history equals that of the long one within a pixel."""
    whole, short = _study(name, candles_of(bars_of())), _study(name, candles_of(bars_of()[cut:]))
    for plot, other in zip(whole.plots, short.plots, strict=True):
        first = short.settled_from
        difference = np.abs(plot.values[cut + first :] - other.values[first:])
        assert first < 200
        assert difference.size > 20
        # A stop can turn a bar earlier or later; every other study is smooth.
        assert np.quantile(difference, 0.9) <= 0.01 * np.ptp(plot.values[cut + first :])


@pytest.mark.parametrize(
    ("name", "inputs", "first"),
    [("Moving Average", {"length": 12}, 11), ("Bollinger Bands", {}, 19), ("On Balance Volume", {}, 1)],
)
def test_a_windowed_study_is_settled_from_its_first_full_window(name, inputs, first):
    """A study of a window is settled at once, and a running sum is settled in its shape."""
    assert _study(name, candles_of(bars_of()), **inputs).settled_from == first


def test_a_study_that_only_changes_its_colour_is_settled_when_the_colour_is():
    """All columns of the Chop Zone are 1 high; their colour follows an average of 34 bars."""
    whole, short = (_study("Chop Zone", candles_of(bars_of()[cut:])) for cut in (0, 100))
    first = short.settled_from
    assert 60 < first < 250
    assert (whole.plots[0].shades[100 + first :] == short.plots[0].shades[first:]).all()


def test_a_study_of_too_few_bars_is_never_settled():
    """Thirty bars are drawn from the first value on, and none is settled."""
    study = _study("Average Directional Index", candles_of(bars_of()[:30]))
    assert study.settled_from == 30
    assert not np.isnan(study.plots[0].values[-1])


def _colors(bars, metadata):
    raw = json.dumps({"metadata": metadata, "data": bars}).encode()
    from_file = parse_candles(raw, symbol="IBM", timeframe="1d")
    study = _study("Relative Strength Index", from_file)
    return study.faint_until


def test_only_a_part_of_the_history_is_drawn_fainter():
    """Lines of a cut-out are faint until they are settled; of the whole history they never are."""
    bars = bars_of()[:100]
    assert _colors(bars, {"query_type": "range"}) > 20
    assert _colors(bars, {"query_type": "all"}) == 0


def test_the_unsettled_part_has_less_opacity():
    """A line changes its opacity where the study is settled."""
    plan = plan_of(bars_of()[:150], request_of("ctpl_price_rsi14_stochrsi_v1"))
    strokes = [mark for mark in build_draw_list(plan).marks if isinstance(mark, Strokes)]
    opacities = {line.color[3] for mark in strokes for line in mark.lines}
    assert opacities == {102, 255}
