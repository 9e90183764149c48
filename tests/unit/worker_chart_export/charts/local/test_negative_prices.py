"""Prices below zero, as of oil in April 2020: each study, style, scale and drawing, and the texts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.support.charts.local_chart_samples import bar, bars_from_closes, candles_of, plan_of
from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.chart_values import chart_values
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.layout.number_format import MINUS, price_decimals
from worker_chart_export.charts.local.primitives.marks import Text
from worker_chart_export.charts.local.render import render
from worker_chart_export.errors import RenderFailed

#: The May future of WTI crude oil around the 20th of April 2020.
OIL = [
    (20.08, 20.90, 19.20, 19.87),
    (19.73, 20.32, 18.12, 18.27),
    (17.73, 17.85, -40.32, -37.63),
    (-14.00, 13.86, -16.74, 10.01),
    (10.50, 14.20, 8.77, 13.78),
]


def _oil(count=160):
    """Return a history that falls through zero and rises again, and ends with the days of April 2020."""
    closes = 20 + 25 * np.sin(np.arange(count - len(OIL)) / 9)
    closes = np.where(np.abs(closes) < 0.01, 0.01, closes)
    rows = [
        bar(n, (close - 0.7, max(close, close - 0.7) + 1.3, close - 2.1, close))
        for n, close in enumerate(closes.round(2).tolist())
        if all(abs(price) > 1e-9 for price in (close - 0.7, close + 1.3, close - 2.1))
    ]
    return [*rows, *(bar(count + n, prices) for n, prices in enumerate(OIL))]


BARS = _oil()


def _texts(plan):
    return [mark.text for mark in build_draw_list(plan).marks if isinstance(mark, Text)]


def test_such_bars_are_counted():
    """The bars with a price below zero are counted; a price of zero is still wrong."""
    candles = candles_of([bar(n, prices) for n, prices in enumerate(OIL)])
    assert candles.notes == {"negativePrices": 2}
    assert candles.close.tolist() == [prices[3] for prices in OIL]


@pytest.mark.parametrize("name", catalogue().studies)
def test_each_study_is_drawn(name):
    """Each study is computed without a warning, and its numbers are numbers or gaps."""
    plan = plan_of(BARS, {"studies": [{"name": name}], "height": 900})
    build_draw_list(plan)
    (study,) = plan.studies
    assert not any(np.isinf(plot.values).any() for plot in study.plots)
    assert chart_values(plan, timeframe="1d")["studies"][0]["name"] == name


@pytest.mark.parametrize("style", catalogue().styles)
@pytest.mark.parametrize("scale", ["regular", "percent", "indexedTo100"])
@pytest.mark.parametrize("inverted", [False, True])
def test_each_style_is_drawn_on_each_scale(style, scale, inverted):
    """The low of the day is within the pane, at its place between the highest and the lowest tick."""
    payload = {"style": style, "scale": scale, "override": {"showInvertScale": inverted}}
    plan = plan_of(BARS, payload)
    pane = plan.panes[0]
    low = round(pane.scale.row(float(plan.visible.low.min())))
    assert pane.box[1] <= low < pane.box[3]
    rows = [row for row, _ in pane.axis.ticks]
    assert rows == sorted(rows, reverse=not inverted)
    png = render(candles_of(BARS), payload, symbol="CL", timeframe="1d").png
    assert Image.open(io.BytesIO(png)).size == (800, 600)


@pytest.mark.parametrize("name", catalogue().drawings)
def test_each_drawing_is_drawn(name):
    """A drawing at prices below zero, and at zero, is drawn."""
    entry = catalogue().drawings[name]
    for price in (-37.63, 0.0):
        inputs = {key: price for key in entry.inputs if key.endswith("rice")}
        dates = {
            "startDatetime": BARS[-20]["date"],
            "endDatetime": BARS[-3]["date"],
            "datetime": BARS[-3]["date"],
        }
        inputs |= {key: value for key, value in dates.items() if key in entry.inputs}
        inputs |= {key: "x" for key in ("text", "quantity") if key in entry.inputs}
        build_draw_list(plan_of(BARS, {"drawings": [{"name": name, "input": inputs}]}))


def test_a_logarithmic_scale_is_refused():
    """A logarithmic scale has no zero; it is refused by field and with the first such day shown."""
    with pytest.raises(RenderFailed, match=r"`scale` logarithmic .* below zero, as on 2024-") as caught:
        plan_of(BARS, {"scale": "logarithmic"})
    assert caught.value.details["field"] == "scale"
    plan_of(BARS, {"scale": "logarithmic", "range": "1D"})
    alone = {"override": {"showMainPane": False}, "studies": [{"name": "MACD"}]}
    plan_of(BARS, {"scale": "logarithmic", **alone})
    override = {"priceRange": {"from": -5}}
    with pytest.raises(RenderFailed, match="begins at -5"):
        plan_of(bars_from_closes([100.0, 101.0]), {"scale": "logarithmic", "override": override})


def test_the_legend_has_the_sign_of_the_move():
    """A rise from below zero is a rise in percent too."""
    texts = _texts(plan_of([bar(n, prices) for n, prices in enumerate(OIL[:4])], {}))
    assert "+47.64 (+126.60%)" in texts
    assert f"{MINUS}16.74" in texts
    fall = _texts(plan_of([bar(n, prices) for n, prices in enumerate(OIL[:3])], {}))
    assert f"{MINUS}55.90 ({MINUS}305.97%)" in fall


@pytest.mark.parametrize(
    ("scale", "close", "text"),
    [
        ("percent", -20.0, "0.00%"),
        ("percent", -10.0, "50.00%"),
        ("percent", -40.0, f"{MINUS}100.00%"),
        ("indexedTo100", -20.0, f"{MINUS}100.00"),
        ("indexedTo100", -10.0, f"{MINUS}50.00"),
        ("indexedTo100", 10.0, "50.00"),
    ],
)
def test_relative_scales_start_at_the_first_price(scale, close, text):
    """From a first price below zero, up stays up: half of the way to zero is a rise of 50 %."""
    rows = [
        bar(0, (-20.0, -19.0, -21.0, -20.0)),
        bar(1, (close, max(close, -19.0), min(close, -21.0), close)),
    ]
    plan = plan_of(rows, {"scale": scale})
    (label,) = plan.panes[0].axis.labels
    assert label.text == text


@pytest.mark.parametrize("fixed", [{"from": -45}, {"to": 0}, {"from": -50, "to": -30}, {"margin": 0.1}])
def test_a_price_range_keeps_room(fixed):
    """An end that is left out keeps its margin outside the prices, also below zero."""
    scale = plan_of(BARS, {"override": {"priceRange": fixed}}).panes[0].scale
    lows, highs = [row["low"] for row in BARS[-100:]], [row["high"] for row in BARS[-100:]]
    margin = fixed.get("margin", 0.0025)
    assert scale.low == pytest.approx(fixed.get("from", min(lows) - abs(min(lows)) * margin))
    assert scale.high == pytest.approx(fixed.get("to", max(highs) + abs(max(highs)) * margin))


@pytest.mark.parametrize(("closes", "decimals"), [([-37.63], 2), ([-0.00001234], 8), ([-97123.5], 2)])
def test_decimals_go_by_the_size(closes, decimals):
    """Prices below zero have the decimals of those above."""
    assert price_decimals(np.array(closes)) == decimals


def test_a_volume_profile_reaches_below_zero():
    """All volume is in the profile's rows, which begin at the lowest low."""
    plan = plan_of(BARS, {"studies": [{"name": "Volume Profile Visible Range"}]})
    profile = plan.studies[0].profile.profile
    assert profile.edges[0] == -40.32
    assert (profile.up.sum() + profile.down.sum()) == pytest.approx(plan.visible.volume.sum())
