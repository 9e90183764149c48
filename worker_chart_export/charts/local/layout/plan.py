"""A chart's plan: studies computed, panes placed, scales and axes chosen; nothing drawn yet.

The bars shown depend on the width of the price axis, and that on the numbers shown. So the plan is made for a
narrow axis first and again for a wider one if some text does not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.layout.bars import BarGrid, bar_grid
from worker_chart_export.charts.local.layout.frame import Frame, frame
from worker_chart_export.charts.local.layout.labels import Label
from worker_chart_export.charts.local.layout.legend import Line, legend_texts, study_line, symbol_line
from worker_chart_export.charts.local.layout.number_format import Writer, price_decimals
from worker_chart_export.charts.local.layout.pane import (
    Pane,
    fixed_price_scale,
    floor_scale,
    price_scale,
    study_pane,
)
from worker_chart_export.charts.local.layout.price_axis import MIN_WIDTH, PriceAxis, price_axis
from worker_chart_export.charts.local.primitives.themes import THEMES, Theme
from worker_chart_export.charts.local.studies.catalogue import compute_study
from worker_chart_export.charts.local.studies.study import Numbers, Place, PlotKind, Study

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.options import ChartOptions
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPane:
    """One pane with its axis and its legend."""

    pane: Pane
    axis: PriceAxis
    legend: tuple[Text, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is drawn.

    Attributes:
        candles: The whole history.
        options: What the template asks for.
        theme: Colours.
        grid: The bars shown.
        frame: The areas of the picture.
        panes: The price pane, then the studies' own panes.
        floors: Studies at the foot of the price pane, each with its scale.
    """

    candles: Candles
    options: ChartOptions
    theme: Theme
    grid: BarGrid
    frame: Frame
    panes: tuple[PlannedPane, ...]
    floors: tuple[tuple[Study, Scale], ...]

    @property
    def visible(self) -> Candles:
        """The bars shown."""
        return self.candles.since(self.grid.first)


def make_plan(candles: Candles, options: ChartOptions, check: Callable[[], None]) -> Plan:
    """Plan a chart; `check` is called before each round of work and may raise.

    Raises:
        RenderFailed: A study, an input or an override can't be honoured, or there is no room.
    """
    axis_width = MIN_WIDTH
    while True:
        check()
        plan = _Planner(candles, options, axis_width).plan()
        needed = max(planned.axis.width for planned in plan.panes)
        if needed <= axis_width:
            return plan
        axis_width = needed


class _Planner:
    """One attempt at a plan, for a given width of the price axis."""

    def __init__(self, candles: Candles, options: ChartOptions, axis_width: int) -> None:
        self._candles, self._options = candles, options
        self._theme = THEMES[options.theme]
        self._shown = options.overrides.visible
        self._decimals = price_decimals(candles.close)
        self._price_writer = Writer(numbers=Numbers.PRICE, decimals=self._decimals)
        self._grid = bar_grid(len(candles), left=0, right=options.width - axis_width)
        studies = [compute_study(study, candles, self._grid.first) for study in options.studies]
        self._own = [study for study in studies if study.place is Place.PANE]
        self._overlays = [study for study in studies if study.place is not Place.PANE]
        self._frame = frame(
            (options.width, options.height),
            axis_width=axis_width,
            studies=len(self._own),
            main_height=options.overrides.main_pane_height,
        )

    def plan(self) -> Plan:
        """The whole plan."""
        box, first = self._frame.panes[0], self._grid.first
        floors = tuple(
            (study, floor_scale(study, box, first)) for study in self._overlays if study.place is Place.FLOOR
        )
        own = zip(self._own, self._frame.panes[1:], strict=True)
        return Plan(
            candles=self._candles,
            options=self._options,
            theme=self._theme,
            grid=self._grid,
            frame=self._frame,
            panes=(self._main(floors), *(self._study_pane(study, place) for study, place in own)),
            floors=floors,
        )

    def _main(self, floors: tuple[tuple[Study, Scale], ...]) -> PlannedPane:
        box = self._frame.panes[0]
        lines = [symbol_line(self._candles, self._options, self._theme, self._decimals)]
        lines += [self._study_line(study, self._writer(study)) for study in self._overlays]
        texts, height = legend_texts(lines if self._shown.legend else [], box)
        on_price = tuple(study for study in self._overlays if study.place is Place.PRICE)
        pane = Pane(box=box, scale=self._price_scale(height), writer=self._price_writer, studies=on_price)
        labels = self._price_labels(pane)
        for study in on_price:
            labels += self._labels(study, pane.scale, pane.writer)
        for study, scale in floors:
            labels += self._labels(study, scale, self._writer(study))
        return PlannedPane(pane=pane, axis=price_axis(pane, labels), legend=tuple(texts))

    def _price_scale(self, legend: int) -> Scale:
        visible, wanted = self._candles.since(self._grid.first), self._options.overrides.price_range
        box, logarithmic = self._frame.panes[0], self._options.logarithmic
        if wanted is not None:
            return fixed_price_scale(visible, wanted, box, logarithmic=logarithmic)
        return price_scale(
            visible, self._overlays, box, legend, first=self._grid.first, logarithmic=logarithmic
        )

    def _study_pane(self, study: Study, box: tuple[int, int, int, int]) -> PlannedPane:
        known = {"first": self._grid.first, "decimals": self._decimals}
        price = float(self._candles.close[-1])
        # The height of a legend depends on how values are written, and that on their range: two looks at it.
        writer = study_pane(study, box, 0, **known, price=price).writer
        lines = [self._study_line(study, writer)] if self._shown.legend else []
        texts, height = legend_texts(lines, box)
        pane = study_pane(study, box, height, **known, price=price)
        axis = price_axis(pane, self._labels(study, pane.scale, pane.writer))
        return PlannedPane(pane=pane, axis=axis, legend=tuple(texts))

    def _study_line(self, study: Study, writer: Writer) -> Line:
        return study_line(study, writer, self._theme, values=self._shown.legend_values)

    def _writer(self, study: Study) -> Writer:
        compact = study.numbers is Numbers.COMPACT
        return Writer(numbers=Numbers.COMPACT) if compact else self._price_writer

    def _price_labels(self, pane: Pane) -> list[Label]:
        if not self._shown.price_label:
            return []
        close = float(self._candles.close[-1])
        rising = close >= self._candles.open[-1]
        color = self._theme.rising if rising else self._theme.falling
        row = round(pane.scale.row(close))
        return [Label(row=row, text=pane.writer.value(close), color=color, fixed=True)]

    def _labels(self, study: Study, scale: Scale, writer: Writer) -> list[Label]:
        if not self._shown.study_labels:
            return []
        latest = [(plot, float(plot.values[-1])) for plot in study.plots]
        return [
            Label(row=round(scale.row(value)), text=writer.value(value), color=plot.color)
            for plot, value in latest
            if not math.isnan(scale.row(value)) and not (plot.kind is PlotKind.CROSSES and plot.width > 1)
        ]
