"""Studies as marks in one pane: fills and levels first, then columns, areas, lines, crosses and triangles."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.drawing.lines import at_least_two, polyline
from worker_chart_export.charts.local.primitives.colors import with_opacity
from worker_chart_export.charts.local.primitives.marks import Strokes, dots, filled, rects
from worker_chart_export.charts.local.studies.study import PlotType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box, Mark, Point
    from worker_chart_export.charts.local.studies.study import Fill, Level, Plot, Study

_STEPS = (PlotType.STEP_LINE, PlotType.STEP_LINE_WITH_BREAKS)
_AREAS = (PlotType.AREA, PlotType.AREA_WITH_BREAKS)
_LINES = (PlotType.LINE, PlotType.LINE_WITH_BREAKS, *_STEPS, *_AREAS)
_BROKEN = (PlotType.LINE_WITH_BREAKS, PlotType.STEP_LINE_WITH_BREAKS, PlotType.AREA_WITH_BREAKS)
_COLUMNS = (PlotType.COLUMNS, PlotType.HISTOGRAM)
#: Opacity of the part of a line that depends on bars older than the file, and of an area under a line.
_FAINT, _AREA = 0.4, 0.3
#: Distance of a triangle from its value, and half of its width, in pixels.
_TRIANGLE_GAP, _TRIANGLE = 4, 4


class StudyArtist:
    """Draws studies into one pane.

    Args:
        grid: The pixel columns of the bars shown.
        scale: The scale of the studies' values.
        pane: The pane's box; nothing is drawn outside.
    """

    def __init__(self, *, grid: BarGrid, scale: Scale, pane: Box) -> None:
        self._grid, self._scale, self._pane = grid, scale, pane

    def below(self, study: Study) -> list[Mark]:
        """Draw the parts below lines and candles: fills, levels, columns and areas."""
        marks: list[Mark] = []
        plots = {plot.key: plot for plot in study.plots}
        rows = {level.key: round(self._scale.row(level.value)) for level in study.levels}
        for fill in study.fills:
            if fill.upper in plots and fill.lower in plots:
                marks += self._between(fill, plots[fill.upper], plots[fill.lower])
            elif fill.upper in rows and fill.lower in rows:
                upper, lower = sorted((rows[fill.upper], rows[fill.lower]))
                marks.append(rects([(self._pane[0], upper, self._pane[2], lower)], fill.color, self._pane))
        marks += [self._level(level) for level in study.levels]
        for plot in study.plots:
            if plot.type in _COLUMNS:
                marks += self._columns(plot)
            elif plot.type in _AREAS:
                marks += self._areas(plot)
        return marks

    def above(self, studies: Sequence[Study]) -> list[Mark]:
        """Draw the parts above the candles: the lines, and above them crosses, circles and triangles."""
        lines = tuple(
            polyline(at_least_two(run), color=color, width=plot.width)
            for study in studies
            for plot in study.plots
            if plot.type in _LINES
            for run, color in self._runs(plot, study.faint_until)
        )
        marks: list[Mark] = [Strokes(clip=self._pane, lines=lines)] if lines else []
        for study in studies:
            for plot in study.plots:
                if plot.type in (PlotType.CROSS, PlotType.CIRCLES):
                    marks.append(self._spots(plot))
                elif plot.type in (PlotType.TRIANGLE_UP, PlotType.TRIANGLE_DOWN):
                    marks += self._triangles(plot)
        return marks

    def _points(self, plot: Plot) -> list[Point]:
        """Return the points of a plot, from the first bar shown to the last future one."""
        rows = [*self._rows(plot), *self._scale.rows(plot.future).tolist()]
        columns = [*self._grid.centers, *map(self._grid.center, range(self._grid.count, len(rows)))]
        return [(x + 0.5, row + 0.5) for x, row in zip(columns, rows, strict=True)]

    def _rows(self, plot: Plot) -> list[float]:
        rows: list[float] = self._scale.rows(plot.values[self._grid.first :]).tolist()
        return rows

    def _level(self, level: Level) -> Mark:
        row = round(self._scale.row(level.value)) + 0.5
        points = ((self._pane[0], row), (self._pane[2], row))
        line = polyline(points, color=level.color, width=level.width, style=level.style)
        return Strokes(clip=self._pane, lines=(line,))

    def _runs(self, plot: Plot, faint_until: int) -> list[tuple[list[Point], Color]]:
        """Return the pieces of a line with their colours.

        A plain line joins the values beside a gap. A line with breaks does not.
        """
        pieces: list[tuple[list[Point], Color]] = []
        faint, joined = faint_until - self._grid.first, False
        for index, point in [*self._point_before(plot), *enumerate(self._points(plot))]:
            if math.isnan(point[1]):
                joined = joined and plot.type not in _BROKEN
                continue
            color = self._color(plot, index, faint=index < faint)
            before = pieces[-1][0][-1] if joined else None
            corner = [(point[0], before[1]), point] if before and plot.type in _STEPS else [point]
            if before and pieces[-1][1] == color:
                pieces[-1][0].extend(corner)
            else:
                pieces.append(([before, *corner] if before else corner, color))
            joined = True
        return pieces

    def _point_before(self, plot: Plot) -> list[tuple[int, Point]]:
        """Return the last value before the bars shown, if a plain line goes on from there over a gap."""
        first = self._grid.first
        if plot.type in _BROKEN or first == 0 or not math.isnan(plot.values[first]):
            return []
        defined = np.flatnonzero(~np.isnan(plot.values[:first]))
        if not defined.size:
            return []
        index = int(defined[-1]) - first
        row = self._scale.row(float(plot.values[defined[-1]]))
        return [(index, (self._grid.center(index) + 0.5, row + 0.5))]

    def _color(self, plot: Plot, index: int, *, faint: bool = False) -> Color:
        color = plot.color
        if plot.palette and plot.shades is not None:
            color = plot.palette[int(plot.shades[min(self._grid.first + index, len(plot.shades) - 1)])]
        return with_opacity(color, color[3] / 255 * _FAINT) if faint else color

    def _between(self, fill: Fill, upper: Plot, lower: Plot) -> list[Mark]:
        """Fill the area between two plots; a new piece begins after a gap and where the plots cross."""
        marks: list[Mark] = []
        run: list[tuple[Point, Point]] = []
        pairs = zip(self._points(upper), self._points(lower), strict=False)
        whole = [pair for pair in pairs if not (math.isnan(pair[0][1]) or math.isnan(pair[1][1]))]
        for before, pair in pairwise(whole):
            if pair[0][0] - before[0][0] > 1.5 * self._grid.pitch:
                marks += self._filled(fill, run)
                run = []
                continue
            run = [*(run or [before]), pair]
            if (pair[0][1] <= pair[1][1]) != (before[0][1] <= before[1][1]):
                marks += self._filled(fill, run)
                run = [pair]
        return marks + self._filled(fill, run)

    def _filled(self, fill: Fill, run: list[tuple[Point, Point]]) -> list[Mark]:
        if len(run) < 2:  # noqa: PLR2004  # one bar has no area
            return []
        above = sum(bottom[1] - top[1] for top, bottom in run) >= 0
        color = fill.color if above or fill.color_below is None else fill.color_below
        outline = (*(top for top, _ in run), *(bottom for _, bottom in reversed(run)))
        return [filled(outline, color, self._pane)]

    def _areas(self, plot: Plot) -> list[Mark]:
        """Fill from a line to zero."""
        base = self._scale.row(0.0)
        base = float(self._pane[3]) if math.isnan(base) else base + 0.5
        return [
            filled(
                (*run, (run[-1][0], base), (run[0][0], base)),
                with_opacity(color, color[3] / 255 * _AREA),
                self._pane,
            )
            for run, color in self._runs(plot, 0)
            if len(run) > 1
        ]

    def _columns(self, plot: Plot) -> list[Mark]:
        """Draw columns from zero: as wide as a candle, or as the line of a histogram."""
        is_histogram = plot.type is PlotType.HISTOGRAM
        left = (round(plot.width) - 1) // 2 if is_histogram else self._grid.body // 2
        right = round(plot.width) - left if is_histogram else self._grid.body // 2 + 1
        zero = self._scale.row(0.0)
        base = self._pane[3] if math.isnan(zero) else round(zero)
        boxes: dict[Color, list[Box]] = {}
        centers = self._grid.centers
        for index, row in enumerate(self._rows(plot)):
            if not math.isnan(row):
                top, bottom = sorted((round(row), base))
                x = centers[index]
                box = (x - left, top, x + right, max(bottom, top + 1))
                boxes.setdefault(self._color(plot, index), []).append(box)
        return [rects(same, color, self._pane) for color, same in boxes.items()]

    def _spots(self, plot: Plot) -> Mark:
        """Draw a cross or a disc at each value."""
        arm = 1 + round(plot.width)
        reach = range(-arm, arm + 1)
        if plot.type is PlotType.CROSS:
            shape = [(step, 0) for step in reach] + [(0, step) for step in reach if step]
        else:
            shape = [(x, y) for x in reach for y in reach if x * x + y * y <= arm * arm]
        middles = [(int(x), round(y - 0.5)) for x, y in self._points(plot) if not math.isnan(y)]
        return dots([(x + dx, y + dy) for x, y in middles for dx, dy in shape], plot.color, self._pane)

    def _triangles(self, plot: Plot) -> list[Mark]:
        """Draw a triangle above or below each value."""
        up = -1 if plot.type is PlotType.TRIANGLE_UP else 1
        marks: list[Mark] = []
        for x, y in self._points(plot):
            if not math.isnan(y):
                foot = y + up * _TRIANGLE_GAP
                corners = ((x - _TRIANGLE, foot), (x + _TRIANGLE, foot), (x, foot + up * 2 * _TRIANGLE))
                marks.append(filled(corners, plot.color, self._pane))
        return marks
