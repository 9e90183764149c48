"""Drawings that measure: ranges, retracements, positions and orders."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.drawing.annotations.surface import text_size
from worker_chart_export.charts.local.layout.number_format import compact, fixed, signed
from worker_chart_export.charts.local.primitives.colors import GREY, with_opacity
from worker_chart_export.charts.local.primitives.dashes import LineStyle
from worker_chart_export.charts.local.primitives.text import cap_height

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.drawing.annotations.surface import Surface
    from worker_chart_export.charts.local.input.options import DrawingRequest
    from worker_chart_export.charts.local.primitives.marks import Mark, Point

#: TradingView's colours of ranges; the API has no overrides for them.
_RANGE: Color = (41, 98, 255, 255)
_WHITE: Color = (255, 255, 255, 255)
#: Bars that a position without an end covers.
_POSITION_BARS = 20


def date_range(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Mark a span of time, with the number of bars and days in it."""
    look, inputs = request.look, request.inputs
    start, end = (surface.point(inputs, name) for name in ("start", "end"))
    left, right = sorted((start[0], end[0]))
    top, bottom = sorted((start[1], end[1]))
    top = float(surface.pane[1]) if look["extendTop"] else top
    bottom = float(surface.pane[3]) if look["extendBottom"] else bottom
    middle = (start[1] + end[1]) / 2
    marks = _range_area(surface, look, (left, top), (right, bottom))
    for x in (left, right):
        marks += surface.line((x, top), (x, bottom), color=_RANGE, width=look["lineWidth"])
    marks += _arrow(surface, (start[0], middle), (end[0], middle), look)
    return marks + _range_label(surface, request, ((left + right) / 2, bottom), _span(surface, inputs))


def date_price_range(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Mark a span of time and price, with the change and the number of bars and days."""
    look, inputs = request.look, request.inputs
    start, end = (surface.point(inputs, name) for name in ("start", "end"))
    middle_x, middle_y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    change = inputs["endPrice"] - inputs["startPrice"]
    percent = _percent(change, inputs["startPrice"])
    lines = f"{signed(change, surface.writer.decimals)} ({signed(percent, 2)}%)\n{_span(surface, inputs)}"
    left, right = sorted((start[0], end[0]))
    top, bottom = sorted((start[1], end[1]))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    return [
        *_range_area(surface, look, (left, top), (right, bottom)),
        *surface.line(*corners, color=_RANGE, width=look["lineWidth"]),
        *_arrow(surface, (start[0], middle_y), (end[0], middle_y), look),
        *_arrow(surface, (middle_x, start[1]), (middle_x, end[1]), look),
        *_range_label(surface, request, (middle_x, top if change >= 0 else bottom), lines, above=change >= 0),
    ]


def _percent(change: float, price: float) -> float:
    """Return a change in percent of a price; NaN for a price of zero."""
    return 100 * change / abs(price) if price else math.nan


def _range_area(surface: Surface, look: Mapping[str, Any], one: Point, other: Point) -> list[Mark]:
    if not look["fillBackground"]:
        return []
    # At the documented transparency of 60 TradingView's area is light.
    return surface.box(one, other, with_opacity(_RANGE, (100 - look["transparency"]) / 100 * 0.5))


def _arrow(surface: Surface, start: Point, end: Point, look: Mapping[str, Any]) -> list[Mark]:
    """Draw a thin line with an open head."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    head = [
        (end[0] - 8 * math.cos(angle + turn), end[1] - 8 * math.sin(angle + turn)) for turn in (0.5, -0.5)
    ]
    width = look["lineWidth"]
    return [
        *surface.line(start, end, color=_RANGE, width=width),
        *surface.line(head[0], end, head[1], color=_RANGE, width=width),
    ]


