"""Which bars are shown, and in which pixel columns.

TradingView's and Chart-IMG's default: a bar every 6 pixels and some room at the right, about 115 bars at 800
pixels; what came before is warm-up for the studies. A wider chart shows more bars as long as 200 are left for
warm-up; beyond that, and when there are few bars, they stand further apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from worker_chart_export.charts.local.studies.recursion import ENOUGH_BARS

_PITCH = 6
_MAX_PITCH = 16
#: Free pixels between the newest bar and the price axis.
_RIGHT_MARGIN = 30
#: Bars that are shown at the cost of warm-up.
_BARS_AT_LEAST = 115


@dataclass(frozen=True, slots=True, kw_only=True)
class BarGrid:
    """The columns of the bars shown.

    Attributes:
        first: Index in the history of the first bar shown.
        count: How many bars are shown.
        pitch: Pixels from one bar to the next.
        left: Pixel column where the first bar's slot begins.
    """

    first: int
    count: int
    pitch: int
    left: int

    @property
    def body(self) -> int:
        """Width of a candle body in pixels; odd, so that the wick stands in its middle."""
        # The share that Lightweight Charts (TradingView's open library) gives a body of this pitch.
        share = 1 - 0.2 * math.atan(max(4, self.pitch) - 4) / (math.pi / 2)
        width = int(self.pitch * share)
        return width if width % 2 else width - 1

    @property
    def centers(self) -> list[int]:
        """The pixel column in the middle of each bar."""
        start = self.left + (self.pitch - 1) // 2
        return [start + index * self.pitch for index in range(self.count)]


def bar_grid(history: int, *, left: int, right: int) -> BarGrid:
    """Choose the newest of `history` bars that fit between the pixel columns `left` and `right`."""
    room = right - left - _RIGHT_MARGIN
    count = min(history, room // _PITCH, max(history - ENOUGH_BARS, _BARS_AT_LEAST))
    pitch = min(_MAX_PITCH, room // count)
    return BarGrid(
        first=history - count, count=count, pitch=pitch, left=right - _RIGHT_MARGIN - count * pitch
    )
