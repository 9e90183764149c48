"""Plan a chart: compute studies, place panes, choose scales and axes. Nothing is drawn yet.

The bars shown depend on the width of the price axis, and that width depends on the values shown. So the plan
is made for a narrow axis first, and again for a wider one if a text does not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.input.resample import regular_hours, resampled
from worker_chart_export.charts.local.layout.axes import MIN_AXIS_WIDTH, Label, PriceAxis, price_axis
from worker_chart_export.charts.local.layout.frame import BarGrid, bar_grid, pane_boxes
from worker_chart_export.charts.local.layout.legend import (
    Line,
    fitting_lines,
    legend_texts,
    study_line,
    symbol_line,
)
from worker_chart_export.charts.local.layout.number_format import Writer, price_decimals, writer_for
from worker_chart_export.charts.local.layout.scale import FLAT, Scale, fitted, span
from worker_chart_export.charts.local.layout.sizes import Sizes, sizes_of
from worker_chart_export.charts.local.layout.window import asked_bars
from worker_chart_export.charts.local.primitives.colors import THEMES, Theme
from worker_chart_export.charts.local.studies.compute import compute_study, depends_on_window
from worker_chart_export.charts.local.studies.study import Numbers, Place, PlotType, Study
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.options import ChartOptions, DrawingRequest
    from worker_chart_export.charts.local.primitives.marks import Box, Text

#: Scales that count from the first bar shown.
RELATIVE_SCALES = ("percent", "indexedTo100")
#: Part of the price pane's height that volume columns may fill.
_FLOOR = 0.2
#: Free part of the price pane's height below the prices, without and with volume columns there.
_MARGIN, _MARGIN_ABOVE_FLOOR = 0.07, 0.17
#: Free pixels between the legend and the prices, and between the legend and a study in its own pane.
_LEGEND_GAP, _STUDY_LEGEND_GAP = 10, 4
_STUDY_MARGIN = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """One pane with its value axis and its legend.

    Attributes:
        box: Its area.
        scale: The scale of the axis.
        studies: The studies on that scale, in the template's order.
        axis: The values and labels on the axis.
        legend: The texts in its upper left corner.
    """

    box: Box
    scale: Scale
    studies: tuple[Study, ...]
    axis: PriceAxis
    legend: tuple[Text, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is drawn.

    Attributes:
        candles: The whole history.
        visible: The bars shown.
        options: The template's options.
        theme: Colours.
        grid: The pixel columns of the bars shown.
        panes: The price pane, if the template shows it, then the studies' own panes.
        price_color: Colour of the last price's line and label.
        price_writer: Writes prices.
        sizes: The sizes of texts and lines.
        floors: Studies at the lower edge of the price pane, each with its own scale.
        studies: All studies drawn, in the template's order.
    """

    candles: Candles
    visible: Candles
    options: ChartOptions
    theme: Theme
    grid: BarGrid
    panes: tuple[Pane, ...]
    price_color: Color
    price_writer: Writer
    sizes: Sizes
    floors: tuple[tuple[Study, Scale], ...]
    studies: tuple[Study, ...]


def price_color(style: str, look: Mapping[str, Any], *, rising: bool) -> Color:
    """Return the colour of the last price's line and label."""
    key = {
        "line": "color",
        "area": "linecolor",
        "hiLo": "color",
        "baseline": "topLineColor" if rising else "bottomLineColor",
    }.get(style, "upColor" if rising else "downColor")
    color: Color = look[key]
    return color


def drawing_prices(drawings: Sequence[DrawingRequest]) -> Iterator[tuple[float, Color]]:
    """Yield the prices of drawings that have a label on the price axis, with its colour."""
    for drawing in drawings:
        look, inputs = drawing.look, drawing.inputs
        if drawing.name == "Horizontal Line" and look["showPrice"]:
            yield inputs["price"], look["lineColor"]
        elif drawing.name in {"Long Position", "Short Position"} and look["showPrice"]:
            yield inputs["entryPrice"], look["lineColor"]
            yield inputs["targetPrice"], look["profitBackground"]
            yield inputs["stopPrice"], look["stopBackground"]


def _check_above_zero(shown: Candles) -> None:
    below = np.flatnonzero(shown.low <= 0)
    if below.size:
        raise RenderFailed(
            f"`scale` logarithmic can't show prices below zero, as on {shown.dates[below[0]]:%Y-%m-%d}.",
            field="scale",
        )


def make_plan(candles: Candles, options: ChartOptions, check: Callable[[], None]) -> Plan:
    """Plan a chart; `check` is called before each attempt and may raise.

    Raises:
        OhlcvUnavailable: The bars that the template asks for can't be made of the candles.
        RenderFailed: A study, an input or an override can't be drawn here, or there is no room.
    """
    candles = regular_hours(candles) if options.session == "regular" else candles
    candles = resampled(candles, options.timeframe, options.zone)
    candles, count = asked_bars(candles, options)
    decimals = price_decimals(candles.close)
    if options.style == "heikinAshi":
        # As on TradingView, studies and the last price follow the averaged bars too.
        candles = candles.heikin_ashi()
    check()
    studies = [
        None if depends_on_window(request) else compute_study(request, candles) for request in options.studies
    ]
    axis_width = MIN_AXIS_WIDTH
    while True:
        check()
        plan = _Planner(candles, options, axis_width, decimals, studies, count).plan()
        needed = max(pane.axis.width for pane in plan.panes)
        if needed <= axis_width:
            return plan
        axis_width = needed


