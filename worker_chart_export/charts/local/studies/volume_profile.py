"""The volume traded at each price in the bars shown.

Each bar's volume is spread evenly over the price rows that its range covers. It counts as bought if the bar
closed at or above its open. TradingView computes the profile from bars of a smaller time frame, which a
candle file does not hold, so its profile of the same bars differs in detail.
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
    """Compute the profile of `candles`; None if they hold no volume at all."""
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


def developing_profile(
    candles: Candles, edges: Series, area_percent: float
) -> list[tuple[float, float, float]]:
    """Return the control price, the upper and the lower end of the value area of the bars up to each bar.

    All bars use the rows of the whole profile, `edges`.
    """
    volumes = np.cumsum(_shares(candles, edges) * candles.volume, axis=1).T.tolist()
    lines = []
    for rows in volumes:
        control = max(range(len(rows)), key=rows.__getitem__)
        low, high = value_area(rows, control, area_percent)
        middle = float(edges[control] + edges[control + 1]) / 2
        lines.append((middle, float(edges[high]), float(edges[low])))
    return lines


def _shares(candles: Candles, edges: Series) -> Series:
    """Return the part of each bar's range (column) in each price row (row); each column sums to 1."""
    bottoms, tops = edges[:-1, None], edges[1:, None]
    overlap = np.clip(np.minimum(tops, candles.high) - np.maximum(bottoms, candles.low), 0, None)
    flat = np.flatnonzero(overlap.sum(axis=0) == 0)
    rows = np.clip(np.searchsorted(edges, candles.low[flat], side="right") - 1, 0, len(edges) - 2)
    overlap[rows, flat] = 1.0
    return np.asarray(overlap / overlap.sum(axis=0))


def value_area(volumes: list[float], control: int, percent: float) -> tuple[int, int]:
    """Find the rows around the point of control that hold `percent` of the volume.

    The area grows by the larger of its two neighbours; if they are equal, by the upper one.

    Returns:
        First row and the row after the last.
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
