"""The numbers beside the picture: for each bar shown, for the newest bar, and inside the PNG."""

from __future__ import annotations

import io
import json
import math

import pytest
from PIL import Image

from tests.support.charts.local_chart_samples import (
    TEMPLATES,
    bars_from_closes,
    bars_of,
    candles_of,
    plan_of,
    request_of,
)
from tests.support.charts.oracles import ORACLES, Bars
from worker_chart_export.charts.base import check_png
from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.chart_values import (
    MAX_LAST_VALUES_BYTES,
    chart_values,
    encode,
    last_values,
)
from worker_chart_export.charts.local.drawing.png_text import with_text
from worker_chart_export.charts.local.render import VALUES_KEYWORD, render

FIELDS = ("date", "open", "high", "low", "close", "volume")
CLOUD = {"name": "Ichimoku Cloud"}
PROFILE = {"name": "Volume Profile Visible Range"}


def _values(studies, bars=None, timeframe="1d", **payload):
    plan = plan_of(bars or bars_of(), {"studies": studies, **payload}, timeframe=timeframe)
    return json.loads(encode(chart_values(plan, timeframe=timeframe)))


def _last(studies, **payload):
    return json.loads(encode(last_values(plan_of(bars_of(), {"studies": studies, **payload}))))


def _texts(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    return image.text


def test_the_numbers_are_those_of_the_bars_shown():
    """The numbers of each bar shown are those of an oracle, with 12 digits and null for a gap."""
    rows = bars_of()
    inputs = {key: one.default for key, one in catalogue().studies["MACD"].inputs.items()}
    oracle = ORACLES["MACD"].compute(
        Bars(**{field: [row[field] for row in rows] for field in FIELDS}), inputs
    )
    found = _values([{"name": "MACD"}])
    assert list(found) == ["symbol", "timeframe", "bars", "studies"]
    assert (found["symbol"], found["timeframe"]) == ("IBM", "1d")
    assert found["bars"] == [row["date"] for row in rows[-len(found["bars"]) :]]
    (study,) = found["studies"]
    assert list(study) == ["name", "input", "settledFrom", "plots"]
    assert (study["name"], study["input"], study["settledFrom"]) == ("MACD", inputs, 0)
    assert list(study["plots"]) == ["Histogram", "MACD", "Signal"]
    for key, values in study["plots"].items():
        assert values == pytest.approx(oracle[key][-len(found["bars"]) :], rel=1e-9)
        assert all(float(f"{value:.12g}") == value for value in values)


def test_studies_have_the_order_of_the_template():
    """Studies over the price and in their own panes are listed as the template has them, twice if twice."""
    names = ["Relative Strength Index", "Moving Average", "MACD", "Moving Average", "Volume"]
    studies = [{"name": name} for name in names]
    studies[3]["input"] = {"length": 30}
    studies[4]["forceOverlay"] = True
    found = _values(studies, height=900)["studies"]
    assert [study["name"] for study in found] == names
    assert [study["input"].get("length") for study in found] == [14, 9, None, 30, None]


def test_hidden_plots_have_no_numbers_until_they_are_shown():
    """A plot that is hidden, by default or by the template, is left out."""
    shown = {**PROFILE, "override": {"Developing Poc.display": True}}
    macd = {"name": "MACD", "override": {"Signal.visible": False}}
    found = _values([{"name": "Relative Strength Index"}, shown, macd])["studies"]
    assert [list(study["plots"]) for study in found] == [
        ["Plot"],
        ["Developing Poc", "graphics.horizlines.pocLines"],
        ["Histogram", "MACD"],
    ]
    developing, control = found[1]["plots"].values()
    assert developing[-1] == control[-1]


def test_moved_plots_have_their_values_where_they_are_drawn():
    """The span that lags has none at the newest bars; the leading spans have those of 25 bars before."""
    rows = bars_of()
    found = _values([CLOUD])
    plots, count = found["studies"][0]["plots"], len(found["bars"])
    closes = [row["close"] for row in rows]
    assert plots["LaggingSpan"] == [*closes[len(rows) - count + 25 :], *[None] * 25]
    conversion, base = plots["ConversionLine"], plots["BaseLine"]
    middle = [(a + b) / 2 for a, b in zip(conversion, base, strict=True)]
    assert plots["LeadingSpanA"][25:] == pytest.approx(middle[:-25])


@pytest.mark.parametrize(
    ("study", "bars", "first"),
    [
        ({"name": "Moving Average", "input": {"length": 12}}, 50, 11),
        ({"name": "Moving Average", "input": {"length": 12, "offset": 5}}, 50, 16),
        ({"name": "Average Directional Index"}, 30, None),
        ({"name": "Moving Average", "input": {"length": 12}}, 400, 0),
        (PROFILE, 50, 0),
    ],
)
def test_it_is_said_where_a_study_is_settled(study, bars, first):
    """The index counts the bars shown; a study that is not settled on any of them has null."""
    assert _values([study], bars_of()[:bars])["studies"][0]["settledFrom"] == first


def test_a_volume_profile_has_its_point_of_control():
    """The profile has one value, that of its line; hidden, it has none. Without volume the value is null."""
    key = "graphics.horizlines.pocLines"
    found = _values([PROFILE])
    (values,) = found["studies"][0]["plots"].values()
    plan = plan_of(bars_of(), {"studies": [PROFILE]})
    control = plan.studies[0].profile.profile.control_price
    assert values == pytest.approx([control] * len(found["bars"]), rel=1e-11)
    hidden = {**PROFILE, "override": {f"{key}.visible": False}}
    assert _values([hidden])["studies"][0]["plots"] == {}
    without = bars_from_closes([100.0, 101.0, 102.0], volume=0)
    assert _values([PROFILE], without)["studies"][0]["plots"] == {key: [None] * 3}


def test_the_bars_are_those_of_the_picture():
    """Longer bars, a range, a shift and a chart without the price change the bars and the studies listed."""
    studies = [{"name": "Relative Strength Index"}, {"name": "Moving Average"}]
    weekly = _values(studies, interval="1W")
    assert (weekly["timeframe"], weekly["bars"][-2:]) == (
        "1W",
        ["2013-02-19T00:00:00Z", "2013-02-25T00:00:00Z"],
    )
    assert _values(studies, interval="1D")["timeframe"] == "1d"
    days = _values(studies, range="5D")
    assert len(days["bars"]) == len(days["studies"][0]["plots"]["Plot"]) == 5
    assert _values(studies, shiftLeft=3)["bars"][-1] == bars_of()[-4]["date"]
    alone = _values(studies, override={"showMainPane": False})
    assert [study["name"] for study in alone["studies"]] == ["Relative Strength Index"]


@pytest.mark.parametrize("template_id", TEMPLATES)
def test_the_newest_values_are_the_last_of_all(template_id):
    """The newest values are the last numbers of each list, and the newest bar is that of the file."""
    payload = request_of(template_id)
    plan = plan_of(bars_of(), payload)
    whole, last = chart_values(plan, timeframe="1d"), last_values(plan)
    assert last["lastBar"] == {field: bars_of()[-1][field] for field in FIELDS}
    assert [(study["name"], study["input"]) for study in last["studies"]] == [
        (study["name"], study["input"]) for study in whole["studies"]
    ]
    for study, lists in zip(last["studies"], whole["studies"], strict=True):
        assert study["plots"] == {key: values[-1] for key, values in lists["plots"].items()}
    assert len(encode(last)) <= MAX_LAST_VALUES_BYTES
    assert "studiesLeftOut" not in last


def test_studies_without_room_are_left_out_and_counted():
    """Fifty studies need more than 2 KiB: those that fit are listed, and the rest is counted."""
    last = _last([{"name": "Bollinger Bands"}] * 50)
    assert 0 < len(last["studies"]) < 50
    assert last["studiesLeftOut"] == 50 - len(last["studies"])
    assert len(encode(last)) <= MAX_LAST_VALUES_BYTES


def test_numbers_that_are_none_are_null():
    """NaN and infinity are null, and minus zero is zero, so that each reader of JSON takes the file."""
    plan = plan_of(bars_of(), {"studies": [{"name": "Moving Average"}]})
    plan.studies[0].plots[0].values[-3:] = (math.inf, math.nan, -0.0)
    (study,) = chart_values(plan, timeframe="1d")["studies"]
    assert study["plots"]["Plot"][-3:-1] == [None, None]
    assert math.copysign(1, study["plots"]["Plot"][-1]) == 1


def test_the_png_carries_the_newest_values():
    """Pillow reads the newest values from the picture, and the check of pictures takes it."""
    payload = request_of("ctpl_price_ma1226_bb_macd1226_v1")
    drawn = render(candles_of(bars_of()), payload, symbol="IBM", timeframe="1d")
    png = check_png(drawn.png, width=800, height=600, max_bytes=262_144)
    assert png == drawn.png
    found = json.loads(_texts(png)[VALUES_KEYWORD])
    assert found == {key: drawn.facts[key] for key in ("lastBar", "studies")}
    assert drawn.values is None


def test_any_text_can_stand_in_a_png():
    """The text is stored in UTF-8, and the pixels stay as they are."""
    drawn = render(candles_of(bars_of()), {}, symbol="IBM", timeframe="1d").png
    text = "Größe 数 \U0001f600"
    changed = with_text(drawn, "note", text)
    assert _texts(changed)["note"] == text
    assert Image.open(io.BytesIO(changed)).tobytes() == Image.open(io.BytesIO(drawn)).tobytes()
