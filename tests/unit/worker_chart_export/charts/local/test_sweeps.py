"""Nothing that is documented is ignored in silence: sweeps over the whole table.

Sending a documented default changes no pixel. Another value changes the picture, or is refused by name.
"""

from __future__ import annotations

from functools import cache, cached_property

import pytest

from tests.support.charts.local_chart_samples import raw_candles
from worker_chart_export.charts.catalogue import Kind, catalogue
from worker_chart_export.charts.local.drawing.canvas import paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.local.layout.plan import make_plan
from worker_chart_export.errors import RenderFailed

CANDLES = parse_candles(raw_candles(), symbol="IBM", timeframe="1d")
_BREAKS = "_with_breaks"
#: Overrides that show only with another one.
_TOGETHER = {
    f"{line}.{part}": {f"{line}.display": True}
    for line in ("Developing Poc", "Developing VA High", "Developing VA Low")
    for part in ("color", "linewidth", "plottype")
}
STUDIES = catalogue().studies


class _Picture:
    """A picture. It is painted only to compare it with one that has other marks."""

    __hash__ = None

    def __init__(self, draw_list):
        self._draw_list = draw_list

    @cached_property
    def _pixels(self):
        return paint(self._draw_list).tobytes()

    def __eq__(self, other):
        return self._draw_list == other._draw_list or self._pixels == other._pixels


def _picture(payload):
    options = read_options(payload, symbol="IBM", timeframe="1d")
    return _Picture(build_draw_list(make_plan(CANDLES, options, lambda: None)))


def _with_study(name, **parts):
    # The rare colours of the Chop Zone appear in a wide chart only.
    width = 2000 if name == "Chop Zone" else 800
    return {"width": width, "height": 400, "studies": [{"name": name, **parts}]}


@cache
def _plain(name):
    return _picture(_with_study(name))


def _other(parameter):
    """Return values that differ from the default and are documented.

    A plot without gaps looks the same with and without breaks, so these two types count as one.
    """
    default = parameter.default
    if parameter.choices:
        plain = str(default).removesuffix(_BREAKS)
        return [choice for choice in parameter.choices if str(choice).removesuffix(_BREAKS) != plain]
    match parameter.kind:
        case Kind.BOOLEAN:
            return [not default]
        case Kind.COLOR:
            return ["rgba(1,200,100,0.6)"]
        case Kind.INTEGER:
            high = 10**9 if parameter.high is None else parameter.high
            step = 900_000 if parameter.key.endswith(".value") else 3
            return [next(one for one in (default + step, default + 1, default - 1) if one <= high)]
        case Kind.FLOAT:
            high = 10**9 if parameter.high is None else parameter.high
            # Far enough to be seen on any scale, e.g. the zero line of a volume.
            return [default * 1.5 + 1e5 if default * 1.5 + 1e5 <= high else default * 1.5 + 0.25]
    raise AssertionError(parameter)


def _cases(part):
    return [
        pytest.param(name, key, parameter, id=f"{name}-{key}")
        for name, entry in STUDIES.items()
        for key, parameter in getattr(entry, part).items()
    ]


@pytest.mark.parametrize(("name", "key", "parameter"), _cases("inputs"))
def test_a_default_input_changes_no_pixel_and_another_one_does(name, key, parameter):
    """An input at its default changes nothing; any other value shows."""
    assert _picture(_with_study(name, input={key: parameter.default})) == _plain(name)
    for value in _other(parameter):
        assert _picture(_with_study(name, input={key: value})) != _plain(name), value


@pytest.mark.parametrize(("name", "key", "parameter"), _cases("overrides"))
def test_a_default_override_changes_no_pixel_and_another_one_does(name, key, parameter):
    """An override at its default changes nothing; any other value shows, or is refused by its path."""
    together = _TOGETHER.get(key, {})
    plain = _picture(_with_study(name, override=together)) if together else _plain(name)
    assert _picture(_with_study(name, override={**together, key: parameter.default})) == plain
    same = []
    for value in _other(parameter):
        try:
            if _picture(_with_study(name, override={**together, key: value})) == plain:
                same.append(value)
        except RenderFailed as error:
            assert key in error.message  # noqa: PT017  # either outcome is right
    assert same == []


