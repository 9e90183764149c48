"""Where the panes and axes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from worker_chart_export.charts.local.primitives.marks import Box

TIME_AXIS_HEIGHT = 26
#: How much of the height the price pane takes for each part that a study's pane takes.
_MAIN_SHARE = 2.5
_MIN_MAIN = 100
_MIN_PANE = 46


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The areas of one picture.

    Attributes:
        width: Width of the picture.
        height: Height of the picture.
        right: Pixel column where the price axis begins; its first column is the border.
        panes: The price pane and below it the studies' panes, one pixel row apart.
    """

    width: int
    height: int
    right: int
    panes: tuple[Box, ...]

    @property
    def foot(self) -> int:
        """Pixel row where the time axis begins; its first row is the border."""
        return self.panes[-1][3]


def frame(size: tuple[int, int], *, axis_width: int, studies: int, main_height: int | None) -> Frame:
    """Divide a picture.

    Args:
        size: Width and height.
        axis_width: Width of the price axis.
        studies: How many studies need a pane of their own.
        main_height: Height of the price pane that the template asks for, if it does.

    Raises:
        RenderFailed: There is no room for that many panes.
    """
    width, height = size
    room = height - TIME_AXIS_HEIGHT - studies
    main = main_height or round(room * _MAIN_SHARE / (_MAIN_SHARE + studies))
    if studies == 0:
        main = room
    if main < _MIN_MAIN or room - main < _MIN_PANE * studies:
        raise RenderFailed(
            f"{studies} studies need a pane of their own, and a chart {height} pixels high has no room for "
            f"them under a price pane of {main}.",
            height=height,
        )
    right = width - axis_width
    cuts = [main + round((room - main) * n / studies) + n for n in range(1, studies + 1)]
    tops = [0, *(cut + 1 for cut in (main, *cuts[:-1]))]
    panes = tuple((0, top, right, bottom) for top, bottom in zip(tops, (main, *cuts), strict=False))
    return Frame(width=width, height=height, right=right, panes=panes)
