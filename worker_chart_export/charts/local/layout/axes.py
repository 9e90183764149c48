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
    from worker_chart_export.charts.local.layout.sizes import Sizes
    from worker_chart_export.charts.local.primitives.marks import Box

#: Free pixels beside each text on a value axis.
AXIS_INDENT = 8
MIN_AXIS_WIDTH = 64
#: The usual height of a filled label.
_LABEL_HEIGHT = 17
#: Pixels between two values on the axis, for a tall pane, a low one, and where labels cover most of them.
_GAPS, _TALL = (38, 24, 17), 200
_MIN_TICKS = 2
#: Pixels between a level and a round value.
_LEVEL_GAP = 16
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
        name: What the value is of, written left of the axis; empty for nothing.
    """

    row: int
    text: str
    color: Color
    fixed: bool = False
    name: str = ""


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


def price_axis(
    box: Box,
    scale: Scale,
    writer: Writer,
    labels: list[Label],
    *,
    sizes: Sizes,
    levels: Sequence[float] = (),
) -> PriceAxis:
    """Choose the values on a pane's axis and arrange its labels.

    Args:
        box: The pane.
        scale: Its scale.
        writer: Writes the values.
        labels: The labels at the latest values.
        sizes: The sizes of texts.
        levels: Values that are always written if there is room, e.g. the limits of a study.
    """
    arranged = arrange_labels(labels, box[1], box[3], sizes.label_height)
    written = writer.converted(scale)
    taller = sizes.label_height - _LABEL_HEIGHT
    gaps = [gap + taller for gap in (_GAPS if box[3] - box[1] > _TALL else _GAPS[1:])]
    for gap in gaps:
        marked = _marked(box, written, writer, gap, levels)
        # A small pane keeps at least two values that no label covers.
        if sum(_is_free(row, arranged, sizes.label_height) for row, _ in marked) >= _MIN_TICKS:
            break
    texts = [text for _, text in marked] + [label.text for label in arranged]
    width = max([MIN_AXIS_WIDTH, *(text_width(text, sizes.axis) + 2 * AXIS_INDENT for text in texts)])
    return PriceAxis(ticks=marked, labels=tuple(arranged), width=width)


def _marked(
    box: Box, scale: Scale, writer: Writer, gap: int, levels: Sequence[float]
) -> tuple[tuple[int, str], ...]:
    """Return rows and texts: the levels first, then round values with room between them."""
    values, step = ticks(scale, box, gap=gap, unit=writer.unit)
    chosen = [(round(scale.row(level)), writer.value(level)) for level in levels]
    chosen = [(row, text) for row, text in chosen if box[1] <= row < box[3]]
    for value in values:
        row = round(scale.row(value))
        if all(abs(row - other) >= _LEVEL_GAP for other, _ in chosen[: len(levels)]):
            chosen.append((row, writer.tick(value, step)))
    return tuple(chosen)


def _is_free(row: int, labels: Sequence[Label], height: int) -> bool:
    return all(abs(row - label.row) > height for label in labels)


def arrange_labels(labels: list[Label], top: int, bottom: int, height: int) -> list[Label]:
    """Move labels of a `height` so that none overlaps another or leaves the pixel rows `top` to `bottom`.

    The order by value is kept and the fixed label stays. If there is no room for all, the last ones of the
    list are left out.
    """
    inside = [label for label in labels if top <= label.row < bottom]
    fixed = next((label for label in inside if label.fixed), None)
    if fixed is None:
        return _spread(inside, top, bottom, height)
    half = height // 2
    placed = replace(fixed, row=min(max(fixed.row, top + half), bottom - height + half))
    end = placed.row - half
    free = [label for label in inside if label is not fixed]
    above = _spread([label for label in free if label.row <= fixed.row], top, end, height)
    below = _spread([label for label in free if label.row > fixed.row], end + height, bottom, height)
    return [*above, placed, *below]


def _spread(labels: list[Label], top: int, bottom: int, height: int) -> list[Label]:
    kept = labels[: max(0, (bottom - top) // height)]
    kept.sort(key=lambda label: label.row)
    rows = [label.row for label in kept]
    lowest = top + height // 2
    for index, row in enumerate(rows):
        rows[index] = lowest = max(row, lowest)
        lowest += height
    highest = bottom - height + height // 2
    for index in reversed(range(len(rows))):
        rows[index] = highest = min(rows[index], highest)
        highest -= height
    return [replace(label, row=row) for label, row in zip(kept, rows, strict=True)]


def time_labels(
    dates: Sequence[datetime],
    grid: BarGrid,
    *,
    zone: tzinfo | None,
    right: int,
    size: int,
    long_bars: bool = False,
) -> list[TimeLabel]:
    """Choose the dates under the chart: the most important first, then others that have room between them.

    Without a year among them, the first month is written with its year, or else the first day or hour.

    Args:
        dates: All bars of the history.
        grid: The bars shown.
        zone: Time zone of bars shorter than a day; None for longer ones, whose date is not converted.
        right: Pixel column where all labels must end.
        size: Size of the texts in pixels.
        long_bars: Whether bars are of a week or longer; then single days are named only without a month.

    Returns:
        The labels from left to right.
    """
    before = max(grid.first - 1, 0)
    local = [date.astimezone(zone) if zone else date for date in dates[before:]]
    marks = [_mark(local[max(n - 1, 0)], date) for n, date in enumerate(local)][grid.first - before :]
    shown = local[grid.first - before :]
    if long_bars and any(rank >= _MONTH for rank, _ in marks):
        marks = [(rank if rank >= _MONTH else 0, text) for rank, text in marks]
    marks = _with_first_month(marks, shown)
    placer = _Placer(grid, right, size)
    if not any(rank == _YEAR for rank, _ in marks):
        _place_full_date(placer, grid, marks, shown, zone)
    for index in sorted(range(grid.count), key=lambda n: -marks[n][0]):
        rank, text = marks[index]
        if rank:
            placer.place(index, text, strong=rank == _YEAR)
    return sorted(placer.chosen, key=lambda label: label.left)


def _with_first_month(marks: Sequence[tuple[int, str]], shown: Sequence[datetime]) -> list[tuple[int, str]]:
    """Add the month to the days before the first month or year: else they look like days of that one."""
    first = next((index for index, (rank, _) in enumerate(marks) if rank >= _MONTH), 0)
    return [
        (rank, f"{text} {_MONTHS[date.month - 1]}" if rank == _DAY and index < first else text)
        for index, ((rank, text), date) in enumerate(zip(marks, shown, strict=True))
    ]


class _Placer:
    """Collects labels that leave room between them."""

    def __init__(self, grid: BarGrid, right: int, size: int) -> None:
        self._grid, self._right, self._size = grid, right, size
        self.chosen: list[TimeLabel] = []

    def place(self, index: int, text: str, *, strong: bool) -> None:
        """Add a label under a bar, if there is room."""
        center, width = self._grid.center(index), text_width(text, self._size)
        left = center - width // 2
        end = left + width
        free = all(left >= other.right + _DATE_GAP or end + _DATE_GAP <= other.left for other in self.chosen)
        if free and left >= _EDGE and end <= self._right - _EDGE:
            self.chosen.append(TimeLabel(left=left, right=end, center=center, text=text, strong=strong))


def _place_full_date(
    placer: _Placer,
    grid: BarGrid,
    marks: Sequence[tuple[int, str]],
    shown: Sequence[datetime],
    zone: tzinfo | None,
) -> None:
    """Write one date with its year, so that a reader can date the chart."""
    for rank in (_MONTH, 1):
        for index in range(grid.count):
            if marks[index][0] >= rank and not placer.chosen:
                date = shown[index]
                text = f"{_MONTHS[date.month - 1]} {date.year}"
                if rank != _MONTH:
                    text = f"{date.day} {text}"
                    text += f" {date:%H:%M}" if zone and (date.hour or date.minute) else ""
                placer.place(index, text, strong=False)


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
