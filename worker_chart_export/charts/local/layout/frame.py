"""The areas of the panes, and the pixel columns of the bars shown.

By default TradingView and Chart-IMG show a bar every 6 pixels and leave some room at the right: about 115
bars on 800 pixels. The bars before them are warm-up for the studies. If few bars are left after the warm-up,
or the template asks for a range, the distance between bars is larger or smaller, in fractions of a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from worker_chart_export.charts.local.primitives.marks import Box

#: Height of the price pane, as a multiple of a study's pane.
_MAIN_SHARE = 2.5
_MIN_MAIN = 100
_MIN_PANE = 46
_PITCH = 6.0
_MAX_PITCH = 40.0
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
        pitch: Pixels from one bar to the next, not always whole.
        body: Width of a candle body in pixels; odd, so that the wick is in its middle.
        left: Where the first bar's room begins, in pixels.
        centers: The pixel column in the middle of each bar.
    """

    first: int
    count: int
    pitch: float
    body: int
    left: float
    centers: tuple[int, ...]

    def center(self, index: float) -> int:
        """Return the middle of a bar shown, or of one before or after them."""
        return math.floor(self.left + (index + 0.5) * self.pitch - 0.5)


def bar_grid(
    history: int, right: int, *, warm_up: int = 0, count: int | None = None, free: int = 0
) -> BarGrid:
    """Choose the newest of `history` bars that have room left of the pixel column `right`.

    Args:
        history: How many bars there are.
        right: Where the price axis begins.
        warm_up: So many bars before the first one shown are enough for the studies.
        count: How many bars the template asks for; None if the room decides.
        free: Bars of free room after the newest bar that the template asks for.

    Raises:
        RenderFailed: The free room leaves none for a bar.
    """
    room, asked = float(right - _RIGHT_MARGIN), count is not None
    if count is None:
        in_room = int(room // _PITCH)
        count = min(history, in_room, max(history - warm_up, _MIN_BARS))
        count = max(count - free, 0)
    slots = count + free
    if count < 1:
        raise RenderFailed(f"`shiftRight` {free} leaves no room for a bar.", field="shiftRight")
    # A range that the template asks for fills the picture.
    pitch = room / slots if asked else min(_MAX_PITCH, room / slots)
    # The share that Lightweight Charts (TradingView's open library) gives a body of this pitch.
    share = 1 - 0.2 * math.atan(max(4.0, pitch) - 4) / (math.pi / 2)
    width = max(int(pitch * share), 1)
    left = room - slots * pitch
    columns = np.floor(left + (np.arange(count) + 0.5) * pitch - 0.5)
    return BarGrid(
        first=history - count,
        count=count,
        pitch=pitch,
        body=width if width % 2 else width - 1,
        left=left,
        centers=tuple(columns.astype(int).tolist()),
    )


def pane_boxes(
    right: int, height: int, *, studies: int, main_height: int | None, has_main: bool = True
) -> tuple[Box, ...]:
    """Divide a picture into the price pane and below it the studies' panes, one pixel row apart.

    Args:
        right: Pixel column where the price axis begins; its first column is the border.
        height: Height of all panes together.
        studies: How many studies need a pane of their own.
        main_height: Height of the price pane in the template; None if it is not set.
        has_main: Whether there is a price pane.

    Raises:
        RenderFailed: There is no room for that many panes.
    """
    if not has_main:
        if height < _MIN_PANE * studies:
            raise RenderFailed(
                f"{height} pixels above the time axis have no room for so many panes of studies: {studies}.",
                height=height,
            )
        return _boxes(right, [round(height * n / studies) for n in range(1, studies + 1)])
    room = height - studies
    main = main_height or round(room * _MAIN_SHARE / (_MAIN_SHARE + studies))
    if studies == 0:
        main = room
    if main < _MIN_MAIN or room - main < _MIN_PANE * studies:
        raise RenderFailed(
            f"{height} pixels above the time axis have no room for a price pane of {main} and so many panes "
            f"of studies: {studies}.",
            height=height,
        )
    return _boxes(
        right, [main, *(main + round((room - main) * n / studies) + n for n in range(1, studies + 1))]
    )


def _boxes(right: int, cuts: list[int]) -> tuple[Box, ...]:
    """Return boxes that end at the pixel rows `cuts`; each begins a row below the one before."""
    tops = [0, *(cut + 1 for cut in cuts)]
    return tuple((0, top, right, bottom) for top, bottom in zip(tops, cuts, strict=False))
