"""The price as marks in its pane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.lines import at_least_two
from worker_chart_export.charts.local.primitives.marks import Polyline, Strokes, filled, rects

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.colors import Theme
    from worker_chart_export.charts.local.primitives.marks import Box, Mark

_AREA_OPACITY = 46
#: Pixels of a hollow candle's border.
_OUTLINE = 1


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
        points = at_least_two([(x + 0.5, row + 0.5) for x, row in centers])
        line = Polyline(points=points, color=self._theme.line, width=2)
        strokes = Strokes(clip=self._pane, lines=(line,))
        if not area:
            return [strokes]
        bottom = float(self._pane[3])
        outline = (*points, (points[-1][0], bottom), (points[0][0], bottom))
        return [filled(outline, (*self._theme.line[:3], _AREA_OPACITY), self._pane), strokes]
