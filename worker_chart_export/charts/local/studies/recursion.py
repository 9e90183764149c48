"""Averages that feed on their own last value, and from which bar on they can be trusted.

An exponential average remembers where it was started. With more history than the file holds it would have
come out otherwise, so a line drawn right from the first computable bar is a wrong line. The rule here: a
recursive value is drawn once the weight of its starting value has sunk to `SEED_WEIGHT`, each smoothing stage
adding its own time, but never later than `ENOUGH_BARS` bars after the history begins (or its first computable
bar if that is later). Before that there is a gap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import talib

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Series

#: Share of a recursive value that may still come from the arbitrary start of the history.
SEED_WEIGHT = 0.02
#: So many bars of history are enough for every study, however slow.
ENOUGH_BARS = 200


def first_defined(values: Series) -> int:
    """Index of the first number, or the length if there is none."""
    defined = np.flatnonzero(~np.isnan(values))
    return int(defined[0]) if defined.size else len(values)


def ema(values: Series, length: int) -> Series:
    """Exponential average, alpha = 2 / (length + 1), started with the simple average of `length` bars."""
    if length == 1 or len(values) - first_defined(values) < length:
        return values.copy() if length == 1 else np.full_like(values, np.nan)
    return np.asarray(talib.EMA(values, length))


def wilder(values: Series, length: int) -> Series:
    """Wilder's smoothing, alpha = 1 / length, started with the simple average of `length` bars."""
    smoothed = np.full_like(values, np.nan)
    start = first_defined(values)
    end = start + length
    if end > len(values):
        return smoothed
    current = float(values[start:end].mean())
    smoothed[end - 1] = current
    for index, value in enumerate(values[end:].tolist(), end):
        current += (value - current) / length
        smoothed[index] = current
    return smoothed


def ema_alpha(length: int) -> float:
    """The weight an exponential average gives its newest value."""
    return 2.0 / (length + 1)


def settled(values: Series, *alphas: float) -> Series:
    """`values` with a gap up to the bar from which they are settled.

    Args:
        values: A recursive study, NaN up to its first computable bar.
        alphas: The weight each smoothing stage in a row gives its newest value.
    """
    start = first_defined(values)
    wait = sum(_settling_bars(alpha) for alpha in alphas)
    shown_from = min(start + wait, max(start, ENOUGH_BARS))
    result = values.copy()
    result[:shown_from] = np.nan
    return result


def _settling_bars(alpha: float) -> int:
    return 0 if alpha >= 1 else math.ceil(math.log(SEED_WEIGHT) / math.log1p(-alpha))
