"""One pane with everything in it, ready to become marks: what is drawn, on which scale, how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.layout.number_format import Writer, writer_for
from worker_chart_export.charts.local.layout.scale import FLAT, Scale, fitted, span
from worker_chart_export.charts.local.studies.study import Numbers, Place, PlotKind

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.chart_overrides import PriceRange
    from worker_chart_export.charts.local.primitives.marks import Box
    from worker_chart_export.charts.local.studies.study import Study

#: Part of the price pane that volume columns may fill from below.
_FLOOR = 0.2
_PRICE_FOOT = 0.07
_PRICE_FOOT_ABOVE_FLOOR = 0.17
_HEAD = 10
"""Free pixels between legend and drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """A pane and its value axis.

    Attributes:
        box: Where it is.
        scale: The axis's scale.
        writer: How the axis's values are written.
        studies: The studies on that scale, in the template's order.
    """

    box: Box
    scale: Scale
    writer: Writer
    studies: tuple[Study, ...]


def price_scale(
    visible: Candles, studies: list[Study], box: Box, legend: int, *, first: int, logarithmic: bool
) -> Scale:
    """The price axis: all bars shown and the studies over them, clear of the legend, mostly of the volume."""
    values = [visible.low, visible.high, *_values(studies, Place.PRICE, first)]
    ends = span(values, positive=logarithmic)
    has_floor = any(study.place is Place.FLOOR for study in studies)
    foot = (_PRICE_FOOT_ABOVE_FLOOR if has_floor else _PRICE_FOOT) * (box[3] - box[1])
    return fitted(ends, box, (legend + _HEAD, foot), logarithmic=logarithmic)


def fixed_price_scale(visible: Candles, wanted: PriceRange, box: Box, *, logarithmic: bool) -> Scale:
    """The price axis that the template fixed; an end left out follows the bars shown."""
    low, high = span([visible.low, visible.high])
    bottom = wanted.low if wanted.low is not None else min(low, wanted.high or low) * (1 - wanted.margin)
    top = wanted.high if wanted.high is not None else max(high, wanted.low or high) * (1 + wanted.margin)
    return fitted((bottom, top), box, (0, 0), logarithmic=logarithmic)


def floor_scale(study: Study, box: Box, first: int) -> Scale:
    """The scale of columns at the foot of the price pane; zero is the pane's edge."""
    highest = max(span([plot.values[first:] for plot in study.plots])[1], 0.0) or 1.0
    return Scale(low=0.0, high=highest, top=box[3] - _FLOOR * (box[3] - box[1]), bottom=box[3])


def study_pane(study: Study, box: Box, legend: int, *, first: int, decimals: int, price: float) -> Pane:
    """A study's own pane: its plots and limits, and zero where columns stand on it.

    A study of differences of prices (MACD) is flat when it moves by no more than those are rounded by.
    """
    values = [plot.values[first:] for plot in study.plots]
    fixed = [level.value for level in study.levels]
    if any(plot.kind is PlotKind.COLUMNS for plot in study.plots):
        fixed.append(0.0)
    noise = price * FLAT if study.numbers is Numbers.PRICE else 0.0
    ends = span([*values, np.array(fixed)], noise=noise)
    scale = fitted(ends, box, (legend + 4, 0.08 * (box[3] - box[1])), logarithmic=False)
    if study.numbers is Numbers.COMPACT and ends[0] == 0 and fixed:
        scale = Scale(low=0.0, high=scale.high, top=scale.top, bottom=box[3])
    writer = writer_for(study.numbers, decimals, ends[1] - ends[0])
    return Pane(box=box, scale=scale, writer=writer, studies=(study,))


def _values(studies: list[Study], place: Place, first: int) -> list[Series]:
    return [plot.values[first:] for study in studies if study.place is place for plot in study.plots]
