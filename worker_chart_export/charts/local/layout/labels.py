"""The filled labels on the price axis: one per last value, moved apart so that none covers another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.charts.local.primitives.colors import Color

LABEL_HEIGHT = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One filled axis label.

    Attributes:
        row: Pixel row of its middle.
        text: What it says.
        color: Its background.
        fixed: Whether it must stay at its row (the last price, which its dotted line points at).
    """

    row: int
    text: str
    color: Color
    fixed: bool = False


def arranged(labels: list[Label], top: int, bottom: int) -> list[Label]:
    """Labels moved so that none overlaps another or leaves the pixel rows `top` to `bottom`.

    Order by value is kept and the fixed label stays. Where there is no room for all, the last ones given go.
    """
    inside = [label for label in labels if top <= label.row < bottom]
    anchor = next((label for label in inside if label.fixed), None)
    if anchor is None:
        return _spread(inside, top, bottom)
    placed = _within(anchor, top, bottom)
    upper_end = placed.row - LABEL_HEIGHT // 2
    free = [label for label in inside if label is not anchor]
    above = _spread([label for label in free if label.row <= anchor.row], top, upper_end)
    below = _spread([label for label in free if label.row > anchor.row], upper_end + LABEL_HEIGHT, bottom)
    return [*above, placed, *below]


def _within(label: Label, top: int, bottom: int) -> Label:
    half = LABEL_HEIGHT // 2
    return replace(label, row=min(max(label.row, top + half), bottom - LABEL_HEIGHT + half))


def _spread(labels: list[Label], top: int, bottom: int) -> list[Label]:
    kept = labels[: max(0, (bottom - top) // LABEL_HEIGHT)]
    kept.sort(key=lambda label: label.row)
    rows = [label.row for label in kept]
    floor = top + LABEL_HEIGHT // 2
    for index, row in enumerate(rows):
        rows[index] = floor = max(row, floor)
        floor += LABEL_HEIGHT
    ceiling = bottom - LABEL_HEIGHT + LABEL_HEIGHT // 2
    for index in reversed(range(len(rows))):
        rows[index] = ceiling = min(rows[index], ceiling)
        ceiling -= LABEL_HEIGHT
    return [replace(label, row=row) for label, row in zip(kept, rows, strict=True)]
