"""A study's plots, limits and fills as marks in one pane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.price_marks import dashed_row
from worker_chart_export.charts.local.primitives.marks import Polyline, Strokes, dots, filled, rects
from worker_chart_export.charts.local.studies.study import PlotKind

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Series
    from worker_chart_export.charts.local.layout.bars import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box, Mark, Point, Polygon
    from worker_chart_export.charts.local.studies.study import Fill, Plot, Study


class StudyArtist:
    """Draws studies into one pane.

    Args:
        grid: The pixel columns of the bars shown.
        scale: The scale the values are drawn on.
        pane: The pane's box; nothing is drawn outside.
    """

    def __init__(self, *, grid: BarGrid, scale: Scale, pane: Box) -> None:
        self._grid, self._scale, self._pane = grid, scale, pane
        self._centers = grid.centers

    def below(self, study: Study) -> list[Mark]:
        """What lies under lines and candles: tints between limits or lines, dashed limits, columns."""
        marks: list[Mark] = [*self._bands(study)]
        rows = {level.key: round(self._scale.row(level.value)) for level in study.levels}
        for fill in study.fills:
            if fill.upper in rows and fill.lower in rows:
                top, bottom = sorted((rows[fill.upper], rows[fill.lower]))
                marks.append(rects([(self._pane[0], top, self._pane[2], bottom)], fill.color, self._pane))
        marks += [dashed_row(rows[level.key], self._pane, level.color) for level in study.levels]
        for plot in study.plots:
            if plot.kind is PlotKind.COLUMNS:
                marks += self._columns(plot)
        return marks

    def above(self, studies: list[Study]) -> list[Mark]:
        """What lies over the candles: the lines, and on them the crosses."""
        plots = [plot for study in studies for plot in study.plots]
        lines = [line for plot in plots if plot.kind is PlotKind.LINE for line in self._line(plot)]
        strokes: list[Mark] = [Strokes(clip=self._pane, lines=tuple(lines))] if lines else []
        return strokes + [self._crosses(plot) for plot in plots if plot.kind is PlotKind.CROSSES]

    def _bands(self, study: Study) -> list[Polygon]:
        plots = {plot.key: plot for plot in study.plots}
        return [
            band
            for fill in study.fills
            if fill.upper in plots and fill.lower in plots
            for band in self._between(plots[fill.upper], plots[fill.lower], fill)
        ]

    def _rows(self, values: Series) -> list[float]:
        rows: list[float] = self._scale.rows(values[self._grid.first :]).tolist()
        return rows

    def _line(self, plot: Plot) -> list[Polyline]:
        return [
            Polyline(points=_visible(run), color=plot.color, width=plot.width)
            for run in _runs(self._centers, self._rows(plot.values))
        ]

    def _between(self, upper: Plot, lower: Plot, fill: Fill) -> list[Polygon]:
        tops = _runs(self._centers, self._rows(upper.values))
        bottoms = _runs(self._centers, self._rows(lower.values))
        return [
            filled((*top, *reversed(bottom)), fill.color, self._pane)
            for top, bottom in zip(tops, bottoms, strict=False)
            if len(top) == len(bottom) > 1
        ]

    def _crosses(self, plot: Plot) -> Mark:
        reach = 1 + round(plot.width)
        shape = [(step, 0) for step in range(-reach, reach + 1)]
        shape += [(0, step) for step in range(-reach, reach + 1) if step]
        middles = zip(self._centers, self._rows(plot.values), strict=True)
        found = [(x, round(row)) for x, row in middles if not math.isnan(row)]
        return dots([(x + dx, y + dy) for x, y in found for dx, dy in shape], plot.color, self._pane)

    def _columns(self, plot: Plot) -> list[Mark]:
        half, base = self._grid.body // 2, round(self._scale.row(0.0))
        shades: dict[int, list[Box]] = {shade: [] for shade in range(len(plot.palette))}
        visible = plot.shades[self._grid.first :]
        for x, row, shade in zip(self._centers, self._rows(plot.values), visible, strict=True):
            if not math.isnan(row):
                top, bottom = sorted((round(row), base))
                shades[shade].append((x - half, top, x + half + 1, max(bottom, top + 1)))
        return [rects(boxes, plot.palette[shade], self._pane) for shade, boxes in shades.items() if boxes]


def _runs(centers: list[int], rows: list[float]) -> list[list[Point]]:
    """The points of a line, split where a value is missing."""
    runs: list[list[Point]] = [[]]
    for x, row in zip(centers, rows, strict=True):
        if math.isnan(row):
            runs.append([])
        else:
            runs[-1].append((x + 0.5, row + 0.5))
    return [run for run in runs if run]


def _visible(run: list[Point]) -> tuple[Point, ...]:
    """A lone point becomes a short dash, else it would not be seen."""
    if len(run) > 1:
        return tuple(run)
    x, y = run[0]
    return (x - 2, y), (x + 2, y)
