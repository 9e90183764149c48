"""Dashed lines: cut a line into its dashes."""

from __future__ import annotations

import math
from enum import Enum
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.local.primitives.marks import Point


class LineStyle(Enum):
    """How a line is dashed. The values are Chart-IMG's numbers."""

    SOLID = 0
    DOTTED = 1
    DASHED = 2
    LARGE_DASHED = 3
    SPARSE_DOTTED = 4
    SPARSE_DASHED = 5


#: Lengths of dash and gap in line widths, as Lightweight Charts (TradingView's open library) has them.
_PATTERNS = {
    LineStyle.DOTTED: (1, 1),
    LineStyle.DASHED: (4, 4),
    LineStyle.LARGE_DASHED: (6, 6),
    LineStyle.SPARSE_DOTTED: (1, 4),
    LineStyle.SPARSE_DASHED: (4, 8),
}


def dashes(points: Sequence[Point], style: LineStyle, width: float) -> list[list[Point]]:
    """Cut a line into its visible pieces; a solid line is one piece.

    Args:
        points: The corners of the line in pixels.
        style: The pattern.
        width: Line width in pixels; the pattern grows with it.
    """
    if style is LineStyle.SOLID or len(points) <= 1:
        return [list(points)]
    lengths = cycle([part * max(width, 1.0) for part in _PATTERNS[style]])
    pieces: list[list[Point]] = [[points[0]]]
    visible, left = True, next(lengths)
    for (x, y), (end_x, end_y) in pairwise(points):
        length, done = math.hypot(end_x - x, end_y - y), 0.0
        while length - done > left:
            done += left
            corner = (x + (end_x - x) * done / length, y + (end_y - y) * done / length)
            if visible:
                pieces[-1].append(corner)
            else:
                pieces.append([corner])
            visible, left = not visible, next(lengths)
        left -= length - done
        if visible and length:
            pieces[-1].append((end_x, end_y))
    return [piece for piece in pieces if len(piece) > 1]
