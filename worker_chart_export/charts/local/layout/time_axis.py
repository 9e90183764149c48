"""Dates under the chart: the most telling bars are labelled first, then what fits between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.primitives.text import text_width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from worker_chart_export.charts.local.layout.bars import BarGrid

FONT_SIZE = 12
#: Free pixels between two labels.
_GAP = 32
_EDGE = 2
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_YEAR, _MONTH, _DAY = 100, 90, 80
#: Minutes whose multiples are rounder times of day than what stands further right.
_ROUND_MINUTES = (720, 360, 180, 60, 30, 15, 5, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLabel:
    """One date or time under the chart.

    Attributes:
        left: Pixel column where its text begins.
        right: Pixel column after its end.
        center: Pixel column of the bar it belongs to.
        text: What it says.
        strong: Whether it names a year.
    """

    left: int
    right: int
    center: int
    text: str
    strong: bool


def time_labels(
    dates: Sequence[datetime], grid: BarGrid, *, zone: tzinfo | None, right: int
) -> list[TimeLabel]:
    """Labels for the bars shown, none closer than `_GAP` to another, from left to right.

    Args:
        dates: All bars of the history.
        grid: Which of them are shown, and where.
        zone: Time zone of bars shorter than a day; None for longer ones, whose date is taken as it stands.
        right: Pixel column that no label may reach.
    """
    before = max(grid.first - 1, 0)
    local = [date.astimezone(zone) if zone else date for date in dates[before:]]
    marks = [_mark(local[max(n - 1, 0)], moment) for n, moment in enumerate(local)][grid.first - before :]
    centers = grid.centers
    chosen: list[TimeLabel] = []
    for index in sorted(range(grid.count), key=lambda n: -marks[n][0]):
        rank, text = marks[index]
        center, width = centers[index], text_width(text, FONT_SIZE)
        left = center - width // 2
        end = left + width
        free = all(left >= other.right + _GAP or end + _GAP <= other.left for other in chosen)
        if free and left >= _EDGE and end <= right - _EDGE:
            strong = rank == _YEAR
            chosen.append(TimeLabel(left=left, right=end, center=center, text=text, strong=strong))
    return sorted(chosen, key=lambda label: label.left)


def _mark(before: datetime, moment: datetime) -> tuple[int, str]:
    """How telling a bar's date is after the bar before it, and what to write there."""
    if moment.year != before.year:
        return _YEAR, str(moment.year)
    if moment.month != before.month:
        return _MONTH, _MONTHS[moment.month - 1]
    if moment.date() != before.date() or moment == before:
        return _DAY, str(moment.day)
    minute, minute_before = moment.hour * 60 + moment.minute, before.hour * 60 + before.minute
    places = range(len(_ROUND_MINUTES))
    crossed = (n for n in places if minute // _ROUND_MINUTES[n] != minute_before // _ROUND_MINUTES[n])
    return _DAY - 1 - next(crossed, len(_ROUND_MINUTES)), f"{moment:%H:%M}"
