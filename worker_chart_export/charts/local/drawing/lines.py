"""Lines as marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.primitives.dashes import LineStyle, dashes
from worker_chart_export.charts.local.primitives.marks import Dots, Polyline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.primitives.marks import Box, Point


def polyline(
    points: Sequence[Point], *, color: Color, width: float, style: LineStyle = LineStyle.SOLID
) -> Polyline:
    """Make a line, in pieces if it is dashed."""
    return Polyline(pieces=tuple(map(tuple, dashes(points, style, width))), color=color, width=width)


def dashed_row(row: int, pane: Box, color: Color, *, dash: int = 4, period: int = 8) -> Dots:
    """Draw a line of dashes across a pane, `dash` pixels long and `period` pixels from one to the next."""
    columns = range(pane[0], pane[2]) if pane[1] <= row < pane[3] else ()
    return Dots(points=tuple(part for x in columns if x % period < dash for part in (x, row)), color=color)


def at_least_two(points: Sequence[Point]) -> tuple[Point, ...]:
    """Make a short dash of a single point, which would be invisible."""
    if len(points) > 1:
        return tuple(points)
    x, y = points[0]
    return (x - 2, y), (x + 2, y)
