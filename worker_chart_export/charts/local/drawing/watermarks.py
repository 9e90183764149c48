"""Texts in the middle of the price pane, behind the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.primitives.colors import with_opacity
from worker_chart_export.charts.local.primitives.marks import Text
from worker_chart_export.charts.local.primitives.text import text_width

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.options import ChartOptions
    from worker_chart_export.charts.local.primitives.colors import Theme
    from worker_chart_export.charts.local.primitives.marks import Box

#: Part of the pane's width that the symbol may fill, and its largest size in pixels.
_SYMBOL_PART, _SYMBOL_SIZE = 0.6, 96
_SYMBOL_OPACITY = 0.12


def watermarks(options: ChartOptions, pane: Box, theme: Theme) -> list[Text]:
    """Write the symbol with its timeframe, and the template's own text below it."""
    left, top, right, bottom = pane
    row, marks = (top + bottom) // 2, []
    if options.visible.symbol_watermark:
        text = f"{options.symbol}, {options.timeframe.label}"
        room = _SYMBOL_PART * (right - left)
        size = min(_SYMBOL_SIZE, max(12, int(12 * room / max(text_width(text, 12), 1))))
        color = with_opacity(theme.strong, _SYMBOL_OPACITY)
        x = (left + right - text_width(text, size)) // 2
        marks.append(Text(x=x, y=row, text=text, color=color, size=size, clip=pane))
        row += size
    if options.watermark:
        size = options.watermark_size
        color = with_opacity(theme.text, options.watermark_opacity)
        x = (left + right - text_width(options.watermark, size)) // 2
        marks.append(Text(x=x, y=row, text=options.watermark, color=color, size=size, clip=pane))
    return marks
