"""How much was traded at which price in the bars shown.

Each bar's volume is spread evenly over the price rows that its range covers, and counted as bought when the
bar closed at or above its open. TradingView works from bars of a smaller time frame, which a candle file
does not hold, so its profile of the same bars differs in detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeProfile:
    """Volume by price row, lowest row first.

    Attributes:
        edges: Row borders, one more than there are rows.
        up: Volume of rising bars in each row.
        down: Volume of falling bars in each row.
        control: Index of the row with the most volume (point of control).
        area: First row of the value area and the row after its last.
    """

    edges: Series
    up: Series
    down: Series
    control: int
    area: tuple[int, int]

    @property
    def control_price(self) -> float:
        """The middle of the row with the most volume."""
        return float(self.edges[self.control] + self.edges[self.control + 1]) / 2


def volume_profile(candles: Candles, *, rows: int, area_percent: float) -> VolumeProfile | None:
    """Build the profile of `candles`; None when they hold no volume at all."""
    if not candles.volume.any():
        return None
    edges = np.linspace(candles.low.min(), candles.high.max(), rows + 1)
    shares = _shares(candles, edges)
    rising = candles.close >= candles.open
    up = (shares * np.where(rising, candles.volume, 0.0)).sum(axis=1)
    down = (shares * np.where(rising, 0.0, candles.volume)).sum(axis=1)
    total = up + down
    control = int(total.argmax())
    area = value_area(total.tolist(), control, area_percent)
    return VolumeProfile(edges=edges, up=up, down=down, control=control, area=area)


def _shares(candles: Candles, edges: Series) -> Series:
    """The part of each bar's range (columns) that lies in each row (rows); every column sums to 1."""
    bottoms, tops = edges[:-1, None], edges[1:, None]
    overlap = np.clip(np.minimum(tops, candles.high) - np.maximum(bottoms, candles.low), 0, None)
    flat = np.flatnonzero(overlap.sum(axis=0) == 0)
    rows = np.clip(np.searchsorted(edges, candles.low[flat], side="right") - 1, 0, len(edges) - 2)
    overlap[rows, flat] = 1.0
    return np.asarray(overlap / overlap.sum(axis=0))


def value_area(volumes: list[float], control: int, percent: float) -> tuple[int, int]:
    """Grow from the point of control, always to the larger neighbour, until `percent` of the volume is in.

    Returns:
        First row and the row after the last. On a tie it grows upwards.
    """
    low, high = control, control + 1
    held, wanted = volumes[control], sum(volumes) * percent / 100
    while held < wanted and (low > 0 or high < len(volumes)):
        below = volumes[low - 1] if low > 0 else -1.0
        above = volumes[high] if high < len(volumes) else -1.0
        if above >= below:
            high += 1
        else:
            low -= 1
        held += max(above, below)
    return low, high