#: TradingView draws the colours for up and down instead.
_REFUSED = ("borderColor", "wickColor")
_STYLE_CASES = [
    pytest.param(style, key, parameter, id=f"{style}-{key}")
    for style, parameters in catalogue().styles.items()
    for key, parameter in parameters.items()
]


@cache
def _plain_style(style):
    return _picture({"style": style})


@pytest.mark.parametrize(("style", "key", "parameter"), _STYLE_CASES)
def test_a_default_of_a_style_changes_no_pixel_and_another_value_does(style, key, parameter):
    """An override of a style at its default changes nothing; any other value shows, or is refused by name."""

    def drawn(value):
        return _picture({"style": style, "override": {"style": {key: value}}})

    assert drawn(parameter.default) == _plain_style(style)
    for value in _other(parameter):
        if key.endswith(_REFUSED) and style != "hiLo":
            with pytest.raises(RenderFailed, match=key):
                drawn(value)
        else:
            assert drawn(value) != _plain_style(style), value


_SPAN = {
    "startDatetime": "2012-12-10T00:00:00Z",
    "startPrice": 190.0,
    "endDatetime": "2013-01-30T00:00:00Z",
    "endPrice": 203.0,
}
_SPOT = {"datetime": "2012-12-24T00:00:00Z", "price": 197.0}
_POSITION = {"entryPrice": 195.0, "targetPrice": 203.0, "stopPrice": 190.0, **_SPAN}
_POSITION = {key: value for key, value in _POSITION.items() if key not in {"startPrice", "endPrice"}}
#: Inputs with which a drawing is well within the chart.
_DRAWN = {
    "Order Line": {"text": "BUY", "quantity": "0.25", "price": 198.0},
    "Horizontal Line": {"price": 197.0, "text": "Support"},
    "Vertical Line": {"datetime": _SPOT["datetime"], "text": "Xmas"},
    "Long Position": _POSITION,
    "Short Position": _POSITION | {"targetPrice": 190.0, "stopPrice": 203.0},
    "Arrow Mark Up": _SPOT | {"text": "Up"},
    "Arrow Mark Down": _SPOT | {"text": "Down"},
    "Text": _SPOT | {"text": "Note"},
    **dict.fromkeys(("Fib Retracement", "Date Range", "Date Price Range"), _SPAN),
    **{name: _SPAN | {"text": "Text"} for name in ("Trend Line", "Rectangle", "Arrow Marker", "Callout")},
}
#: Overrides that show only with others.
_SHOWN_WITH = {
    "Trend Line": {"showLabel": True},
    "Rectangle": {"showLabel": True},
    "Text": {"showBorder": True, "fillBackground": True},
    "Long Position": {"showStats": True},
    "Short Position": {"showStats": True},
}
_LEVEL = [{"visible": False}, {"coeff": 0.3}, {"color": "#ffffff"}]
_DRAWING_CASES = [
    pytest.param(name, key, parameter, id=f"{name}-{key}")
    for name, entry in catalogue().drawings.items()
    for key, parameter in entry.overrides.items()
]


def _drawing(name, *, inputs=None, override=None):
    entry = {"name": name, "input": _DRAWN[name] | (inputs or {})}
    return _picture({"drawings": [entry | {"override": _SHOWN_WITH.get(name, {}) | (override or {})}]})


@cache
def _plain_drawing(name):
    return _drawing(name)


@pytest.mark.parametrize("name", list(catalogue().drawings))
def test_every_drawing_is_drawn_and_every_input_counts(name):
    """A drawing changes the picture, and so does another value of each of its inputs."""
    assert _plain_drawing(name) != _picture({})
    for key, value in _DRAWN[name].items():
        if isinstance(value, float):
            other = value + 2
        else:
            other = "2013-01-02T00:00:00Z" if "atetime" in key else f"{value}!"
        assert _drawing(name, inputs={key: other}) != _plain_drawing(name), key


