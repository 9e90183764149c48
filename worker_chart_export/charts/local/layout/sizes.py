"""The sizes of texts and lines, which grow with large pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.options import ChartOptions

_LEGEND, _LARGE_LEGEND = 12, 14
#: Pictures of at least this size are read from further away.
_LARGE_WIDTH, _LARGE_HEIGHT = 1600, 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes in pixels.

    Attributes:
        axis: Texts on the axes.
        legend: Texts of the legends.
        line: What line widths are multiplied with.
    """

    axis: int
    legend: int
    line: float

    @property
    def label_height(self) -> int:
        """The height of a filled label on a value axis."""
        return self.axis + 5

    @property
    def time_axis_height(self) -> int:
        """The height of the time axis."""
        return self.axis + 14

    @property
    def legend_line_height(self) -> int:
        """The distance of two lines of a legend."""
        return self.legend + 5


def sizes_of(options: ChartOptions) -> Sizes:
    """Return the sizes of a picture."""
    is_large = options.width >= _LARGE_WIDTH and options.height >= _LARGE_HEIGHT
    return Sizes(
        axis=options.font_size + 2 * is_large,
        legend=_LARGE_LEGEND if is_large else _LEGEND,
        line=1.5 if is_large else 1.0,
    )
