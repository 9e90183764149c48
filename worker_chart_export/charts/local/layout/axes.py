"""The value axis of each pane and the time axis: round values, dates, and labels at the latest values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.layout.scale import ticks
from worker_chart_export.charts.local.primitives.text import text_width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.layout.frame import BarGrid
    from worker_chart_export.charts.local.layout.number_format import Writer
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box

FONT_SIZE = 12
#: Free pixels beside each text on a value axis.
AXIS_INDENT = 8
MIN_AXIS_WIDTH = 64
LABEL_HEIGHT = 17
#: Pixels between two values on the axis, for a tall and for a low pane.
_WIDE_GAP, _NARROW_GAP, _TALL = 38, 24, 200
#: Free pixels between two dates, and between a date and the edge.
_DATE_GAP, _EDGE = 32, 2
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_YEAR, _MONTH, _DAY = 100, 90, 80
#: Times of day at multiples of so many minutes are labelled first, in this order.
_ROUND_MINUTES = (720, 360, 180, 60, 30, 15, 5, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One filled label on a value axis.

    Attributes:
        row: Pixel row of its middle.
        text: Its text.
        color: Its background.
        fixed: Whether it must stay at its row. This is so for the last price: its dotted line ends there.
    """

    row: int
    text: str
    color: Color
    fixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceAxis:
    """The value axis of one pane.

    Attributes:
        ticks: Pixel row and text of each round value.
        labels: The filled labels, moved apart.
        width: The width in pixels that the longest text needs.
    """

    ticks: tuple[tuple[int, str], ...]
    labels: tuple[Label, ...]
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLabel:
    """One date or time under the chart.

    Attributes:
        left: First pixel column of its text.
        right: Pixel column after its end.
        center: Pixel column of its bar.
        text: The date or time.
        strong: Whether it names a year.
    """

    left: int
    right: int
    center: int
    text: str
    strong: bool


def price_axis(box: Box, scale: Scale, writer: Writer, labels: list[Label]) -> PriceAxis:
    """Choose the round values of a pane and arrange its labels."""
    gap = _WIDE_GAP if box[3] - box[1] > _TALL else _NARROW_GAP
    written = writer.converted(scale)
    values, step = ticks(written, box, gap=gap, unit=writer.unit)
    marked = tuple((round(written.row(value)), writer.tick(value, step)) for value in values)
    arranged = arrange_labels(labels, box[1], box[3])
    texts = [text for _, text in marked] + [label.text for label in arranged]
    width = max([MIN_AXIS_WIDTH, *(text_width(text, FONT_SIZE) + 2 * AXIS_INDENT for text in texts)])
    return PriceAxis(ticks=marked, labels=tuple(arranged), width=width)


def arrange_labels(labels: list[Label], top: int, bottom: int) -> list[Label]:
    """Move labels so that none overlaps another or leaves the pixel rows `top` to `bottom`.

    The order by value is kept and the fixed label stays. If there is no room for all, the last ones of the
    list are left out.
    """
    inside = [label for label in labels if top <= label.row < bottom]
    fixed = next((label for label in inside if label.fixed), None)
    if fixed is None:
        return _spread(inside, top, bottom)
    half = LABEL_HEIGHT // 2
    placed = replace(fixed, row=min(max(fixed.row, top + half), bottom - LABEL_HEIGHT + half))
    end = placed.row - half
    free = [label for label in inside if label is not fixed]
    above = _spread([label for label in free if label.row <= fixed.row], top, end)
    below = _spread([label for label in free if label.row > fixed.row], end + LABEL_HEIGHT, bottom)
    return [*above, placed, *below]


def _spread(labels: list[Label], top: int, bottom: int) -> list[Label]:
    kept = labels[: max(0, (bottom - top) // LABEL_HEIGHT)]
    kept.sort(key=lambda label: label.row)
    rows = [label.row for label in kept]
    lowest = top + LABEL_HEIGHT // 2
    for index, row in enumerate(rows):
        rows[index] = lowest = max(row, lowest)
        lowest += LABEL_HEIGHT
    highest = bottom - LABEL_HEIGHT + LABEL_HEIGHT // 2
    for index in reversed(range(len(rows))):
        rows[index] = highest = min(rows[index], highest)
        highest -= LABEL_HEIGHT
    return [replace(label, row=row) for label, row in zip(kept, rows, strict=True)]


def time_labels(
    dates: Sequence[datetime], grid: BarGrid, *, zone: tzinfo | None, right: int
) -> list[TimeLabel]:
    """Choose the dates under the chart: the most important first, then others that have room between them.

    Args:
        dates: All bars of the history.
        grid: The bars shown.
        zone: Time zone of bars shorter than a day; None for longer ones, whose date is not converted.
        right: Pixel column where all labels must end.

    Returns:
        The labels from left to right.
    """
    before = max(grid.first - 1, 0)
    local = [date.astimezone(zone) if zone else date for date in dates[before:]]
    marks = [_mark(local[max(n - 1, 0)], date) for n, date in enumerate(local)][grid.first - before :]
    chosen: list[TimeLabel] = []
    for index in sorted(range(grid.count), key=lambda n: -marks[n][0]):
        rank, text = marks[index]
        center, width = grid.centers[index], text_width(text, FONT_SIZE)
        left = center - width // 2
        end = left + width
        free = all(left >= other.right + _DATE_GAP or end + _DATE_GAP <= other.left for other in chosen)
        if free and left >= _EDGE and end <= right - _EDGE:
            strong = rank == _YEAR
            chosen.append(TimeLabel(left=left, right=end, center=center, text=text, strong=strong))
    return sorted(chosen, key=lambda label: label.left)


def _mark(before: datetime, date: datetime) -> tuple[int, str]:
    """Return the rank of a bar's date (the highest is labelled first) and its text.

    A date has a high rank if its year, month or day differs from the bar before it.
    """
    if date.year != before.year:
        return _YEAR, str(date.year)
    if date.month != before.month:
        return _MONTH, _MONTHS[date.month - 1]
    if date.date() != before.date() or date == before:
        return _DAY, str(date.day)
    minute, minute_before = date.hour * 60 + date.minute, before.hour * 60 + before.minute
    crossed = (n for n, size in enumerate(_ROUND_MINUTES) if minute // size != minute_before // size)
    return _DAY - 1 - next(crossed, len(_ROUND_MINUTES)), f"{date:%H:%M}"
