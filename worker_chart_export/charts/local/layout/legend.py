"""The lines in the upper left corner of a pane: what is drawn there, and its latest values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from worker_chart_export.charts.local.layout.number_format import Writer, fixed, signed
from worker_chart_export.charts.local.primitives.colors import readable
from worker_chart_export.charts.local.primitives.marks import Text
from worker_chart_export.charts.local.primitives.text import text_width
from worker_chart_export.charts.local.studies.study import PlotType

if TYPE_CHECKING:
    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.options import ChartOptions
    from worker_chart_export.charts.local.layout.sizes import Sizes
    from worker_chart_export.charts.local.primitives.colors import Theme
    from worker_chart_export.charts.local.primitives.marks import Box
    from worker_chart_export.charts.local.studies.study import Study

#: Texts without a gap between them, e.g. `O` and its price. A line breaks only between groups.
Group: TypeAlias = tuple[tuple[str, "Color"], ...]
Line: TypeAlias = tuple[Group, ...]

#: Plots of these types have a value at some bars only. Their legend shows none where there is none.
_SINGLE_MARKS = (PlotType.CROSS, PlotType.CIRCLES, PlotType.TRIANGLE_UP, PlotType.TRIANGLE_DOWN)
_INDENT = 8
_GAP = 7
_TOP = 3
#: Largest part of the price pane that its legend takes.
_MAX_SHARE = 0.4


def symbol_line(candles: Candles, options: ChartOptions, theme: Theme, decimals: int) -> Line:
    """Describe the price: symbol, time frame, the last bar's prices, and its change from the bar before."""
    title: Group = ((f"{options.symbol} · {options.timeframe.label}", theme.strong),)
    show = options.visible
    rose = candles.close[-1] >= candles.open[-1]
    color = readable(theme.rising if rose else theme.falling, theme.bottom)
    prices = zip("OHLC", (candles.open, candles.high, candles.low, candles.close), strict=True)
    groups: list[Group] = [title]
    if show.prices:
        groups += [((letter, theme.text), (fixed(float(p[-1]), decimals), color)) for letter, p in prices]
    if show.change and len(candles) > 1:
        change = float(candles.close[-1] - candles.close[-2])
        percent = signed(100 * change / abs(float(candles.close[-2])), 2)
        tint = readable(theme.rising if change >= 0 else theme.falling, theme.bottom)
        groups.append(((f"{signed(change, decimals)} ({percent}%)", tint),))
    return tuple(groups)


def study_line(study: Study, writer: Writer, theme: Theme, *, values: bool) -> Line:
    """Describe a study: its name and inputs, and its plots' latest values in their colours."""
    groups: list[Group] = [((study.title, theme.text),)]
    if values and study.profile:
        profile = study.profile.profile
        price = writer.value(profile.control_price if profile else float("nan"))
        color = study.profile.control.color if study.profile.control else theme.text
        groups.append((("POC ", theme.text), (price, color)))
    elif values:
        groups += [
            ((writer.value(plot.last), readable(plot.color, theme.bottom)),)
            for plot in study.plots
            if not (plot.type in _SINGLE_MARKS and math.isnan(plot.last))
        ]
    return tuple(groups)


def fitting_lines(lines: list[Line], pane: Box, sizes: Sizes, theme: Theme) -> list[Line]:
    """Return the first lines, as many as leave most of the pane to the prices, and the number of the others.

    The first line is always kept.
    """
    rows = [len(_rows(line, pane, sizes.legend)) for line in lines]
    room = _MAX_SHARE * (pane[3] - pane[1]) // sizes.legend_line_height
    if sum(rows) <= room:
        return lines
    kept = 1
    while sum(rows[: kept + 1]) < room:  # the number of the others takes a row
        kept += 1
    if sum(rows[kept:]) <= 1:
        return lines
    return [*lines[:kept], (((f"+{len(lines) - kept} more", theme.text),),)]


def legend_texts(lines: list[Line], pane: Box, sizes: Sizes) -> tuple[tuple[Text, ...], int]:
    """Place legend lines in a pane. Lines that are too wide are broken; texts without room are left out.

    Returns:
        The texts, and the height in pixels of all lines from the upper edge of the pane.
    """
    texts: list[Text] = []
    size, height = sizes.legend, sizes.legend_line_height
    middle = pane[1] + _TOP + height // 2
    for row in (row for line in lines for row in _rows(line, pane, size)):
        pen = _INDENT
        for group in row:
            for text, color in group:
                shown = _shortened(text, pane[2] - pen - _GAP, size)
                texts.append(Text(x=pen, y=middle, text=shown, color=color, size=size))
                pen += text_width(text, size)
            pen += _GAP
        middle += height
    fitting = tuple(text for text in texts if text.y + height // 2 < pane[3])
    return fitting, middle - height // 2 - pane[1]


def _rows(line: Line, pane: Box, size: int) -> list[list[Group]]:
    """Break a line that is wider than the pane into rows."""
    rows: list[list[Group]] = [[]]
    pen = _INDENT
    for group in line:
        width = sum(text_width(text, size) for text, _ in group)
        if rows[-1] and pen + width > pane[2] - _GAP:
            rows.append([])
            pen = _INDENT
        rows[-1].append(group)
        pen += width + _GAP
    return rows


def _shortened(text: str, room: int, size: int) -> str:
    """Cut `text` with an ellipsis if it is wider than `room` pixels."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "…", size) > room:
        text = text[:-1]
    return text + "…"
