"""Facts about the marks of a picture: no overlap, nothing outside its pane, correct values."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.charts.local_chart_samples import (
    CANDLE_FILES,
    TEMPLATES,
    bars_from_closes,
    bars_of,
    plan_of,
    request_of,
)
from worker_chart_export.charts.local.drawing.canvas import paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.layout.axes import Label, arrange_labels
from worker_chart_export.charts.local.layout.scale import Scale, ticks
from worker_chart_export.charts.local.primitives.colors import THEMES
from worker_chart_export.charts.local.primitives.marks import Dots, Rects, Strokes, Text, stroked_area
from worker_chart_export.charts.local.primitives.text import text_box

SIZES = [(400, 300), (800, 600), (1920, 1080)]
EVERYTHING = [
    {"name": "Moving Average Double"},
    {"name": "Bollinger Bands"},
    {"name": "Volume"},
    {"name": "Parabolic SAR"},
    {"name": "Volume Profile Visible Range"},
    {"name": "MACD"},
    {"name": "Stochastic RSI"},
]


def _overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(box, outer):
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]


def check_geometry(plan):
    """Check that texts do not overlap and that all texts and marks are inside the picture."""
    draw_list = build_draw_list(plan)
    picture = (0, 0, draw_list.width, draw_list.height)
    texts = [mark for mark in draw_list.marks if isinstance(mark, Text)]
    boxes = [text_box(text) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert _inside(box, picture), text
    for (one, box), (other, second) in combinations(zip(texts, boxes, strict=True), 2):
        assert not _overlap(box, second), (one, other)
    for mark in draw_list.marks:
        if isinstance(mark, Rects):
            assert all(_inside(box, picture) for box in mark.boxes)
        elif isinstance(mark, Dots):
            assert all(0 <= x < draw_list.width for x in mark.points[::2])
            assert all(0 <= y < draw_list.height for y in mark.points[1::2])
        elif isinstance(mark, Strokes):
            area = stroked_area(mark)
            assert area is None or _inside(area, mark.clip)
    check_labels(plan)
    check_legend(plan)


def check_labels(plan):
    """Check that filled labels do not overlap, stay in their pane, and are ordered by value."""
    for pane in plan.panes:
        rows = [label.row for label in pane.axis.labels]
        assert all(b - a >= 17 for a, b in pairwise(rows))
        top, bottom = pane.box[1], pane.box[3]
        assert all(top <= row - 8 and row + 9 <= bottom for row in rows)


def check_legend(plan):
    """Check that the legend is left of the axis and, on a scale of our own choice, above all bars."""
    for pane in plan.panes:
        for text in pane.legend:
            assert _inside(text_box(text), pane.box)
    foot = max((text_box(text)[3] for text in plan.panes[0].legend), default=0)
    scale = plan.panes[0].scale
    assert scale.row(float(plan.visible.high.max())) >= foot


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("name", CANDLE_FILES)
@pytest.mark.parametrize("template_id", TEMPLATES)
def test_nothing_overlaps_or_leaves_the_picture(template_id, name, theme, size):
    """The geometry holds for every template on every sample file, both themes, small and large."""
    symbol, timeframe = name.split("_")
    payload = request_of(template_id, theme=theme, width=size[0], height=size[1])
    check_geometry(plan_of(bars_of(name), payload, symbol=symbol, timeframe=timeframe))


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.floats(min_value=-0.2, max_value=0.25), min_size=1, max_size=150),
    price=st.sampled_from([1e-8, 0.02, 1.0, 250.0, 6e4, 1e6]),
    width=st.integers(min_value=400, max_value=1000),
    logarithmic=st.booleans(),
)
def test_nothing_overlaps_at_any_prices(steps, price, width, logarithmic):
    """The geometry holds for jumps, crashes, tiny and huge prices, few bars and seven studies."""
    closes = [price]
    for step in steps:
        closes.append(closes[-1] * (1 + step))
    scale = "logarithmic" if logarithmic else "regular"
    payload = {"studies": EVERYTHING, "width": width, "height": 600, "scale": scale, "theme": "dark"}
    check_geometry(plan_of(bars_from_closes(closes), payload, symbol="1000PEPEUSDT"))


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("style", ["candle", "hollowCandle", "bar", "line", "area"])
def test_a_young_history_is_drawn_as_far_as_it_goes(count, style):
    """A chart is drawn from any number of bars, even from one."""
    plan = plan_of(
        bars_from_closes([50.0 + n for n in range(count)]), {"studies": EVERYTHING, "style": style}
    )
    check_geometry(plan)
    assert plan.grid.count == count


@pytest.mark.parametrize("closes", [[7.0] * 150, [1e-8] * 150, [1e6] * 150])
def test_a_flat_market_is_drawn_in_the_middle(closes):
    """Equal prices get a range of their own and are drawn in the middle."""
    bars = bars_from_closes(closes, volume=0)
    for one in bars:
        one["high"] = one["low"] = one["close"]
    plan = plan_of(bars, {"studies": EVERYTHING})
    check_geometry(plan)
    box = plan.panes[0].box
    assert box[1] < plan.panes[0].scale.row(closes[0]) < box[3]


@pytest.mark.parametrize(
    ("minutes", "timeframe", "texts"),
    [
        (15, "15m", {"09:00", "12:00"}),
        (240, "4h", {"1 Feb 2024 20:00", "5"}),
        (1440, "1d", {"Aug 2024", "Sep"}),
    ],
)
def test_the_time_axis_has_hours_days_or_months(minutes, timeframe, texts):
    """The length of the bars decides whether the time axis shows hours, days or months."""
    bars = bars_from_closes([100.0] * 300, step=timedelta(minutes=minutes))
    marks = build_draw_list(plan_of(bars, {}, timeframe=timeframe)).marks
    assert texts <= {mark.text for mark in marks if isinstance(mark, Text)}


def test_a_day_before_the_first_month_names_its_own():
    """`13` before `Oct` would be read as a day of October."""
    plan = plan_of(bars_of(), {})
    marks = build_draw_list(plan).marks
    dates = [mark.text for mark in marks if isinstance(mark, Text) and mark.y > plan.panes[-1].box[3]]
    assert dates[:3] == ["14 Sep", "Oct", "11"]


def test_a_date_under_the_label_of_a_vertical_line_is_left_out():
    """Also one that the label covers in part."""
    line = {"name": "Vertical Line", "input": {"datetime": "2013-01-10T00:00:00Z"}}
    plan = plan_of(bars_of(), {"drawings": [line], "width": 480})
    texts = [mark for mark in build_draw_list(plan).marks if isinstance(mark, Text)]
    boxes = [text_box(text) for text in texts if text.y > plan.panes[-1].box[3]]
    assert len(boxes) > 4
    assert not any(_overlap(one, other) for one, other in combinations(boxes, 2))


def test_the_time_zone_moves_the_hours_of_short_bars_and_not_the_date_of_long_ones():
    """The time zone shifts the labels of short bars and keeps the dates of daily bars."""

    def dates(timeframe, step, **payload):
        plan = plan_of(bars_from_closes([100.0] * 200, step=step), payload, timeframe=timeframe)
        marks = build_draw_list(plan).marks
        found = [mark for mark in marks if isinstance(mark, Text) and mark.y > plan.panes[-1].box[3]]
        return [(mark.x, mark.text) for mark in found]

    def minutes(labels):
        return {text[-2:] for _, text in labels if ":" in text}

    assert minutes(dates("1h", timedelta(hours=1))) == {"00"}
    assert minutes(dates("1h", timedelta(hours=1), timezone="Asia/Kolkata")) == {"30"}
    day = timedelta(days=1)
    assert dates("1d", day, timezone="America/New_York") == dates("1d", day)


def test_the_legend_has_names_and_latest_values():
    """The legend has symbol, timeframe, prices, change, and each study with inputs and values."""
    bars = bars_of()
    plan = plan_of(bars, request_of("ctpl_price_ma1226_bb_macd1226_v1", symbol="NYSE:IBM"))
    said = " ".join(text.text for pane in plan.panes for text in pane.legend)
    last, before = bars[-1], bars[-2]
    change = last["close"] - before["close"]
    assert said.startswith("IBM · 1D O 200.65 H 202.94 L 199.36 C 202.91")
    assert f"+{change:.2f} (+{100 * change / before['close']:.2f}%)" in said
    average = sum(bar["close"] for bar in bars[-12:]) / 12
    assert f"MA Double 12 26 Simple {average:.2f}" in said
    assert "BB 20 2" in said
    assert "MACD 12 26 9 close" in said


def test_the_last_price_has_a_dotted_line_and_a_filled_label_in_its_colour():
    """The last close has a dotted line and a filled label in its colour, both at its row."""
    plan = plan_of(bars_of(), request_of("ctpl_price_ma1226_vol_v1"))
    row = round(plan.panes[0].scale.row(202.91))
    marks = build_draw_list(plan).marks
    (dots,) = [mark for mark in marks if isinstance(mark, Dots)]
    assert set(dots.points[1::2]) == {row}
    assert dots.color == THEMES["dark"].rising
    assert any(isinstance(mark, Text) and mark.text == "202.91" and mark.y == row for mark in marks)


def test_bands_and_stops_are_part_of_the_price_range():
    """The price range includes the bands and stops drawn over the price."""
    plan = plan_of(bars_of(), request_of("ctpl_price_ma1226_bb_macd1226_v1"))
    pane = plan.panes[0]
    for study in pane.studies:
        for plot in study.plots:
            rows = pane.scale.rows(plot.values[plan.grid.first :])
            assert pane.box[1] < rows.min() <= rows.max() < pane.box[3]


def test_a_profile_is_stronger_within_its_value_area():
    """Only the rows of the value area have the inside colours."""
    plan = plan_of(bars_of(), request_of("ctpl_price_vpvr_obv_v1"))
    (study,) = plan.panes[0].studies
    profile, scale = study.profile.profile, plan.panes[0].scale
    marks = [mark for mark in build_draw_list(plan).marks if isinstance(mark, Rects)]

    def middles(colors):
        boxes = [box for mark in marks if mark.color in colors for box in mark.boxes]
        assert boxes
        return [(box[1] + box[3]) / 2 for box in boxes]

    low, high = profile.area
    foot, head = scale.row(float(profile.edges[low])), scale.row(float(profile.edges[high]))
    assert all(head < row < foot for row in middles(study.profile.inside))
    assert all(not head < row < foot for row in middles(study.profile.outside))
    lines = [line for mark in build_draw_list(plan).marks if isinstance(mark, Strokes) for line in mark.lines]
    (control,) = [line for line in lines if line.color == study.profile.control.color]
    assert control.pieces[0][0][1] == pytest.approx(scale.row(profile.control_price), abs=1)


def test_hollow_candles_are_hollow_when_they_rose():
    """A rising hollow candle shows the background within its border, a falling one is filled."""
    hidden = {"showHorzGrid": False, "showVertGrid": False, "showPriceLine": False}
    plan = plan_of(bars_of(), {"style": "hollowCandle", "override": hidden})
    pixels = paint(build_draw_list(plan)).load()
    candles, scale = plan.visible, plan.panes[0].scale
    seen = set()
    for index, x in enumerate(plan.grid.centers):
        opening, close = float(candles.open[index]), float(candles.close[index])
        rows = sorted((scale.row(opening), scale.row(close)))
        if rows[1] - rows[0] > 6:
            middle = pixels[x, round(sum(rows) / 2)]
            assert (middle == (255, 255, 255)) == (close > opening)
            seen.add(close > opening)
    assert seen == {True, False}


def _marks_of(payload, kind):
    marks = build_draw_list(plan_of(bars_of(), payload)).marks
    return [mark for mark in marks if isinstance(mark, kind)]


def test_a_candle_with_a_border_of_its_colour_is_two_boxes():
    """Its wick and its body. A border of another colour is drawn for itself."""
    hidden = dict.fromkeys(("showHorzGrid", "showVertGrid", "showPriceLine"), False)
    plain, bordered = (
        sum(len(mark.boxes) for mark in _marks_of({"override": {**hidden, "style": style}}, Rects))
        for style in ({}, {"candleStyle.borderUpColor": "#000000"})
    )
    bars = plan_of(bars_of(), {}).grid.count
    assert plain < 2 * bars + 10
    assert bordered > 4 * bars


def test_a_dashed_level_is_one_line():
    """Its dashes are drawn at once."""
    strokes = _marks_of({"studies": [{"name": "Relative Strength Index"}]}, Strokes)
    dashed = [line for mark in strokes for line in mark.lines if len(line.pieces) > 1]
    assert len(dashed) == 3
    assert all(len(line.pieces) > 50 for line in dashed)


def test_ticks_end_even_where_the_range_is_smaller_than_the_smallest_step():
    """A range smaller than the smallest step gets at most one tick."""
    scale = Scale(low=-5e-24, high=0.0, top=10.0, bottom=90.0)
    values, _ = ticks(scale, (0, 0, 100, 100), gap=24, unit=1e-15)
    assert values in ([], [0.0])


@pytest.mark.parametrize("overlays", [6, 49])
def test_a_long_legend_leaves_room_for_the_prices(overlays):
    """It names the first studies and how many more there are; the prices get half of the pane."""
    studies = [{"name": "Bollinger Bands"}] * overlays
    plan = plan_of(bars_of(), {"studies": studies, "height": 300, "width": 400})
    pane = plan.panes[0]
    titles = [text.text for text in pane.legend if text.text.startswith(("BB", "+"))]
    named = titles.count("BB 20 2")
    assert named >= 3
    assert f"+{overlays - named} more" in titles
    assert pane.scale.bottom - pane.scale.top >= 0.5 * (pane.box[3] - pane.box[1])


def test_a_legend_hides_no_single_line():
    """The number of the other studies would need as much room as the name of the last one."""
    studies = [{"name": "Bollinger Bands"}] * 4
    plan = plan_of(bars_of(), {"studies": studies, "height": 300, "width": 400})
    assert [text.text for text in plan.panes[0].legend].count("BB 20 2") == 4


def test_a_logarithmic_scale_gives_equal_room_to_equal_ratios():
    """On a logarithmic scale the distance from 100 to 200 equals that from 200 to 400."""
    bars = bars_from_closes([100.0 * 1.02**n for n in range(150)])
    scale = plan_of(bars, {"scale": "logarithmic"}).panes[0].scale
    assert scale.row(100) - scale.row(200) == pytest.approx(scale.row(200) - scale.row(400))
    assert scale.row(scale.low) == pytest.approx(scale.bottom)
    assert scale.row(scale.high) == pytest.approx(scale.top)
    assert scale.value(scale.row(333.0)) == pytest.approx(333.0)
    assert scale.rows(np.array([100.0, 333.0])).tolist() == pytest.approx([scale.row(100), scale.row(333)])


labels_in_a_pane = st.lists(
    st.tuples(st.integers(min_value=-20, max_value=220), st.booleans()), min_size=1, max_size=14
)


@settings(max_examples=200, deadline=None)
@given(wanted=labels_in_a_pane)
def test_labels_are_moved_apart_and_keep_their_order(wanted):
    """As many labels as fit stay in the pane, without overlap and in the order of their values."""
    fixed = next((n for n, (_, is_fixed) in enumerate(wanted) if is_fixed), None)
    labels = [
        Label(row=row, text=str(row), color=(0, 0, 0, 255), fixed=n == fixed)
        for n, (row, _) in enumerate(wanted)
    ]
    placed = arrange_labels(labels, 0, 200, 17)
    assert [int(label.text) for label in placed] == sorted(int(label.text) for label in placed)
    assert all(b.row - a.row >= 17 for a, b in pairwise(placed))
    assert all(label.row - 8 >= 0 and label.row + 9 <= 200 for label in placed)
    for label in placed:
        if label.fixed and 8 <= int(label.text) <= 191:
            assert label.row == int(label.text)


def test_texts_and_lines_of_a_large_picture_are_larger():
    """A picture of 1920 x 1080 has larger texts and wider lines than one of 800 x 600."""

    def drawn(width, height):
        plan = plan_of(bars_of(), {"width": width, "height": height, "studies": [{"name": "MACD"}]})
        marks = build_draw_list(plan).marks
        sizes = {mark.size for mark in marks if isinstance(mark, Text)}
        widths = {line.width for mark in marks if isinstance(mark, Strokes) for line in mark.lines}
        return min(sizes), max(widths)

    assert drawn(800, 600) == (12, 1)
    assert drawn(1920, 1080) == (14, 1.5)
