"""Where drawings are placed: from dates and prices to pixels, and the marks that several drawings share."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.lines import polyline
from worker_chart_export.charts.local.primitives.dashes import LineStyle
from worker_chart_export.charts.local.primitives.marks import Strokes, Text, filled
from worker_chart_export.charts.local.primitives.text import cap_height, text_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.number_format import Writer
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box, Mark, Point

#: Pixels between a line or an edge and the text beside it.
_GAP = 5
#: Rows and columns so far outside need not be exact.
_FAR = 20_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """The price pane, as drawings see it.

    Attributes:
        candles: The whole history.
        grid: The bars shown.
        scale: The price scale.
        pane: The pane's box; nothing is drawn outside, except labels on the axes.
        time_axis: The box of the time axis, under all panes.
        writer: Writes prices.
    """

    candles: Candles
    grid: BarGrid
    scale: Scale
    pane: Box
    time_axis: Box
    writer: Writer

    def bar(self, when: datetime) -> float:
        """Return the bar of a time: its index among the bars shown.

        It is negative before the first bar shown. Outside the candles, bars are taken to go on at their usual
        distance.
        """
        dates = self.candles.dates
        when = self.candles.day_of(when)
        last, step = len(dates) - 1, self._usual_step()
        if when < dates[0]:
            index = (when - dates[0]).total_seconds() / step
        elif when > dates[last]:
            index = last + (when - dates[last]).total_seconds() // step
        else:
            index = bisect_right(dates, when) - 1
        return float(index) - self.grid.first

    def _usual_step(self) -> float:
        dates = self.candles.dates[-50:]
        steps = sorted((after - before).total_seconds() for before, after in itertools.pairwise(dates))
        return steps[len(steps) // 2] if steps else 86_400.0

    def x(self, when: datetime) -> float:
        """Return the pixel column of a time."""
        column = self.grid.center(self.bar(when)) + 0.5
        return min(max(column, -_FAR), _FAR)

    def y(self, price: float) -> float:
        """Return the pixel row of a price."""
        row = self.scale.row(price)
        return row + 0.5 if row == row else _FAR  # noqa: PLR0124  # false for NaN

    def point(self, inputs: Mapping[str, Any], end: str) -> Point:
        """Return the pixel of a drawing's `start` or `end`."""
        return self.x(inputs[f"{end}Datetime"]), self.y(inputs[f"{end}Price"])

    def line(
        self, *points: Point, color: Color, width: float = 1, style: LineStyle = LineStyle.SOLID
    ) -> list[Mark]:
        """Draw a line."""
        line = polyline(points, color=color, width=width, style=style)
        return [Strokes(clip=self.pane, lines=(line,))]

    def area(self, points: Sequence[Point], color: Color) -> list[Mark]:
        """Fill an outline."""
        left, _, right, _ = self.pane
        inside = [(min(max(x, left), right), y) for x, y in points]
        return [filled(inside, color, self.pane)] if color[3] else []

    def smooth_area(self, points: Sequence[Point], color: Color) -> list[Mark]:
        """Fill an outline and draw over its edges, which hides the steps between their pixels."""
        return [*self.area(points, color), *self.line(*points, points[0], color=color)]

    def box(self, one: Point, other: Point, color: Color) -> list[Mark]:
        """Fill a rectangle between two corners."""
        return self.area((one, (other[0], one[1]), other, (one[0], other[1])), color)

    def text(
        self, text: str | None, at: Point, look: Mapping[str, Any], *, color: Color | None = None
    ) -> list[Mark]:
        """Write lines of text; `at` is the left end of the first one's middle."""
        size, spacing = look["fontSize"], round(look["fontSize"] * 1.3)
        return [
            Text(
                x=round(at[0]),
                y=round(at[1]) + number * spacing,
                text=line,
                color=color or look["textColor"],
                size=size,
                bold=look.get("fontBold", False),
                italic=look.get("fontItalic", False),
                clip=self.pane,
            )
            for number, line in enumerate((text or "").splitlines())
        ]

    def aligned_text(
        self,
        text: str | None,
        look: Mapping[str, Any],
        *,
        box: tuple[float, float, float, float],
        color: Color | None = None,
    ) -> list[Mark]:
        """Write text in a box as `horzLabelAlign` and `vertLabelAlign` say.

        A box without height is a line: `top` is above it, `bottom` below it.
        """
        left, top, right, bottom = box
        width, height = text_size(text, look)
        x = {"left": left + _GAP, "right": right - width - _GAP}.get(
            look["horzLabelAlign"], (left + right - width) / 2
        )
        first = cap_height(look["fontSize"]) / 2
        inside = bottom - top >= height
        above = top + _GAP + first if inside else top - _GAP - height + first
        below = bottom - _GAP - height + first if inside else bottom + _GAP + first
        y = {"top": above, "bottom": below}.get(look["vertLabelAlign"], (top + bottom - height) / 2 + first)
        return self.text(text, (x, y), look, color=color)

    def framed_text(
        self, text: str, middle: Point, look: Mapping[str, Any], fill: Color, edge: Color
    ) -> list[Mark]:
        """Write text in the middle of a filled box with a border."""
        width, height = text_size(text, look)
        x, y = middle
        left, right = x - width / 2 - _GAP * 1.5, x + width / 2 + _GAP * 1.5
        top, bottom = y - height / 2 - _GAP, y + height / 2 + _GAP
        corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
        first = y - height / 2 + cap_height(look["fontSize"]) / 2
        return [
            *self.area(corners[:4], fill),
            *self.line(*corners, color=edge, width=look.get("lineWidth", 1)),
            *self.text(text, (x - width / 2, first), look),
        ]

    def axis_label(self, text: str, middle: float, color: Color, size: int) -> list[Mark]:
        """Write a filled label on the time axis, if its middle is under the pane."""
        width = text_width(text, size) + 2 * _GAP
        left, top, right, bottom = self.time_axis
        if not self.pane[0] <= middle <= self.pane[2]:
            return []
        start = round(min(max(middle - width / 2, left), right - width))
        box = (start, float(top), start + width, float(bottom))
        corners = ((box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3]))
        row = (top + bottom) // 2 + 1
        white = (255, 255, 255, 255)
        return [
            filled(corners, (*color[:3], 255), self.time_axis),
            Text(x=start + _GAP, y=row, text=text, color=white, size=size, clip=self.time_axis),
        ]


def text_size(text: str | None, look: Mapping[str, Any]) -> tuple[float, float]:
    """Return width and height in pixels of lines of text."""
    lines = (text or "").splitlines() or [""]
    width = max(text_width(line, look["fontSize"]) for line in lines)
    return width, cap_height(look["fontSize"]) + (len(lines) - 1) * round(look["fontSize"] * 1.3)
