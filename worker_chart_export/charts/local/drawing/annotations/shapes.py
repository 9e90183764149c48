"""Lines, areas, arrows and texts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.annotations.surface import text_size
from worker_chart_export.charts.local.primitives.colors import with_opacity
from worker_chart_export.charts.local.primitives.dashes import LineStyle

if TYPE_CHECKING:
    from worker_chart_export.charts.local.drawing.annotations.surface import Surface
    from worker_chart_export.charts.local.input.options import DrawingRequest
    from worker_chart_export.charts.local.primitives.marks import Mark, Point

#: Height of a legend line.
_LEGEND = 20
#: Length and half width of an arrow mark, and the share of an arrow that is its head.
_ARROW, _ARROW_WIDTH, _HEAD = 18, 7, 0.35


def horizontal_line(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw a line at a price, with its text; its price is a label on the price axis."""
    look, y = request.look, surface.y(request.inputs["price"])
    left, _, right, _ = surface.pane
    style = LineStyle(look["lineStyle"])
    return [
        *surface.line((left, y), (right, y), color=look["lineColor"], width=look["lineWidth"], style=style),
        *surface.aligned_text(request.inputs["text"], look, box=(left, y, right, y)),
    ]


def vertical_line(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw a line at a time, with its text beside it."""
    look, when = request.look, request.inputs["datetime"]
    x, (_, top, _, bottom) = surface.x(when), surface.pane
    style = LineStyle(look["lineStyle"])
    marks = surface.line((x, top), (x, bottom), color=look["lineColor"], width=look["lineWidth"], style=style)
    width, _ = text_size(request.inputs["text"], look)
    left, right = {
        "left": (x - width - 12, x),
        "center": (x - width / 2 - 6, x + width / 2 + 6),
    }.get(look["horzLabelAlign"], (x, x + width + 12))
    # The legend is at the top.
    box = (left, top + _LEGEND, right, bottom)
    return marks + surface.aligned_text(request.inputs["text"], look, box=box)


def time_label(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Write the time of a vertical line on the time axis."""
    when = request.inputs["datetime"]
    is_intraday = surface.candles.timeframe.is_intraday
    text = f"{when:%d %b %Y %H:%M}" if is_intraday else f"{when:%d %b %Y}"
    return surface.axis_label(text, surface.x(when), request.look["lineColor"], 12)


def trend_line(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw a line between two points, beyond them if it is extended."""
    look = request.look
    start, end = (surface.point(request.inputs, name) for name in ("start", "end"))
    first, last = _extended(start, end, surface, left=look["extendLeft"], right=look["extendRight"])
    marks = surface.line(
        first, last, color=look["lineColor"], width=look["lineWidth"], style=LineStyle(look["lineStyle"])
    )
    if look["showLabel"]:
        left, right = sorted((start, end))
        share = {"left": 0.0, "right": 1.0}.get(look["horzLabelAlign"], 0.5)
        y = left[1] + share * (right[1] - left[1])
        box = (left[0], y, right[0], y)
        marks += surface.aligned_text(request.inputs["text"], look, box=box)
    return marks


def _extended(start: Point, end: Point, surface: Surface, *, left: bool, right: bool) -> tuple[Point, Point]:
    """Return the ends of a line that may go on to the edges of the pane."""
    first, last = sorted((start, end))
    width = last[0] - first[0]
    slope = (last[1] - first[1]) / width if width else 0.0
    if left and width:
        first = (float(surface.pane[0]), last[1] - slope * (last[0] - surface.pane[0]))
    if right and width:
        edge = float(surface.pane[2])
        last = (edge, first[1] + slope * (edge - first[0]))
    return first, last


def rectangle(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw a rectangle between two points, with its text."""
    look = request.look
    start, end = (surface.point(request.inputs, name) for name in ("start", "end"))
    left, right = sorted((start[0], end[0]))
    top, bottom = sorted((start[1], end[1]))
    left = float(surface.pane[0]) if look["extendLeft"] else left
    right = float(surface.pane[2]) if look["extendRight"] else right
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    marks = surface.area(corners[:4], look["backgroundColor"]) if look["fillBackground"] else []
    marks += surface.line(*corners, color=look["lineColor"], width=look["lineWidth"])
    if look["showLabel"]:
        marks += surface.aligned_text(request.inputs["text"], look, box=(left, top, right, bottom))
    return marks


def arrow_marker(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw a filled arrow that grows from its tail to its head, with its text at the tail."""
    look = request.look
    (x, y), (end_x, end_y) = (surface.point(request.inputs, name) for name in ("start", "end"))
    length = math.hypot(end_x - x, end_y - y) or 1.0
    along, across = (end_x - x) / length, (end_y - y) / length
    head = min(_HEAD * length, 40.0)
    neck, half, wing = length - head, head * 0.28, head * 0.55

    def at(distance: float, side: float) -> Point:
        return x + along * distance - across * side, y + across * distance + along * side

    outline = (
        at(0, -1.5),
        at(neck, -half),
        at(neck, -wing),
        at(length, 0),
        at(neck, wing),
        at(neck, half),
        at(0, 1.5),
    )
    width, height = text_size(request.inputs["text"], look)
    below = y > end_y
    text_at = (x - width / 2, y + (height + 6 if below else -height - 6))
    text = surface.text(request.inputs["text"], text_at, look)
    return [*surface.smooth_area(outline, look["arrowColor"]), *text]


def arrow_mark_up(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw an arrow that points up at a price, with its text below."""
    return _arrow_mark(surface, request, direction=1)


def arrow_mark_down(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw an arrow that points down at a price, with its text above."""
    return _arrow_mark(surface, request, direction=-1)


def _arrow_mark(surface: Surface, request: DrawingRequest, *, direction: int) -> list[Mark]:
    x, y = surface.x(request.inputs["datetime"]), surface.y(request.inputs["price"])
    neck, foot = y + direction * _ARROW / 2, y + direction * _ARROW
    stem, wing = _ARROW_WIDTH / 2.5, _ARROW_WIDTH
    outline = (
        (x, y),
        (x + wing, neck),
        (x + stem, neck),
        (x + stem, foot),
        (x - stem, foot),
        (x - stem, neck),
        (x - wing, neck),
    )
    width, height = text_size(request.inputs["text"], request.look)
    row = foot + direction * (height / 2 + 6) - (height / 2 if direction < 0 else 0)
    text = surface.text(request.inputs["text"], (x - width / 2, row), request.look)
    return [*surface.smooth_area(outline, request.look["arrowColor"]), *text]


def text(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Write a text to the right of a point."""
    look = request.look
    width, _ = text_size(request.inputs["text"], look)
    middle = (surface.x(request.inputs["datetime"]) + width / 2, surface.y(request.inputs["price"]))
    fill = look["backgroundColor"] if look["fillBackground"] else (0, 0, 0, 0)
    edge = look["borderColor"] if look["showBorder"] else None
    if edge is None and not fill[3]:
        return surface.text(request.inputs["text"], (middle[0] - width / 2, middle[1]), look)
    return surface.framed_text(request.inputs["text"], middle, look, fill, edge or fill)


def callout(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Write a text in a box whose pointer ends at the start point."""
    look = request.look
    pin, middle = (surface.point(request.inputs, name) for name in ("start", "end"))
    opacity = look["backgroundColor"][3] / 255 * (100 - look["transparency"]) / 50
    fill = with_opacity(look["backgroundColor"], min(opacity, 1.0))
    side = 8 if abs(pin[0] - middle[0]) <= abs(pin[1] - middle[1]) else 0
    foot = ((middle[0] - side, middle[1] - (8 - side)), (middle[0] + side, middle[1] + (8 - side)))
    return [
        *surface.area((pin, *foot), fill),
        *surface.line(foot[0], pin, foot[1], color=look["borderColor"], width=look["lineWidth"]),
        *surface.framed_text(request.inputs["text"], middle, look, fill, look["borderColor"]),
    ]
