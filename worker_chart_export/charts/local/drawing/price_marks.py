"""The price itself: candles, hollow candles, bars, a line or an area."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.primitives.marks import Dots, Polyline, Strokes, filled, rects

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.layout.bars import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.colors import Color
    from worker_chart_export.charts.local.primitives.marks import Box, Mark
    from worker_chart_export.charts.local.primitives.themes import Theme

_AREA_OPACITY = 46
#: Pixels of a hollow candle's border.
_OUTLINE = 1
#: Pixels of a dash, and from one dash to the next.
_DASH, _DASH_PERIOD = 4, 8
_DOT_PERIOD = 3


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
        """The price in one of the styles of `options.STYLES`."""
        draw = {"candle": self._candle_marks, "hollowCandle": self._hollow_marks, "bar": self._bar_marks}
        return draw[style]() if style in draw else self._line_marks(area=style == "area")

    def _rows(self, prices: np.ndarray) -> list[int]:
        return [round(row) for row in self._scale.rows(prices).tolist()]

    def _bodies(self) -> list[Box]:
        half = self._grid.body // 2
        opens, closes = self._rows(self._candles.open), self._rows(self._candles.close)
        return [
            (x - half, min(a, b), x + half + 1, max(a, b) + 1)
            for x, a, b in zip(self._grid.centers, opens, closes, strict=True)
        ]

    def _wicks(self) -> list[Box]:
        highs, lows = self._rows(self._candles.high), self._rows(self._candles.low)
        return [(x, a, x + 1, b + 1) for x, a, b in zip(self._grid.centers, highs, lows, strict=True)]

    def _by_direction(self, boxes: list[Box], rising: list[bool]) -> list[Mark]:
        up = [box for box, up in zip(boxes, rising, strict=True) if up]
        down = [box for box, up in zip(boxes, rising, strict=True) if not up]
        return [
            rects(up, self._theme.rising, self._pane),
            rects(down, self._theme.falling, self._pane),
        ]

    def _candle_marks(self) -> list[Mark]:
        wicks = self._by_direction(self._wicks(), self._rising)
        return [*wicks, *self._by_direction(self._bodies(), self._rising)]

    def _hollow_marks(self) -> list[Mark]:
        """Coloured by the change of the close, hollow when the bar closed above its open."""
        closes = self._candles.close
        higher = [self._rising[0], *(closes[1:] >= closes[:-1]).tolist()]
        marks = self._by_direction(self._wicks(), higher) + self._by_direction(self._bodies(), higher)
        inner = [
            (left + _OUTLINE, top + _OUTLINE, right - _OUTLINE, bottom - _OUTLINE)
            for (left, top, right, bottom), rising in zip(self._bodies(), self._rising, strict=True)
            if rising and bottom - top > _OUTLINE * 2
        ]
        return [*marks, rects(inner, self._theme.bottom, self._pane)]

    def _bar_marks(self) -> list[Mark]:
        half = self._grid.body // 2
        centers, opens = self._grid.centers, self._rows(self._candles.open)
        closes = self._rows(self._candles.close)
        left = [(x - half, row, x, row + 1) for x, row in zip(centers, opens, strict=True)]
        right = [(x + 1, row, x + half + 1, row + 1) for x, row in zip(centers, closes, strict=True)]
        boxes = [*self._wicks(), *left, *right]
        return self._by_direction(boxes, self._rising * 3)

    def _line_marks(self, *, area: bool) -> list[Mark]:
        rows = self._scale.rows(self._candles.close).tolist()
        points = tuple((x + 0.5, row + 0.5) for x, row in zip(self._grid.centers, rows, strict=True))
        if len(points) == 1:
            points = ((points[0][0] - 2, points[0][1]), (points[0][0] + 2, points[0][1]))
        line = Polyline(points=points, color=self._theme.line, width=2)
        strokes = Strokes(clip=self._pane, lines=(line,))
        if not area:
            return [strokes]
        foot = float(self._pane[3])
        outline = (*points, (points[-1][0], foot), (points[0][0], foot))
        return [filled(outline, (*self._theme.line[:3], _AREA_OPACITY), self._pane), strokes]


def dotted_row(row: int, pane: Box, color: Color) -> Dots:
    """A dotted line across a pane, as under the last price."""
    return _dots_in_row(row, range(pane[0], pane[2], _DOT_PERIOD), pane, color)


def dashed_row(row: int, pane: Box, color: Color) -> Dots:
    """A dashed line across a pane, as at a study's limits."""
    columns = [x for x in range(pane[0], pane[2]) if x % _DASH_PERIOD < _DASH]
    return _dots_in_row(row, columns, pane, color)


def _dots_in_row(row: int, columns: Sequence[int], pane: Box, color: Color) -> Dots:
    visible = columns if pane[1] <= row < pane[3] else ()
    return Dots(points=tuple(part for x in visible for part in (x, row)), color=color)
