"""What a template may request, and the refusal of everything else."""

from __future__ import annotations

import pytest

from tests.support.charts.local_chart_samples import bars_of, plan_of, plots_of
from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.request_check import problems
from worker_chart_export.errors import RenderFailed

BARS = bars_of()
_LINE = {"name": "Horizontal Line", "input": {"price": 200}}


def _refusal(payload, **more):
    with pytest.raises(RenderFailed) as caught:
        plan_of(BARS, payload, **more)
    assert caught.value.code == "RENDER_FAILED"
    return caught.value.message


def _study(name, **more):
    return {"studies": [{"name": name, **more}]}


@pytest.mark.parametrize(("name", "near"), [("Ichimoku", "Ichimoku Cloud"), ("macd", "MACD"), ("", "")])
def test_an_unknown_study_is_refused_with_the_near_ones(name, near):
    """An unknown study is refused with its name and those that are like it."""
    message = _refusal(_study(name))
    assert repr(name) in message
    assert near in message


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [
        ("MACD", {"in_9": 1}, "in_9: unknown key, expected one of in_0"),
        ("Volume", {"length": 1}, "unknown key, expected one of none"),
        ("MACD", {"in_0": 0}, "in_0: expected a whole number from 1 to 2000, got 0"),
        ("MACD", {"in_0": 12.5}, "expected a whole number"),
        ("MACD", {"in_0": "12"}, "expected a whole number"),
        ("MACD", {"in_0": True}, "expected a whole number"),
        ("MACD", {"in_0": None}, "expected a whole number"),
        ("MACD", {"in_3": "volume"}, "expected one of open, high, low, close, hl2, hlc3, ohlc4"),
        ("Bollinger Bands", {"in_1": float("nan")}, "expected a number from 0.001 to 50"),
        ("Moving Average Double", {"method": "Hull"}, "expected one of Simple, Exponential, Weighted"),
        ("Relative Strength Index", {"smoothingLine": "sma"}, "expected one of SMA, EMA, WMA"),
        ("Volume Profile Visible Range", {"rows": 10**7}, "expected a whole number from 1 to 1000000"),
        ("Volume Profile Visible Range", {"volume": "Down"}, "expected one of Up/Down, Total, Delta"),
    ],
)
def test_an_input_that_cannot_be_honoured_is_refused(name, inputs, said):
    """A wrong input is refused with study, input and expected value; no default replaces it."""
    message = _refusal(_study(name, input=inputs))
    assert "request.studies[0].input." in message
    assert said in message