class _Planner:
    """One attempt at a plan, for a given width of the price axis."""

    def __init__(
        self,
        candles: Candles,
        options: ChartOptions,
        axis_width: int,
        decimals: int,
        studies: Sequence[Study | None],
        count: int | None,
    ) -> None:
        self._candles, self._options, self._studies = candles, options, studies
        self._right = options.width - axis_width
        self._theme = THEMES[options.theme]
        self._sizes = sizes_of(options)
        warm_up = max((study.faint_until for study in studies if study), default=0)
        self._grid = bar_grid(
            len(candles), self._right, warm_up=warm_up, count=count, free=options.shift_right
        )
        self._first = self._grid.first
        self._visible = candles.since(self._first)
        self._shown = options.visible
        rising = bool(candles.close[-1] >= candles.open[-1])
        self._price_color = price_color(options.style, options.look, rising=rising)
        self._price_writer = Writer(numbers=Numbers.PRICE, decimals=decimals)

    def plan(self) -> Plan:
        options = self._options
        studies = [
            study or compute_study(request, self._candles, self._first)
            for request, study in zip(options.studies, self._studies, strict=True)
        ]
        own = [study for study in studies if study.place is Place.PANE]
        overlays = [study for study in studies if study.place is not Place.PANE]
        if not self._shown.main_pane:
            return self._studies_alone(own)
        height = options.height - self._sizes.time_axis_height
        main_height = options.main_pane_height
        boxes = pane_boxes(self._right, height, studies=len(own), main_height=main_height)
        box = boxes[0]
        beside = [study for study in overlays if study.place is not Place.PRICE]
        floors = [(study, self._own_scale(study, box)) for study in beside]
        panes = [self._price_pane(overlays, floors, box)]
        panes += [self._study_pane(study, box) for study, box in zip(own, boxes[1:], strict=True)]
        return self._plan(panes, floors, studies)

    def _studies_alone(self, own: list[Study]) -> Plan:
        """Plan a chart without the price: the studies' panes share the picture."""
        if not own:
            raise RenderFailed("`showMainPane` false leaves nothing to draw.", field="showMainPane")
        height = self._options.height - self._sizes.time_axis_height
        boxes = pane_boxes(self._right, height, studies=len(own), main_height=None, has_main=False)
        panes = [self._study_pane(study, box) for study, box in zip(own, boxes, strict=True)]
        return self._plan(panes, [], own)

    def _plan(self, panes: list[Pane], floors: list[tuple[Study, Scale]], studies: list[Study]) -> Plan:
        return Plan(
            candles=self._candles,
            visible=self._visible,
            options=self._options,
            theme=self._theme,
            grid=self._grid,
            panes=tuple(panes),
            price_color=self._price_color,
            price_writer=self._price_writer,
            sizes=self._sizes,
            floors=tuple(floors),
            studies=tuple(studies),
        )

    def _own_scale(self, study: Study, box: Box) -> Scale:
        """Return the scale of a study that is drawn over the price but not on its scale."""
        levels = np.array([level.value for level in study.levels])
        ends = span([*(plot.values[self._first :] for plot in study.plots), levels])
        if study.place is Place.FLOOR:
            top = box[3] - _FLOOR * (box[3] - box[1])
            return Scale(low=0.0, high=max(ends[1], 0.0) or 1.0, top=top, bottom=box[3])
        margin = _MARGIN * (box[3] - box[1])
        return fitted(ends, box, (margin, margin), logarithmic=False)

    def _price_pane(self, overlays: list[Study], floors: list[tuple[Study, Scale]], box: Box) -> Pane:
        theme, writer, close = self._theme, self._price_writer, float(self._candles.close[-1])
        axis_writer = self._axis_writer()
        compact, values = Writer(numbers=Numbers.COMPACT), self._shown.legend_values
        lines = [self._symbol_line()]
        for study in overlays:
            study_writer = compact if study.numbers is Numbers.COMPACT else writer
            lines.append(study_line(study, study_writer, theme, values=values))
        lines = fitting_lines(lines, box, self._sizes, theme) if self._shown.legend else []
        legend, height = legend_texts(lines, box, self._sizes)
        scale = self._price_scale(overlays, box, height)
        scale = scale.upside_down() if self._options.inverted else scale
        labels: list[Label] = []
        if self._shown.price_label:
            row = round(scale.row(close))
            name = self._options.symbol if self._shown.symbol_labels else ""
            text = axis_writer.value(close)
            labels.append(Label(row=row, text=text, color=self._price_color, fixed=True, name=name))
        studies = tuple(study for study in overlays if study.place is Place.PRICE)
        for study in studies:
            labels += self._labels(study, scale, axis_writer)
        for study, floor in floors:
            labels += self._labels(study, floor, compact if study.numbers is Numbers.COMPACT else writer)
        for price, color in drawing_prices(self._options.drawings):
            place = scale.row(price)
            if not math.isnan(place):
                labels.append(Label(row=round(place), text=axis_writer.value(price), color=color))
        axis = price_axis(box, scale, axis_writer, labels, sizes=self._sizes)
        return Pane(box=box, scale=scale, studies=studies, axis=axis, legend=legend)

    def _symbol_line(self) -> Line:
        return symbol_line(self._candles, self._options, self._theme, self._price_writer.decimals)

    def _axis_writer(self) -> Writer:
        """Return the writer of the price axis; a relative scale starts at the first bar shown."""
        if self._options.scale not in RELATIVE_SCALES:
            return self._price_writer
        # As in TradingView's library, a first price below zero counts as minus 100, so that up stays up.
        first, percent = float(self._visible.close[0]), self._options.scale == "percent"
        factor = 100 / abs(first)
        shift, suffix = (-math.copysign(100.0, first), "%") if percent else (0.0, "")
        return Writer(numbers=Numbers.PLAIN, factor=factor, shift=shift, suffix=suffix)

    def _price_scale(self, overlays: list[Study], box: Box, legend: int) -> Scale:
        """Show all bars and the studies over them below the legend, or the range that the template fixed."""
        visible, fixed = self._visible, self._options.price_range
        logarithmic = self._options.logarithmic
        if logarithmic:
            _check_above_zero(visible)
        if fixed is not None:
            low, high = span([visible.low, visible.high])
            lowest = low if fixed.high is None else min(low, fixed.high)
            highest = high if fixed.low is None else max(high, fixed.low)
            bottom = lowest - abs(lowest) * fixed.margin if fixed.low is None else fixed.low
            top = highest + abs(highest) * fixed.margin if fixed.high is None else fixed.high
            if logarithmic and bottom <= 0:
                raise RenderFailed(
                    f"`override.priceRange` begins at {bottom:g}; a logarithmic scale needs more than 0.",
                    field="priceRange",
                )
            return fitted((bottom, top), box, (0, 0), logarithmic=logarithmic)
        on_price = [study for study in overlays if study.place is Place.PRICE]
        values = [plot.values[self._first :] for study in on_price for plot in study.plots]
        ends = span([visible.low, visible.high, *values], positive=logarithmic)
        has_floor = any(study.place is Place.FLOOR for study in overlays)
        margin = _MARGIN_ABOVE_FLOOR if has_floor else _MARGIN
        margins = (legend + _LEGEND_GAP, margin * (box[3] - box[1]))
        return fitted(ends, box, margins, logarithmic=logarithmic)

    def _study_pane(self, study: Study, box: Box) -> Pane:
        """Show a study's plots and limits, and zero if columns start there.

        A study of differences of prices (MACD) counts as flat if it moves by less than the prices' rounding.
        """
        levels = [level.value for level in study.levels]
        if any(plot.type in (PlotType.COLUMNS, PlotType.HISTOGRAM) for plot in study.plots):
            levels.append(0.0)
        noise = abs(float(self._candles.close[-1])) * FLAT if study.numbers is Numbers.PRICE else 0.0
        values = [plot.values[self._first :] for plot in study.plots]
        ends = span([*values, np.array(levels)], noise=noise)
        writer = writer_for(study.numbers, self._price_writer.decimals, ends[1] - ends[0])
        line = study_line(study, writer, self._theme, values=self._shown.legend_values)
        lines = [line] if self._shown.main_pane or box[1] else [self._symbol_line(), line]
        legend, height = legend_texts(lines if self._shown.legend else [], box, self._sizes)
        margins = (height + _STUDY_LEGEND_GAP, _STUDY_MARGIN * (box[3] - box[1]))
        scale = fitted(ends, box, margins, logarithmic=False)
        if study.numbers is Numbers.COMPACT and ends[0] == 0 and levels:
            scale = Scale(low=0.0, high=scale.high, top=scale.top, bottom=box[3])
        scale = scale.upside_down() if self._options.inverted_studies else scale
        limits = [level.value for level in study.levels]
        labels = self._labels(study, scale, writer)
        axis = price_axis(box, scale, writer, labels, sizes=self._sizes, levels=limits)
        return Pane(box=box, scale=scale, studies=(study,), axis=axis, legend=legend)

    def _labels(self, study: Study, scale: Scale, writer: Writer) -> list[Label]:
        if not self._shown.study_labels:
            return []
        latest = [(plot, float(plot.values[-1])) for plot in study.plots]
        colors = [plot.color for plot in study.plots]
        return [
            Label(
                row=round(scale.row(value)),
                text=writer.value(value),
                color=plot.color,
                # Without a name, values in one colour can't be told apart.
                name=plot.key if self._shown.study_names or colors.count(plot.color) > 1 else "",
            )
            for plot, value in latest
            if not math.isnan(scale.row(value))
        ]
