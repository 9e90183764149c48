"""The areas of the panes, and the pixel columns of the bars shown.

By default TradingView and Chart-IMG show a bar every 6 pixels and leave some room at the right: about 115
bars on 800 pixels. The bars before them are warm-up for the studies. A wider chart shows more bars as long as
200 are left for warm-up. Otherwise, and if there are few bars, the distance between bars is larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from worker_chart_export.charts.local.primitives.marks import Box

TIME_AXIS_HEIGHT = 26
#: So many bars before the first one shown are enough for every usual study.
_WARM_UP_BARS = 200
#: Height of the price pane, as a multiple of a study's pane.
_MAIN_SHARE = 2.5
_MIN_MAIN = 100
_MIN_PANE = 46
_PITCH = 6
_MAX_PITCH = 16
#: Free pixels between the newest bar and the price axis.
_RIGHT_MARGIN = 30
#: At least this many bars are shown, even if too few are left for warm-up.
_MIN_BARS = 115


@dataclass(frozen=True, slots=True, kw_only=True)
class BarGrid:
    """The pixel columns of the bars shown.

    Attributes:
        first: Index in the history of the first bar shown.
        count: How many bars are shown.
        pitch: Pixels from one bar to the next.
        body: Width of a candle body in pixels; odd, so that the wick is in its middle.
        centers: The pixel column in the middle of each bar.
    """

    first: int
    count: int
    pitch: int
    body: int
    centers: tuple[int, ...]

    def center(self, index: int) -> int:
        """Return the middle of a bar shown, or of a later one to the right of the newest."""
        return self.centers[0] + index * self.pitch


def bar_grid(history: int, right: int) -> BarGrid:
    """Choose the newest of `history` bars that have room left of the pixel column `right`."""
    room = right - _RIGHT_MARGIN
    count = min(history, room // _PITCH, max(history - _WARM_UP_BARS, _MIN_BARS))
    pitch = min(_MAX_PITCH, room // count)
    # The share that Lightweight Charts (TradingView's open library) gives a body of this pitch.
    share = 1 - 0.2 * math.atan(max(4, pitch) - 4) / (math.pi / 2)
    width = int(pitch * share)
    left = room - count * pitch + (pitch - 1) // 2
    return BarGrid(
        first=history - count,
        count=count,
        pitch=pitch,
        body=width if width % 2 else width - 1,
        centers=tuple(left + index * pitch for index in range(count)),
    )


def pane_boxes(right: int, height: int, *, studies: int, main_height: int | None) -> tuple[Box, ...]:
    """Divide a picture into the price pane and below it the studies' panes, one pixel row apart.

    Args:
        right: Pixel column where the price axis begins; its first column is the border.
        height: Height of the picture.
        studies: How many studies need a pane of their own.
        main_height: Height of the price pane in the template; None if it is not set.

    Raises:
        RenderFailed: There is no room for that many panes.
    """
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
    cuts = [main + round((room - main) * n / studies) + n for n in range(1, studies + 1)]
    tops = [0, *(cut + 1 for cut in (main, *cuts[:-1]))]
    return tuple((0, top, right, bottom) for top, bottom in zip(tops, (main, *cuts), strict=False))
