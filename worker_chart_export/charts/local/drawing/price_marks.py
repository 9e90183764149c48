"""The price as marks in its pane, in each of Chart-IMG's styles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.drawing.lines import at_least_two, polyline
from worker_chart_export.charts.local.primitives.colors import with_opacity
from worker_chart_export.charts.local.primitives.dashes import LineStyle
from worker_chart_export.charts.local.primitives.marks import GradientFill, Strokes, clipped, rects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box, Mark, Point

#: Bodies narrower than this have no room for a border of another colour.
_MIN_BORDERED = 3
#: A baseline's fills have their documented colours at this transparency.
_PLAIN_TRANSPARENCY = 50


#: The method that draws each style of the table.
PRICE_STYLES = {
    "candle": "_candle_marks",
    "heikinAshi": "_candle_marks",
    "hollowCandle": "_hollow_marks",
    "bar": "_bar_marks",
    "line": "_line_marks",
    "area": "_area_marks",
    "baseline": "_baseline_marks",
    "hiLo": "_high_low_marks",
    "column": "_column_marks",
}


class PriceArtist:
    """Draws the bars shown into one pane.

    Args:
        candles: The bars shown.
        close_before: The close before the first bar shown; NaN if there is none.
        grid: Their pixel columns.
        scale: The price scale.
        pane: The pane's box; nothing is drawn outside.
        look: The overrides of the style, e.g. `upColor`.
    """

    def __init__(
        self,
        candles: Candles,
        *,
        close_before: float,
        grid: BarGrid,
        scale: Scale,
        pane: Box,
        look: Mapping[str, Any],
    ) -> None:
        self._candles, self._grid, self._scale, self._pane, self._look = candles, grid, scale, pane, look
        self._close_before = close_before

    def marks(self, style: str) -> list[Mark]:
        """Draw the price in one of the styles of the table."""
        artist: Callable[[], list[Mark]] = getattr(self, PRICE_STYLES[style])
        return artist()

    def _rows(self, prices: Series) -> list[int]:
        return [round(row) for row in self._scale.rows(prices).tolist()]

    def _higher(self) -> list[bool]:
        """Return for each bar whether it closed at or above the close before."""
        before = np.concatenate(([self._close_before], self._candles.close[:-1]))
        first = self._candles.close[:1] >= self._candles.open[:1]
        before[:1] = np.where(np.isnan(before[:1]), np.where(first, -np.inf, np.inf), before[:1])
        higher: list[bool] = (self._candles.close >= before).tolist()
        return higher

    def _rising(self) -> list[bool]:
        """Return for each bar whether it has the colour of a rise."""
        if self._look.get("barColorsOnPrevClose"):
            return self._higher()
        rising: list[bool] = (self._candles.close >= self._candles.open).tolist()
        return rising

    def _by_direction(self, boxes: list[Box], rising: list[bool], up: Color, down: Color) -> list[Mark]:
        rises = [box for box, is_up in zip(boxes, rising, strict=True) if is_up]
        falls = [box for box, is_up in zip(boxes, rising, strict=True) if not is_up]
        return [rects(rises, up, self._pane), rects(falls, down, self._pane)]

    def _spans(self, one: Series, other: Series, left: int, right: int) -> list[Box]:
        """Return a box per bar between two prices, from `left` pixels before the middle to `right` after."""
        rows = zip(self._grid.centers, self._rows(one), self._rows(other), strict=True)
        return [(x - left, min(a, b), x + right, max(a, b) + 1) for x, a, b in rows]

    def _bodies(self) -> list[Box]:
        half = self._grid.body // 2
        return self._spans(self._candles.open, self._candles.close, half, half + 1)

    def _wicks(self) -> list[Box]:
        return self._spans(self._candles.high, self._candles.low, 0, 1)

    def _candle_marks(self) -> list[Mark]:
        return self._wicks_and_bodies(self._rising(), [False] * len(self._candles))

    def _hollow_marks(self) -> list[Mark]:
        """Draw hollow candles.

        A candle is hollow if its bar closed above its open. Its colour shows if the close is above the close
        of the bar before.
        """
        hollow = (self._candles.close > self._candles.open).tolist()
        return self._wicks_and_bodies(self._higher(), hollow)

    def _wicks_and_bodies(self, rising: list[bool], hollow: list[bool]) -> list[Mark]:
        look, marks, bodies = self._look, [], self._bodies()
        if look["drawWick"]:
            wicks = self._outside(bodies) if any(hollow) or not look["drawBody"] else self._wicks()
            marks += self._by_direction(
                wicks, [*rising] * (len(wicks) // len(rising)), look["wickUpColor"], look["wickDownColor"]
            )
        # The border takes the outer pixels of a body, drawn or not.
        has_room = self._grid.body >= _MIN_BORDERED and (any(hollow) or not self._border_is_body())
        filled = [one for one, is_hollow in zip(bodies, hollow, strict=True) if not is_hollow]
        directions = [up for up, is_hollow in zip(rising, hollow, strict=True) if not is_hollow]
        if look["drawBody"]:
            inner = [_shrunk(box) for box in filled] if has_room else filled
            marks += self._by_direction(inner, directions, look["upColor"], look["downColor"])
        if look["drawBorder"] and (has_room or any(hollow)):
            edges = [part for box in bodies for part in _edges(box)]
            sides = [up for up in rising for _ in range(4)]
            marks += self._by_direction(edges, sides, look["borderUpColor"], look["borderDownColor"])
        return marks

    def _border_is_body(self) -> bool:
        """Return whether borders have the bodies' colours: then a body is drawn as one box."""
        look = self._look
        colors = ("upColor", "borderUpColor"), ("downColor", "borderDownColor")
        return bool(look["drawBody"] and look["drawBorder"]) and all(look[a] == look[b] for a, b in colors)

    def _outside(self, bodies: list[Box]) -> list[Box]:
        """Return the parts of the wicks above the bodies, then those below."""
        wicks = self._wicks()
        above = [(x, top, right, body[1]) for (x, top, right, _), body in zip(wicks, bodies, strict=True)]
        below = [(x, body[3], right, end) for (x, _, right, end), body in zip(wicks, bodies, strict=True)]
        return above + below

    def _bar_marks(self) -> list[Mark]:
        """Draw a line from high to low, with ticks at the open (left) and the close (right)."""
        look, half = self._look, max(self._grid.body // 2, 1)
        thick = 1 if look["thinBars"] else max(2, self._grid.body // 2)
        before, after = (thick - 1) // 2, thick - (thick - 1) // 2
        boxes = self._spans(self._candles.high, self._candles.low, before, after)
        rising = self._rising()
        if not look["dontDrawOpen"]:
            rows = zip(self._grid.centers, self._rows(self._candles.open), strict=True)
            boxes += [(x - half, row - before, x - before, row + after) for x, row in rows]
        rows = zip(self._grid.centers, self._rows(self._candles.close), strict=True)
        boxes += [(x + after, row - before, x + half + 1, row + after) for x, row in rows]
        directions = rising * (len(boxes) // len(rising))
        return self._by_direction(boxes, directions, look["upColor"], look["downColor"])

    def _points(self) -> tuple[Point, ...]:
        rows = self._scale.rows(self._candles.price(self._look["priceSource"])).tolist()
        centers = zip(self._grid.centers, rows, strict=True)
        return at_least_two([(x + 0.5, row + 0.5) for x, row in centers])

    def _stroke(self, points: tuple[Point, ...], color: Color, width: float, clip: Box) -> Mark:
        style = LineStyle(self._look.get("linestyle", 0))
        return Strokes(clip=clip, lines=(polyline(points, color=color, width=width, style=style),))

    def _line_marks(self) -> list[Mark]:
        return [self._stroke(self._points(), self._look["color"], self._look["linewidth"], self._pane)]

    def _area_marks(self) -> list[Mark]:
        look, points, bottom = self._look, self._points(), float(self._pane[3])
        outline = (*points, (points[-1][0], bottom), (points[0][0], bottom))
        top = min(y for _, y in points)
        colors = look["color1"], look["color2"]
        fill = GradientFill(points=outline, rows=(top, bottom), colors=colors, clip=self._pane)
        return [fill, self._stroke(points, look["linecolor"], look["linewidth"], self._pane)]

    def _baseline_marks(self) -> list[Mark]:
        """Draw a line in two colours, above and below a level of the pane, filled towards that level."""
        look, points = self._look, self._points()
        left, top, right, bottom = self._pane
        base = round(bottom - look["baseLevelPercentage"] / 100 * (bottom - top))
        share = (100 - look["transparency"]) / (100 - _PLAIN_TRANSPARENCY)
        marks: list[Mark] = []
        for side, clip in (("top", (left, top, right, base)), ("bottom", (left, base, right, bottom))):
            if clipped(clip, self._pane) is None:
                continue
            outline = (*points, (points[-1][0], float(base)), (points[0][0], float(base)))
            first, second = (
                with_opacity(color, min(color[3] / 255 * share, 1.0))
                for color in (look[f"{side}FillColor1"], look[f"{side}FillColor2"])
            )
            rows = (float(clip[1]), float(clip[3]))
            marks.append(GradientFill(points=outline, rows=rows, colors=(first, second), clip=clip))
            marks.append(self._stroke(points, look[f"{side}LineColor"], look[f"{side}LineWidth"], clip))
        level = ((float(left), base + 0.5), (float(right), base + 0.5))
        dashed = polyline(level, color=look["baselineColor"], width=1, style=LineStyle.DASHED)
        return [*marks, Strokes(clip=self._pane, lines=(dashed,))]

    def _high_low_marks(self) -> list[Mark]:
        """Draw a box from high to low, with a border."""
        half = self._grid.body // 2
        boxes = self._spans(self._candles.high, self._candles.low, half, half + 1)
        edges = [part for box in boxes for part in _edges(box)]
        inner = [_shrunk(box) for box in boxes]
        return [
            rects(inner, self._look["color"], self._pane),
            rects(edges, self._look["borderColor"], self._pane),
        ]

    def _column_marks(self) -> list[Mark]:
        """Draw a column from the lower edge of the pane to the price."""
        half, bottom = self._grid.body // 2, self._pane[3]
        rows = self._rows(self._candles.price(self._look["priceSource"]))
        boxes = [(x - half, y, x + half + 1, bottom) for x, y in zip(self._grid.centers, rows, strict=True)]
        return self._by_direction(boxes, self._rising(), self._look["upColor"], self._look["downColor"])


def _shrunk(box: Box) -> Box:
    left, top, right, bottom = box
    return left + 1, top + 1, right - 1, bottom - 1


def _edges(box: Box) -> tuple[Box, Box, Box, Box]:
    """Return the four sides of a border one pixel wide; they do not overlap."""
    left, top, right, bottom = box
    return (
        (left, top, right, top + 1),
        (left, max(bottom - 1, top + 1), right, bottom),
        (left, top + 1, left + 1, bottom - 1),
        (right - 1, top + 1, right, bottom - 1),
    )
