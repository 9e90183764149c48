"""All drawings by Chart-IMG's names, and the order in which they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from worker_chart_export.charts.local.drawing.annotations import measures, shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker_chart_export.charts.local.drawing.annotations.surface import Surface
    from worker_chart_export.charts.local.input.options import DrawingRequest
    from worker_chart_export.charts.local.primitives.marks import Mark

    Draw: TypeAlias = Callable[[Surface, DrawingRequest], list[Mark]]

DRAWINGS: Mapping[str, Draw] = {
    "Order Line": measures.order_line,
    "Trend Line": shapes.trend_line,
    "Horizontal Line": shapes.horizontal_line,
    "Vertical Line": shapes.vertical_line,
    "Long Position": measures.long_position,
    "Short Position": measures.short_position,
    "Fib Retracement": measures.fib_retracement,
    "Date Range": measures.date_range,
    "Date Price Range": measures.date_price_range,
    "Rectangle": shapes.rectangle,
    "Arrow Marker": shapes.arrow_marker,
    "Arrow Mark Up": shapes.arrow_mark_up,
    "Arrow Mark Down": shapes.arrow_mark_down,
    "Text": shapes.text,
    "Callout": shapes.callout,
}
_ORDER = {"bottom": 0, None: 1, "top": 2}


def drawing_marks(surface: Surface, drawings: Sequence[DrawingRequest]) -> list[Mark]:
    """Draw all drawings; `zOrder` puts one below or above the others."""
    marks: list[Mark] = []
    for drawing in sorted(drawings, key=lambda one: _ORDER[one.z_order]):
        marks += DRAWINGS[drawing.name](surface, drawing)
    return marks


def time_axis_marks(surface: Surface, drawings: Sequence[DrawingRequest]) -> list[Mark]:
    """Draw the labels of drawings on the time axis."""
    return [
        mark
        for drawing in drawings
        if drawing.name == "Vertical Line" and drawing.look["showTime"]
        for mark in shapes.time_label(surface, drawing)
    ]
