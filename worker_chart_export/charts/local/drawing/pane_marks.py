"""The price, studies and volume profiles as marks in one pane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.primitives.marks import Dots, Polyline, Strokes, dots, filled, rects
from worker_chart_export.charts.local.studies.study import PlotKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.colors import Color, Theme
    from worker_chart_export.charts.local.primitives.marks import Box, Mark, Point
    from worker_chart_export.charts.local.studies.study import Plot, ProfileStyle, Study
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile

_AREA_OPACITY = 46
#: Pixels of a hollow candle's border.
_OUTLINE = 1
#: Width of the longest row of a profile, as a part of the pane's width.
_PROFILE_WIDTH = 0.3
#: Profile rows up to this height have no gap between them.
_MIN_GAPPED = 3


class PriceArtist:
    """Draws the bars shown into one pane.

    Args:
        candles: The bars shown.
        grid: Their pixel columns.
        scale: The price scale.
        pane: The pane's box; nothing is drawn outside.
        theme: Colours.
    """

    def __init__(self, candles: Candles, *, grid: BarGrid, scale: Scale, pane: Box, theme: Theme) -> None:
        self._candles, self._grid, self._pane, self._theme = candles, grid, pane, theme
        self._scale = scale
        self._rising = (candles.close >= candles.open).tolist()

    def marks(self, style: str) -> list[Mark]:
        """Draw the price in one of the styles of `options.STYLES`."""
        if style in {"candle", "hollowCandle"}:
            return self._candle_marks(hollow=style == "hollowCandle")
        return self._bar_marks() if style == "bar" else self._line_marks(area=style == "area")

    def _rows(self, prices: Series) -> list[int]:
        return [round(row) for row in self._scale.rows(prices).tolist()]

    def _wicks(self) -> list[Box]:
        highs, lows = self._rows(self._candles.high), self._rows(self._candles.low)
        return [(x, a, x + 1, b + 1) for x, a, b in zip(self._grid.centers, highs, lows, strict=True)]

    def _by_direction(self, boxes: list[Box], rising: list[bool]) -> list[Mark]:
        up = [box for box, up in zip(boxes, rising, strict=True) if up]
        down = [box for box, up in zip(boxes, rising, strict=True) if not up]
        return [rects(up, self._theme.rising, self._pane), rects(down, self._theme.falling, self._pane)]

    def _candle_marks(self, *, hollow: bool) -> list[Mark]:
        """Draw wicks and bodies.

        With `hollow` a candle is hollow if its bar closed above its open. Its colour then shows if the close
        is above the close of the bar before.
        """
        half, rising = self._grid.body // 2, self._rising
        opens, closes = self._rows(self._candles.open), self._rows(self._candles.close)
        bodies = [
            (x - half, min(a, b), x + half + 1, max(a, b) + 1)
            for x, a, b in zip(self._grid.centers, opens, closes, strict=True)
        ]
        if not hollow:
            return self._by_direction(self._wicks(), rising) + self._by_direction(bodies, rising)
        close = self._candles.close
        higher = [rising[0], *(close[1:] >= close[:-1]).tolist()]
        inner = [
            (left + _OUTLINE, top + _OUTLINE, right - _OUTLINE, bottom - _OUTLINE)
            for (left, top, right, bottom), up in zip(bodies, rising, strict=True)
            if up and bottom - top > _OUTLINE * 2
        ]
        marks = self._by_direction(self._wicks(), higher) + self._by_direction(bodies, higher)
        return [*marks, rects(inner, self._theme.bottom, self._pane)]

    def _bar_marks(self) -> list[Mark]:
        half, centers = self._grid.body // 2, self._grid.centers
        opens, closes = self._rows(self._candles.open), self._rows(self._candles.close)
        left = [(x - half, row, x, row + 1) for x, row in zip(centers, opens, strict=True)]
        right = [(x + 1, row, x + half + 1, row + 1) for x, row in zip(centers, closes, strict=True)]
        return self._by_direction([*self._wicks(), *left, *right], self._rising * 3)

    def _line_marks(self, *, area: bool) -> list[Mark]:
        rows = self._scale.rows(self._candles.close).tolist()
        centers = zip(self._grid.centers, rows, strict=True)
        points = _at_least_two([(x + 0.5, row + 0.5) for x, row in centers])
        line = Polyline(points=points, color=self._theme.line, width=2)
        strokes = Strokes(clip=self._pane, lines=(line,))
        if not area:
            return [strokes]
        bottom = float(self._pane[3])
        outline = (*points, (points[-1][0], bottom), (points[0][0], bottom))
        return [filled(outline, (*self._theme.line[:3], _AREA_OPACITY), self._pane), strokes]


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
        for fill in study.fills:
            if fill.upper in plots and fill.lower in plots:
                tops, bottoms = self._runs(plots[fill.upper]), self._runs(plots[fill.lower])
                marks += [
                    filled((*top, *reversed(bottom)), fill.color, self._pane)
                    for top, bottom in zip(tops, bottoms, strict=False)
                    if len(top) == len(bottom) > 1
                ]
        rows = {level.key: round(self._scale.row(level.value)) for level in study.levels}
        for fill in study.fills:
            if fill.upper in rows and fill.lower in rows:
                upper, lower = sorted((rows[fill.upper], rows[fill.lower]))
                marks.append(rects([(self._pane[0], upper, self._pane[2], lower)], fill.color, self._pane))
        marks += [dashed_row(rows[level.key], self._pane, level.color) for level in study.levels]
        for plot in study.plots:
            if plot.kind is PlotKind.COLUMNS:
                marks += self._columns(plot)
        return marks

    def above(self, studies: Sequence[Study]) -> list[Mark]:
        """Draw the parts above the candles: the lines, and above them the crosses."""
        plots = [plot for study in studies for plot in study.plots]
        lines = tuple(
            Polyline(points=_at_least_two(run), color=plot.color, width=plot.width)
            for plot in plots
            if plot.kind is PlotKind.LINE
            for run in self._runs(plot)
        )
        strokes: list[Mark] = [Strokes(clip=self._pane, lines=lines)] if lines else []
        return strokes + [self._crosses(plot) for plot in plots if plot.kind is PlotKind.CROSSES]

    def _rows(self, plot: Plot) -> list[float]:
        rows: list[float] = self._scale.rows(plot.values[self._grid.first :]).tolist()
        return rows

    def _runs(self, plot: Plot) -> list[list[Point]]:
        """Return the points of a line, split where a value is missing."""
        runs: list[list[Point]] = [[]]
        for x, row in zip(self._grid.centers, self._rows(plot), strict=True):
            if math.isnan(row):
                runs.append([])
            else:
                runs[-1].append((x + 0.5, row + 0.5))
        return [run for run in runs if run]

    def _crosses(self, plot: Plot) -> Mark:
        arm = 1 + round(plot.width)
        shape = [(step, 0) for step in range(-arm, arm + 1)]
        shape += [(0, step) for step in range(-arm, arm + 1) if step]
        centers = zip(self._grid.centers, self._rows(plot), strict=True)
        middles = [(x, round(row)) for x, row in centers if not math.isnan(row)]
        return dots([(x + dx, y + dy) for x, y in middles for dx, dy in shape], plot.color, self._pane)

    def _columns(self, plot: Plot) -> list[Mark]:
        half, base = self._grid.body // 2, round(self._scale.row(0.0))
        shades: dict[int, list[Box]] = {shade: [] for shade in range(len(plot.palette))}
        visible = plot.shades[self._grid.first :]
        for x, row, shade in zip(self._grid.centers, self._rows(plot), visible, strict=True):
            if not math.isnan(row):
                top, bottom = sorted((round(row), base))
                shades[shade].append((x - half, top, x + half + 1, max(bottom, top + 1)))
        return [rects(boxes, plot.palette[shade], self._pane) for shade, boxes in shades.items() if boxes]


def profile_marks(style: ProfileStyle, *, scale: Scale, pane: Box) -> list[Mark]:
    """Draw a volume profile.

    It has boxes that grow from the right edge, in weak colours outside the value area, and a line at the
    point of control.
    """
    profile = style.profile
    if profile is None:
        return []
    boxes: dict[Color, list[Box]] = {}
    low, high = profile.area
    rows = [round(scale.row(price)) for price in profile.edges.tolist()]
    for index, parts in enumerate(_lengths(profile, style.mode, _PROFILE_WIDTH * (pane[2] - pane[0]))):
        colors = style.inside if low <= index < high else style.outside
        bottom, top = rows[index : index + 2]
        bottom = max(top + 1, bottom - 1 if bottom - top > _MIN_GAPPED else bottom)
        right = pane[2]
        for length, color in zip(parts, colors, strict=True):
            if length:
                boxes.setdefault(color, []).append((right - length, top, right, bottom))
                right -= length
    row = round(scale.row(profile.control_price))
    control = rects([(pane[0], row - 1, pane[2], row + 1)], style.control, pane)
    return [*(rects(same, color, pane) for color, same in boxes.items()), control]


def _lengths(profile: VolumeProfile, mode: str, longest: float) -> list[tuple[int, int]]:
    """Return the pixel lengths of the rising and the falling part of each row."""
    first, second = profile.up, profile.down
    if mode == "Total":
        first, second = first + second, np.zeros_like(first)
    elif mode == "Delta":
        first, second = np.maximum(first - second, 0), np.maximum(second - first, 0)
    size = float((first + second).max())
    per_pixel = longest / size if size else 0.0
    pairs = zip((first * per_pixel).tolist(), (second * per_pixel).tolist(), strict=True)
    return [(round(one), round(other)) for one, other in pairs]


def dashed_row(row: int, pane: Box, color: Color, *, dash: int = 4, period: int = 8) -> Dots:
    """Draw a line of dashes across a pane, `dash` pixels long and `period` pixels from one to the next."""
    columns = range(pane[0], pane[2]) if pane[1] <= row < pane[3] else ()
    return Dots(points=tuple(part for x in columns if x % period < dash for part in (x, row)), color=color)


def _at_least_two(points: list[Point]) -> tuple[Point, ...]:
    """Make a short dash of a single point, which would be invisible."""
    if len(points) > 1:
        return tuple(points)
    x, y = points[0]
    return (x - 2, y), (x + 2, y)