def _range_label(
    surface: Surface, request: DrawingRequest, edge: Point, text: str, *, above: bool = False
) -> list[Mark]:
    look = {**request.look, "textColor": _WHITE if request.look["fillLabelBackground"] else _RANGE}
    _, height = text_size(text, look)
    middle = (edge[0], edge[1] + (-1 if above else 1) * (height / 2 + 12))
    fill = _RANGE if look["fillLabelBackground"] else (0, 0, 0, 0)
    return surface.framed_text(text, middle, {**look, "lineWidth": 1}, fill, fill)


def _span(surface: Surface, inputs: Mapping[str, Any]) -> str:
    start, end = inputs["startDatetime"], inputs["endDatetime"]
    bars = round(surface.bar(end) - surface.bar(start))
    seconds = (end - start).total_seconds()
    days, hours = divmod(abs(int(seconds)), 86_400)
    sign = "-" if seconds < 0 else ""
    parts = [f"{days}d"] if days else []
    parts += [f"{hours // 3600}h"] if hours >= 3600 else []  # noqa: PLR2004  # an hour
    return f"{bars} bars, {sign}{' '.join(parts) or '0d'}"


def fib_retracement(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw levels at parts of the way between two prices: 0 at the end, 1 at the start."""
    look, inputs = request.look, request.inputs
    start, end = (surface.point(inputs, name) for name in ("start", "end"))
    left, right = sorted((start[0], end[0]))
    left = float(surface.pane[0]) if look["extendLeft"] else left
    right = float(surface.pane[2]) if look["extendLine"] or look["extendLines"] else right
    levels = [
        (one["coeff"], _fib_price(request, one["coeff"]), one["color"])
        for one in request.levels
        if one["visible"]
    ]
    marks: list[Mark] = []
    if look["fillBackground"]:
        opacity = (100 - look["transparency"]) / 100
        for (_, low, _), (_, high, color) in pairwise(sorted(levels)):
            corners = (left, surface.y(low)), (right, surface.y(high))
            marks += surface.box(*corners, with_opacity(color, opacity))
    for coeff, price, color in levels:
        y = surface.y(price)
        marks += surface.line((left, y), (right, y), color=color)
        marks += _fib_label(surface, look, (left, y, right, y), f"{coeff:g}", price, color)
    return marks + surface.line(start, end, color=GREY, style=LineStyle.DASHED)


def _fib_price(request: DrawingRequest, coeff: float) -> float:
    start, end = request.inputs["startPrice"], request.inputs["endPrice"]
    if request.look["reverseLevel"]:
        start, end = end, start
    if request.look["fibLevelBasedOnLogScale"] and min(start, end) > 0:
        return math.exp(math.log(end) + (math.log(start) - math.log(end)) * coeff)
    price: float = end + (start - end) * coeff
    return price


def _fib_label(
    surface: Surface,
    look: Mapping[str, Any],
    line: tuple[float, float, float, float],
    coeff: str,
    price: float,
    color: Color,
) -> list[Mark]:
    parts = []
    if look["showCoeff"]:
        parts.append(f"{float(coeff) * 100:g}%" if look["coeffAsPercent"] else coeff)
    if look["showPrice"]:
        parts.append(f"({surface.writer.value(price)})")
    text = " ".join(parts)
    width, _ = text_size(text, look)
    left, top, right, bottom = line
    if look["horzLabelAlign"] == "left":
        # The labels are outside, left of the levels, as long as there is room.
        left = max(left - width - 10, float(surface.pane[0]))
        right = left + width + 10
    return surface.aligned_text(text, look, box=(left, top, right, bottom), color=color)


def long_position(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw the areas of profit and loss of a bought position."""
    return _position(surface, request)


def short_position(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw the areas of profit and loss of a sold position."""
    return _position(surface, request)


def _position(surface: Surface, request: DrawingRequest) -> list[Mark]:
    look, inputs = request.look, request.inputs
    left = surface.x(inputs["startDatetime"])
    end = inputs["endDatetime"]
    right = left + _POSITION_BARS * surface.grid.pitch if end is None else surface.x(end)
    entry, target, stop = (surface.y(inputs[f"{name}Price"]) for name in ("entry", "target", "stop"))
    marks: list[Mark] = []
    if look["fillBackground"]:
        marks += surface.box((left, entry), (right, target), look["profitBackground"])
        marks += surface.box((left, entry), (right, stop), look["stopBackground"])
    marks += surface.line((left, entry), (right, entry), color=look["lineColor"], width=look["lineWidth"])
    for y in (target, stop):
        marks += surface.line((left, y), (right, y), color=look["borderColor"], width=look["lineWidth"])
    if look["showStats"]:
        for text, y, color in _stats(request, surface.writer.decimals, (entry, target, stop)):
            marks += surface.framed_text(
                text, ((left + right) / 2, y), {**look, "lineWidth": 1}, color, color
            )
    return marks


def _stats(
    request: DrawingRequest, decimals: int, rows: tuple[float, float, float]
) -> list[tuple[str, float, Color]]:
    """Return the texts of a position with their rows and colours: entry, target, stop."""
    look, inputs = request.look, request.inputs
    entry, target, stop = (inputs[f"{name}Price"] for name in ("entry", "target", "stop"))
    gain, loss = abs(target - entry), abs(entry - stop)
    risk = look["accountSize"] * look["risk"] / 100 if look["riskDisplayMode"] == "percents" else look["risk"]
    quantity = risk / (loss * look["lotSize"]) if loss and look["lotSize"] else 0.0
    ratio = gain / loss if loss else 0.0
    profit = look["accountSize"] + quantity * gain * look["lotSize"]
    rest = look["accountSize"] - risk
    gap = cap_height(look["fontSize"]) + 12
    away = -gap if rows[1] <= rows[0] else gap
    gains, losses = (f"{fixed(one, decimals)} ({fixed(_percent(one, entry), 2)}%)" for one in (gain, loss))
    texts = (
        (f"{quantity:.4g}, {ratio:.2f}", gains, losses)
        if look["showCompact"]
        else (
            f"Qty: {quantity:.4g}, Risk/Reward ratio: {ratio:.2f}",
            f"Target: {gains}, Amount: {compact(profit)}",
            f"Stop: {losses}, Amount: {compact(rest)}",
        )
    )
    colors = (
        (*look["lineColor"][:3], 255),
        (*look["profitBackground"][:3], 255),
        (*look["stopBackground"][:3], 255),
    )
    places = (rows[0], rows[1] + away, rows[2] - away)
    return list(zip(texts, places, colors, strict=True))


def order_line(surface: Surface, request: DrawingRequest) -> list[Mark]:
    """Draw an order at a price: a line, its text and its quantity in boxes near the right edge."""
    look, inputs = request.look, request.inputs
    price = inputs["price"] if inputs["price"] is not None else float(surface.candles.close[-1])
    y, (left, _, right, _) = surface.y(price), surface.pane
    look = {**look, "textColor": look["bodyTextColor"]}
    widths = [text_size(inputs[key], look)[0] + 15 for key in ("text", "quantity")]
    end = right - look["lineSpace"] / 100 * (right - left)
    middle, start = end - widths[1], end - widths[1] - widths[0]
    style = LineStyle(look["lineStyle"])
    line = {"color": look["lineColor"], "width": look["lineWidth"], "style": style}
    marks = surface.line((end, y), (right, y), **line)
    if look["extendLeft"]:
        marks += surface.line((left, y), (start, y), **line)
    body = (look["bodyBackgroundColor"], look["bodyBorderColor"])
    amount = (look["quantityBackgroundColor"], look["quantityBorderColor"])
    thin = {**look, "lineWidth": 1}
    marks += surface.framed_text(inputs["text"], ((start + middle) / 2, y), thin, *body)
    thin["textColor"] = look["quantityTextColor"]
    return marks + surface.framed_text(inputs["quantity"], ((middle + end) / 2, y), thin, *amount)
