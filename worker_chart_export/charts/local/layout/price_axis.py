"""The value axis of one pane: round values, and filled labels at the latest ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.layout.labels import LABEL_HEIGHT, Label, arranged
from worker_chart_export.charts.local.layout.scale import ticks
from worker_chart_export.charts.local.primitives.marks import Rects, Text
from worker_chart_export.charts.local.primitives.text import cap_height, text_width
from worker_chart_export.charts.local.primitives.themes import text_on

if TYPE_CHECKING:
    from worker_chart_export.charts.local.layout.pane import Pane
    from worker_chart_export.charts.local.primitives.marks import Box, Mark
    from worker_chart_export.charts.local.primitives.themes import Theme

FONT_SIZE = 12
MIN_WIDTH = 64
_INDENT = 8
#: Pixels between two values on the axis, for a tall and for a low pane.
_WIDE_GAP, _NARROW_GAP, _TALL = 38, 24, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceAxis:
    """What stands on one pane's axis.

    Attributes:
        ticks: Pixel row and text of each round value.
        labels: The filled labels, moved apart.
    """

    ticks: tuple[tuple[int, str], ...]
    labels: tuple[Label, ...]

    @property
    def width(self) -> int:
        """The width in pixels that the longest text needs."""
        texts = [text for _, text in self.ticks] + [label.text for label in self.labels]
        return max([MIN_WIDTH, *(text_width(text, FONT_SIZE) + 2 * _INDENT for text in texts)])

    def grid(self, box: Box, theme: Theme) -> Rects:
        """A grid line across the pane at each round value."""
        rows = (row for row, _ in self.ticks if box[1] <= row < box[3])
        return Rects(boxes=tuple((box[0], row, box[2], row + 1) for row in rows), color=theme.grid)

    def marks(self, box: Box, right: int, theme: Theme) -> list[Mark]:
        """The texts and filled labels between the pane's edge and the pixel column `right`."""
        pen = box[2] + _INDENT
        marks: list[Mark] = [
            Text(x=pen, y=row, text=text, color=theme.text, size=FONT_SIZE)
            for row, text in self.ticks
            if self._is_free(row, box)
        ]
        for label in self.labels:
            top = label.row - LABEL_HEIGHT // 2
            edge = (box[2] + 1, top, right, top + LABEL_HEIGHT - 1)
            marks.append(Rects(boxes=(edge,), color=(*label.color[:3], 255)))
            marks.append(
                Text(x=pen, y=label.row, text=label.text, color=text_on(label.color), size=FONT_SIZE)
            )
        return marks

    def _is_free(self, row: int, box: Box) -> bool:
        half = cap_height(FONT_SIZE) // 2 + 2
        inside = box[1] + half + 1 <= row < box[3] - half - 1
        return inside and all(abs(row - label.row) > LABEL_HEIGHT // 2 + half for label in self.labels)


def price_axis(pane: Pane, labels: list[Label]) -> PriceAxis:
    """Choose the round values of a pane and arrange its labels."""
    gap = _WIDE_GAP if pane.box[3] - pane.box[1] > _TALL else _NARROW_GAP
    values, step = ticks(pane.scale, pane.box, gap=gap, unit=pane.writer.unit)
    marked = tuple((round(pane.scale.row(value)), pane.writer.tick(value, step)) for value in values)
    return PriceAxis(ticks=marked, labels=tuple(arranged(labels, pane.box[1], pane.box[3])))
