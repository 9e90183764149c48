"""A drawn chart before it is pixels: an ordered list of simple marks in pixel coordinates.

Whole-pixel marks (`Rects`, `Dots`) are crisp, `Strokes` are antialiased and clipped, `Text` is measured
before it gets here. Boxes are (left, top, right, bottom), right and bottom exclusive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker_chart_export.charts.local.primitives.colors import Color

Box: TypeAlias = tuple[int, int, int, int]
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """A box coloured from top to bottom."""

    box: Box
    top: Color
    bottom: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Rects:
    """Boxes of one colour, laid over what is there."""

    boxes: tuple[Box, ...]
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Single pixels of one colour, as a flat row x, y, x, y ...; always opaque."""

    points: tuple[int, ...]
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Polyline:
    """A smooth line through points."""

    points: tuple[Point, ...]
    color: Color
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Strokes:
    """Smooth lines, in order, cut off at the edges of `clip`."""

    clip: Box
    lines: tuple[Polyline, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygon:
    """A filled outline with rough edges, which a line drawn on them hides."""

    points: tuple[Point, ...]
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One line of text; `x` is its left edge, `y` the middle of its capital letters."""

    x: int
    y: int
    text: str
    color: Color
    size: int


Mark: TypeAlias = Gradient | Rects | Dots | Polygon | Strokes | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawList:
    """All marks of one picture, first drawn first, on a ground of one colour."""

    width: int
    height: int
    background: Color
    marks: tuple[Mark, ...]


def clipped(box: Box, clip: Box) -> Box | None:
    """The part of `box` inside `clip`; None if there is none."""
    left, top, right, bottom = box
    if left < clip[0] or top < clip[1] or right > clip[2] or bottom > clip[3]:
        left, top = max(left, clip[0]), max(top, clip[1])
        right, bottom = min(right, clip[2]), min(bottom, clip[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def stroked_area(strokes: Strokes) -> Box | None:
    """The part of the clip box that the lines can touch."""
    columns = [x for line in strokes.lines for x, _ in line.points]
    rows = [y for line in strokes.lines for _, y in line.points]
    reach = 2 + max(line.width for line in strokes.lines)
    edges = (min(columns) - reach, min(rows) - reach, max(columns) + reach, max(rows) + reach)
    left, top, right, bottom = (math.floor(edge) for edge in edges)
    return clipped((left, top, right + 1, bottom + 1), strokes.clip)


def rects(boxes: list[Box], color: Color, clip: Box) -> Rects:
    """Boxes of one colour, cut off at the edges of `clip`."""
    return Rects(boxes=tuple(found for box in boxes if (found := clipped(box, clip))), color=color)


def filled(points: Iterable[Point], color: Color, clip: Box) -> Polygon:
    """A filled outline, its rows moved to the edges of `clip` where they lie beyond."""
    _, top, _, bottom = clip
    return Polygon(points=tuple((x, min(max(y, top), bottom - 1)) for x, y in points), color=color)


def dots(points: Iterable[tuple[int, int]], color: Color, clip: Box) -> Dots:
    """Pixels of one colour, without those outside of `clip`."""
    left, top, right, bottom = clip
    kept = (point for point in points if left <= point[0] < right and top <= point[1] < bottom)
    return Dots(points=tuple(part for point in kept for part in point), color=color)