@pytest.mark.parametrize(("name", "key", "parameter"), _DRAWING_CASES)
def test_a_default_of_a_drawing_changes_no_pixel_and_another_value_does(name, key, parameter):
    """An override of a drawing at its default changes nothing; any other value shows."""
    if key not in _SHOWN_WITH.get(name, {}):
        assert _drawing(name, override={key: parameter.default}) == _plain_drawing(name)
    shown = _SHOWN_WITH.get(name, {}).get(key, parameter.default)
    for value in [not shown] if parameter.kind is Kind.BOOLEAN else _other(parameter):
        assert _drawing(name, override={key: value}) != _plain_drawing(name), value


@pytest.mark.parametrize("change", _LEVEL)
def test_a_level_of_a_retracement_can_be_changed(change):
    """Visibility, coefficient and colour of a level count."""
    assert _drawing("Fib Retracement", override={"level3": change}) != _plain_drawing("Fib Retracement")


def test_the_z_order_puts_a_drawing_above_another():
    """Of two drawings that overlap, `zOrder` decides which one is seen."""
    areas = [
        {
            "name": "Rectangle",
            "input": _SPAN,
            "override": {"backgroundColor": color, "lineColor": color},
        }
        for color in ("#ff0000", "#00ff00")
    ]
    plain = _picture({"drawings": areas})
    assert _picture({"drawings": [areas[0] | {"zOrder": "top"}, areas[1]]}) != plain
    assert _picture({"drawings": [areas[0], areas[1] | {"zOrder": "bottom"}]}) != plain
    assert _picture({"drawings": [areas[0], areas[1] | {"zOrder": "top"}]}) == plain


_FIELDS = {
    "theme": ["dark"],
    "style": ["bar", "line", "area", "heikinAshi", "hollowCandle", "baseline", "hiLo", "column"],
    "scale": ["percent", "indexedTo100", "logarithmic"],
    "width": [801],
    "height": [601],
    "range": ["1D", "5D", "1M", "3M", "6M", "1Y", "DTD", "WTD", "MTD", "YTD", "ALL"],
    "shiftLeft": [1, 30],
    "shiftRight": [1, 30],
    "watermark": ["mine"],
    "interval": ["1W", "1M", "2D"],
}
_OVERRIDES = {
    "scalesFontSize": [10, 20],
    "mainPaneHeight": [200],
    "priceRange": [{"from": 150}, {"to": 250}, {"from": 150, "margin": 0.1}],
}


@pytest.mark.parametrize(("key", "values"), _FIELDS.items())
def test_a_default_of_a_field_changes_no_pixel_and_another_value_does(key, values):
    """A field of the request at its default changes nothing; any other value shows."""
    parameter = catalogue().request[key]
    if parameter.default is not None:
        assert _picture({key: parameter.default}) == _picture({})
    for value in values:
        assert _picture({key: value}) != _picture({}), value


@pytest.mark.parametrize(("key", "values"), _OVERRIDES.items())
def test_an_override_of_the_chart_shows(key, values):
    """An override of the chart changes the picture; at its default it changes nothing."""
    plain, default = _picture(_with_study("MACD")), catalogue().override[key].default
    if default is not None:
        assert _picture(_with_study("MACD") | {"override": {key: default}}) == plain
    for value in values:
        assert _picture(_with_study("MACD") | {"override": {key: value}}) != plain, value


@pytest.mark.parametrize(("key", "value"), [("watermarkSize", 64), ("watermarkOpacity", 0.3)])
def test_the_look_of_a_watermark_shows(key, value):
    """Size and opacity of a watermark count."""
    assert _picture({"watermark": "mine", key: value}) != _picture({"watermark": "mine"})


@pytest.mark.parametrize("key", [key for key in catalogue().override if key.startswith("show")])
def test_a_default_of_a_switch_changes_no_pixel_and_its_opposite_does(key):
    """A switch at its default changes nothing; its opposite shows."""
    default = catalogue().override[key].default

    def drawn(value):
        return _picture(_with_study("MACD") | {"override": {key: value}})

    assert drawn(default) == _picture(_with_study("MACD"))
    assert drawn(not default) != drawn(default)
