"""Studies as marks in one pane."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.lines import at_least_two, dashed_row
from worker_chart_export.charts.local.primitives.colors import with_opacity
from worker_chart_export.charts.local.primitives.marks import Polyline, Strokes, dots, filled, rects
from worker_chart_export.charts.local.studies.study import PlotType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box, Mark, Point
    from worker_chart_export.charts.local.studies.study import Fill, Plot, Study

_COLUMNS = (PlotType.COLUMNS, PlotType.HISTOGRAM)
_MARKS = (PlotType.CROSS, PlotType.CIRCLES)
#: Opacity of the part of a line that depends on bars older than the file.
_FAINT = 0.4


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
        """Draw the parts below lines and candles: fills between limits or lines, limits, columns."""
        marks: list[Mark] = []
        plots = {plot.key: plot for plot in study.plots}
        rows = {level.key: round(self._scale.row(level.value)) for level in study.levels}
        for fill in study.fills:
            if fill.upper in plots and fill.lower in plots:
                marks += self._between(fill, plots[fill.upper], plots[fill.lower])
            elif fill.upper in rows and fill.lower in rows:
                upper, lower = sorted((rows[fill.upper], rows[fill.lower]))
                marks.append(rects([(self._pane[0], upper, self._pane[2], lower)], fill.color, self._pane))
        marks += [dashed_row(rows[level.key], self._pane, level.color) for level in study.levels]
        for plot in study.plots:
            if plot.type in _COLUMNS:
                marks += self._columns(plot)
        return marks

    def above(self, studies: Sequence[Study]) -> list[Mark]:
        """Draw the parts above the candles: the lines, and above them the crosses."""
        lines = tuple(
            Polyline(points=at_least_two(run), color=color, width=plot.width)
            for study in studies
            for plot in study.plots
            if plot.type not in (*_COLUMNS, *_MARKS)
            for run, color in self._runs(plot, study.faint_until)
        )
        strokes: list[Mark] = [Strokes(clip=self._pane, lines=lines)] if lines else []
        plots = [plot for study in studies for plot in study.plots]
        return strokes + [self._crosses(plot) for plot in plots if plot.type in _MARKS]

    def _points(self, plot: Plot) -> list[Point]:
        """Return the points of a plot, from the first bar shown to the last future one."""
        rows = [*self._rows(plot), *self._scale.rows(plot.future).tolist()]
        first, pitch = self._grid.centers[0], self._grid.pitch
        return [(first + pitch * index + 0.5, row + 0.5) for index, row in enumerate(rows)]

    def _rows(self, plot: Plot) -> list[float]:
        rows: list[float] = self._scale.rows(plot.values[self._grid.first :]).tolist()
        return rows

    def _runs(self, plot: Plot, faint_until: int) -> list[tuple[list[Point], Color]]:
        """Return the pieces of a line with their colours, split where a value is missing."""
        pieces: list[tuple[list[Point], Color]] = []
        faint = faint_until - self._grid.first
        for index, point in enumerate(self._points(plot)):
            if math.isnan(point[1]):
                pieces.append(([], plot.color))
                continue
            color = self._color(plot, index, faint=index < faint)
            if not pieces or not pieces[-1][0]:
                pieces.append(([point], color))
            elif pieces[-1][1] == color:
                pieces[-1][0].append(point)
            else:
                pieces.append(([pieces[-1][0][-1], point], color))
        return [piece for piece in pieces if piece[0]]

    def _color(self, plot: Plot, index: int, *, faint: bool) -> Color:
        color = plot.color
        if plot.palette and plot.shades is not None:
            color = plot.palette[int(plot.shades[min(self._grid.first + index, len(plot.shades) - 1)])]
        return with_opacity(color, color[3] / 255 * _FAINT) if faint else color

    def _between(self, fill: Fill, upper: Plot, lower: Plot) -> list[Mark]:
        """Fill the area between two plots, bar by bar where the colour depends on which one is above."""
        marks: list[Mark] = []
        run: list[tuple[Point, Point]] = []
        pairs = zip(self._points(upper), self._points(lower), strict=False)
        whole = [pair for pair in pairs if not (math.isnan(pair[0][1]) or math.isnan(pair[1][1]))]
        for before, pair in pairwise(whole):
            if pair[0][0] - before[0][0] > self._grid.pitch:
                marks += self._filled(fill, run)
                run = []
            above, was_above = pair[0][1] <= pair[1][1], before[0][1] <= before[1][1]
            run = run or [before]
            run.append(pair)
            if above != was_above:
                marks += self._filled(fill, run)
                run = [pair]
        return marks + self._filled(fill, run)

    def _filled(self, fill: Fill, run: list[tuple[Point, Point]]) -> list[Mark]:
        if len(run) < 2:  # noqa: PLR2004  # one bar has no area
            return []
        above = run[-1][0][1] <= run[-1][1][1]
        color = fill.color if above or fill.color_below is None else fill.color_below
        outline = (*(top for top, _ in run), *(bottom for _, bottom in reversed(run)))
        return [filled(outline, color, self._pane)]

    def _crosses(self, plot: Plot) -> Mark:
        arm = 1 + round(plot.width)
        shape = [(step, 0) for step in range(-arm, arm + 1)]
        shape += [(0, step) for step in range(-arm, arm + 1) if step]
        middles = [(int(x), round(y - 0.5)) for x, y in self._points(plot) if not math.isnan(y)]
        return dots([(x + dx, y + dy) for x, y in middles for dx, dy in shape], plot.color, self._pane)

    def _columns(self, plot: Plot) -> list[Mark]:
        half, base = self._grid.body // 2, round(self._scale.row(0.0))
        boxes: dict[Color, list[Box]] = {}
        for index, (x, row) in enumerate(zip(self._grid.centers, self._rows(plot), strict=True)):
            if not math.isnan(row):
                top, bottom = sorted((round(row), base))
                color = self._color(plot, index, faint=False)
                boxes.setdefault(color, []).append((x - half, top, x + half + 1, max(bottom, top + 1)))
        return [rects(same, color, self._pane) for color, same in boxes.items()]