def test_a_whole_number_written_as_a_float_is_accepted():
    """A whole number written as a float, such as 12.0, is accepted."""
    assert ("MACD 12 26 9 close", "MACD") in plots_of(plan_of(BARS, _study("MACD", input={"in_0": 12.0})))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"width": 399}, "width: expected a whole number of at least 400, got 399"),
        ({"width": 2049}, "width: expected at most 2048 pixels"),
        ({"height": 299}, "height: "),
        ({"height": "600"}, "got '600'"),
        ({"height": 600.5}, "got 600.5"),
        ({"width": True}, "got True"),
        ({"width": 399.0}, "got 399.0"),
        ({"theme": "solarized"}, "theme: expected one of light, dark"),
        ({"style": "renko"}, "style: expected one of bar, candle"),
        ({"timezone": "Mars/Olympus"}, "`timezone`"),
        ({"timezone": "../../etc/passwd"}, "`timezone`"),
        ({"timezone": 7}, "timezone: expected a text"),
        ({"format": "jpeg"}, "format: jpeg"),
        ({"shiftLeft": 400}, "`shiftLeft` 400 is more than the 400 candles"),
        ({"shiftRight": 150}, "`shiftRight` 150 leaves no room"),
        ({"range": {"from": "2020-01-01", "to": "2021-01-01"}}, "`range` holds none"),
        ({"range": {"from": "2012-03-01", "to": "2012-01-01"}}, "from a time to a later one"),
        ({"drawings": [{"name": "Trend Line"}]}, "drawings[0].input.startDatetime: missing"),
        ({"interval": "soon"}, "interval: expected one of 1m"),
        ({"studies": "MACD"}, "studies: expected a list"),
        ({"studies": [{"name": "Volume"}] * 51}, "at most 50"),
        ({"studies": [{}]}, "studies[0]: expected an object with a name"),
        ({"studies": ["Volume"]}, "studies[0]: expected an object with a name"),
        (_study("MACD", input=[1]), "input: expected an object"),
        (_study("MACD", forceOverlay="yes"), "forceOverlay: expected true or false"),
        (_study("Bollinger Bands", forceOverlay=False), "always over the price"),
        ({"override": []}, "override: expected an object"),
        ({"override": {"showMainPane": False}}, "showMainPane"),
        ({"override": {"showLegend": "no"}}, "showLegend"),
        ({"override": {"mainPaneHeight": 50}}, "mainPaneHeight"),
        ({"override": {"mainPaneHeight": 300.5}}, "mainPaneHeight"),
        ({"override": {"mainPaneHeight": True}}, "mainPaneHeight"),
        ({"override": {"priceRange": {"from": 5, "to": 5}}}, "priceRange"),
        ({"override": {"priceRange": {"from": 5, "to": 1}}}, "priceRange: expected a `to` above 5, got 1"),
        ({"override": {"priceRange": {"from": 1e300, "to": 1e308}}}, "priceRange.from` is 1e+300"),
        ({"override": {"priceRange": {"from": -1e308}}}, "priceRange.from` is -1e+308"),
        ({"override": {"priceRange": {"from": 1, "to": 1 + 2e-16}}}, "priceRange"),
        ({"override": {"priceRange": {"from": 1, "to": 1 + 1e-12}}}, "priceRange` runs from 1 to 1"),
        ({"override": {"priceRange": {"from": 10**400}}}, "priceRange.from: expected a number"),
        ({"drawings": [_LINE | {"zOrder": ["top"]}]}, "zOrder: expected one of top, bottom, got ['top']"),
        ({"drawings": [_LINE | {"zOrder": {}}]}, "zOrder: expected one of top, bottom, got {}"),
        ({"override": {"priceRange": {"from": "low"}}}, "priceRange.from"),
        ({"override": {"priceRange": {"from": 5, "margin": 3}}}, "priceRange.margin"),
        (_study("MACD", override={"MACD.color": "blueish"}), "expected a colour"),
        (_study("MACD", override={"MACD.color": "rgb(1,2,999)"}), "expected a colour"),
        (_study("MACD", override={"MACD.linewidth": 99}), "expected a whole number from 1 to 10"),
        (_study("MACD", override={"MACD.visible": 0}), "expected true or false"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused(payload, said):
    """A wrong field is refused with its name and the expected value."""
    assert said in _refusal(payload)


@pytest.mark.parametrize("key", sorted(catalogue().request.keys() - {"symbol"}))
def test_a_field_that_is_null_is_refused_as_the_template_check_refuses_it(key):
    """The documentation knows no null at the top of a request body."""
    assert _refusal({key: None}) == f"{next(problems({key: None}))}."


def test_a_length_below_one_bar_is_refused():
    """The documented range of some lengths allows zero and less, which has no meaning."""
    message = _refusal(_study("Average Directional Index", input={"in_0": 0}))
    assert message == "Study 'Average Directional Index' has input 'in_0' = 0, expected at least 1 bar."


def test_too_many_panes_for_the_height_are_refused():
    """More panes than the height has room for are refused."""
    assert _refusal({"height": 300, "studies": [{"name": "MACD"}] * 5}) == (
        "274 pixels above the time axis have no room for a price pane of 90 and so many panes of studies: 5."
    )
    alone = {"override": {"showMainPane": False}}
    assert "no room" in _refusal({"height": 300, "studies": [{"name": "MACD"}] * 50} | alone)


def test_defaults_are_the_api_s():
    """The defaults are those of the API: light, candles, 800x600, UTC."""
    options = read_options({}, symbol="IBM", timeframe="1d")
    assert (options.theme, options.style, options.width, options.height) == ("light", "candle", 800, 600)
    assert str(options.zone) == "UTC"
    assert options.timeframe.label == "1D"


@pytest.mark.parametrize(
    ("asked", "label"), [("1d", "1D"), ("1w", "1W"), ("1M", "1M"), ("15", "15m"), ("60", "1h"), ("4h", "4h")]
)
def test_the_interval_is_shown_as_traders_write_it(asked, label):
    """The interval of a month is shown as `M`, that of a minute as `m`."""
    assert read_options({}, symbol="IBM", timeframe=asked).timeframe.label == label


def test_overrides_change_colour_width_visibility_and_limits():
    """Chart-IMG's override keys work on every plot."""
    override = {
        "Plot.color": "rgba(1,2,3,0.5)",
        "Plot.linewidth": 3,
        "UpperLimit.value": 80,
        "LowerLimit.visible": False,
        "Plot.plottype": "line",
    }
    plan = plan_of(BARS, _study("Relative Strength Index", override=override))
    (drawn,) = plan.panes[1].studies
    assert (drawn.plots[0].color, drawn.plots[0].width) == ((1, 2, 3, 128), 3)
    assert [(level.key, level.value) for level in drawn.levels] == [("UpperLimit", 80), ("MiddleLimit", 50)]
    assert drawn.fills == ()


def test_a_hidden_plot_is_not_drawn():
    """A plot with `visible` false has no line, no legend value and no label."""
    found = plots_of(plan_of(BARS, _study("MACD", override={"Signal.visible": False})))
    assert {key for _, key in found} == {"Histogram", "MACD"}


def test_force_overlay_decides_the_place_of_a_study():
    """A study has the pane that Chart-IMG documents, unless the template lays it over the price."""
    for name in ("Volume", "MACD"):
        assert len(plan_of(BARS, _study(name)).panes) == 2
        assert len(plan_of(BARS, _study(name, forceOverlay=True)).panes) == 1


def test_a_smoothing_line_stays_hidden_as_in_the_api():
    """The inputs of a smoothing line appear in the legend only."""
    found = plots_of(plan_of(BARS, _study("On Balance Volume", input={"smoothingLength": 5})))
    assert set(found) == {("OBV SMA 5", "Plot")}


@pytest.mark.parametrize("offset", [3, -3])
def test_an_average_is_moved_by_its_offset(offset):
    """A positive offset moves an average to the right."""
    plain = plots_of(plan_of(BARS, _study("Moving Average")))["MA 9 close 0 SMA 9", "Plot"]
    moved = plots_of(plan_of(BARS, _study("Moving Average", input={"offset": offset})))
    values = moved[f"MA 9 close {offset} SMA 9", "Plot"]
    assert values[100 + offset] == plain[100]


def test_the_price_range_is_honoured():
    """The pane has the requested price range; a missing end follows the shown bars."""
    both = plan_of(BARS, {"override": {"priceRange": {"from": 150, "to": 250}}}).panes[0]
    assert both.scale.value(both.box[1]) == pytest.approx(250)
    assert both.scale.value(both.box[3] - 1) == pytest.approx(150)
    plan = plan_of(BARS, {"override": {"priceRange": {"from": 150, "margin": 0.1}}})
    pane = plan.panes[0]
    assert pane.scale.value(pane.box[1]) == pytest.approx(1.1 * plan.visible.high.max())


@pytest.mark.parametrize("height", [300, 300.0])
def test_the_main_pane_height_is_honoured(height):
    """The main pane has the requested height in pixels, also when that is stored as a double."""
    box = plan_of(BARS, _study("MACD") | {"override": {"mainPaneHeight": height}}).panes[0].box
    assert box[3] - box[1] == 300


def test_sizes_may_be_doubles():
    """A picture size that is stored as a double gives the picture of that size."""
    options = read_options({"width": 1000.0, "height": 500.0}, symbol="IBM", timeframe="1d")
    assert repr((options.width, options.height)) == "(1000, 500)"


@pytest.mark.parametrize(
    ("flag", "lost"), [("showLegend", "IBM · 1D"), ("showSeriesOHLC", "O"), ("showSeriesLastValue", "202.91")]
)
def test_parts_are_left_out_when_the_template_hides_them(flag, lost):
    """Legend, prices and last-value label are missing when the template hides them."""

    def texts(payload):
        marks = build_draw_list(plan_of(BARS, payload)).marks
        return [mark.text for mark in marks if hasattr(mark, "text")]

    payload = {"override": {"showSeriesOHLC": flag != "showSeriesLastValue"}}
    assert lost in texts(payload)
    assert lost not in texts({"override": payload["override"] | {flag: False}})


def test_a_level_that_is_null_has_its_defaults():
    """As an input or override that is null has."""
    ends = {"startDatetime": "2013-01-05", "startPrice": 190, "endDatetime": "2013-02-05", "endPrice": 205}
    fib = {"name": "Fib Retracement", "input": ends, "override": {"level1": None}}
    drawing = read_options({"drawings": [fib]}, symbol="IBM", timeframe="1d").drawings[0]
    assert drawing.levels[0]["visible"] is True


def test_the_widest_price_range_has_an_axis():
    """The ends of what is accepted are drawn."""
    plan = plan_of(BARS, {"override": {"priceRange": {"from": -1e15, "to": 1e15}}})
    assert plan.panes[0].axis.ticks


def test_a_sigma_near_zero_gives_equal_weights():
    """ALMA is then a simple average; the square of its width is no longer a number."""
    inputs = {"in_0": 9, "in_2": 1e-300}
    plan = plan_of(BARS, _study("Arnaud Legoux Moving Average", input=inputs))
    (plot,) = (plot for (title, _), plot in plots_of(plan).items() if title.startswith("ALMA"))
    assert plot[-1] == pytest.approx(sum(bar["close"] for bar in BARS[-9:]) / 9)
