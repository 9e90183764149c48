"""The marks that a chart is drawn with: an ordered list in pixel coordinates.

`Rects` and `Dots` fill whole pixels, `Strokes` are antialiased and clipped, and a `Text` has its final place.
Boxes are (left, top, right, bottom), right and bottom exclusive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker_chart_export.charts.catalogue import Color

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
    """Boxes of one colour, drawn over earlier marks by their opacity."""

    boxes: tuple[Box, ...]
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Single pixels of one colour, as a flat sequence x, y, x, y ...; always opaque."""

    points: tuple[int, ...]
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Polyline:
    """A smooth line through points, in pieces if it is dashed."""

    pieces: tuple[tuple[Point, ...], ...]
    color: Color
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Strokes:
    """Smooth lines in drawing order, cut off at the edges of `clip`."""

    clip: Box
    lines: tuple[Polyline, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygon:
    """A filled outline. Its edges are not smoothed; a line drawn over them hides that."""

    points: tuple[Point, ...]
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientFill:
    """A filled outline whose colour changes from one pixel row to another; drawn inside `clip` only."""

    points: tuple[Point, ...]
    rows: tuple[float, float]
    colors: tuple[Color, Color]
    clip: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One line of text; `x` is its left edge, `y` the middle of its capital letters.

    It is cut off at the edges of `clip`, if that is set.
    """

    x: int
    y: int
    text: str
    color: Color
    size: int
    bold: bool = False
    italic: bool = False
    clip: Box | None = None


Mark: TypeAlias = Gradient | GradientFill | Rects | Dots | Polygon | Strokes | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawList:
    """All marks of one picture in drawing order, on a background of one colour."""

    width: int
    height: int
    background: Color
    marks: tuple[Mark, ...]


def clipped(box: Box, clip: Box) -> Box | None:
    """Return the part of `box` inside `clip`; None if there is none."""
    left, top, right, bottom = box
    if left < clip[0] or top < clip[1] or right > clip[2] or bottom > clip[3]:
        left, top = max(left, clip[0]), max(top, clip[1])
        right, bottom = min(right, clip[2]), min(bottom, clip[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def stroked_area(strokes: Strokes) -> Box | None:
    """Return the part of the clip box that the lines can touch; None if there is none."""
    points = [point for line in strokes.lines for piece in line.pieces for point in piece]
    if not points:
        return None
    columns, rows = zip(*points, strict=True)
    margin = 2 + max(line.width for line in strokes.lines)
    edges = (min(columns) - margin, min(rows) - margin, max(columns) + margin, max(rows) + margin)
    left, top, right, bottom = (math.floor(edge) for edge in edges)
    return clipped((left, top, right + 1, bottom + 1), strokes.clip)


def thickened(mark: Mark, factor: float) -> Mark:
    """Return a mark with its lines `factor` times as wide."""
    if not isinstance(mark, Strokes):
        return mark
    return replace(mark, lines=tuple(replace(line, width=line.width * factor) for line in mark.lines))


def joined(marks: Iterable[Mark]) -> list[Mark]:
    """Join strokes in one pane that follow one another: to draw them costs a copy of the pane."""
    result: list[Mark] = []
    for mark in marks:
        last = result[-1] if result else None
        if isinstance(mark, Strokes) and isinstance(last, Strokes) and last.clip == mark.clip:
            result[-1] = Strokes(clip=mark.clip, lines=last.lines + mark.lines)
        else:
            result.append(mark)
    return result


def rects(boxes: list[Box], color: Color, clip: Box) -> Rects:
    """Make boxes of one colour, cut off at the edges of `clip`."""
    return Rects(boxes=tuple(part for box in boxes if (part := clipped(box, clip))), color=color)


def filled(points: Iterable[Point], color: Color, clip: Box) -> Polygon:
    """Make a filled outline; rows outside `clip` move to its edges."""
    _, top, _, bottom = clip
    return Polygon(points=tuple((x, min(max(y, top), bottom - 1)) for x, y in points), color=color)


def dots(points: Iterable[tuple[int, int]], color: Color, clip: Box) -> Dots:
    """Make pixels of one colour, without those outside `clip`."""
    left, top, right, bottom = clip
    kept = (point for point in points if left <= point[0] < right and top <= point[1] < bottom)
    return Dots(points=tuple(part for point in kept for part in point), color=color)
