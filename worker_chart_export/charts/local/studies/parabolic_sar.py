"""Parabolic stop and reverse, and from which bar on it no longer depends on where the history began.

Whether the first trend is up or down is a convention, and the answer can travel along for a hundred bars (on
real prices it mostly dies out within twenty). No weight tells when. So the study is run from several
beginnings: both first directions, and a few later first bars. What is drawn starts where all of them agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import talib

from worker_chart_export.charts.local.studies.recursion import ENOUGH_BARS

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series

#: Later first bars that the result is compared with.
LATER_STARTS = (3, 6, 10, 15)


def parabolic_sar(candles: Candles, *, start: float, increment: float, maximum: float) -> Series:
    """Wilder's parabolic SAR, with a gap where it still depends on the beginning of the history.

    Args:
        candles: The bars.
        start: Acceleration at the beginning of a trend.
        increment: What each new extreme adds to it.
        maximum: Its upper limit.
    """
    if len(candles) == 1:
        return np.full(len(candles), np.nan)
    steps = (start, increment, maximum)
    values = _run(candles, 0.0, steps)
    result = values.copy()
    result[: _agreement(values, _other_beginnings(candles, steps), float(candles.close[-1]))] = np.nan
    return result


def _run(candles: Candles, first: float, steps: tuple[float, float, float]) -> Series:
    """One run; `first` is the first value, negative for a falling trend, 0 for TA-Lib's own choice."""
    return np.abs(talib.SAREXT(candles.high, candles.low, first, 0, *steps, *steps))


def _other_beginnings(candles: Candles, steps: tuple[float, float, float]) -> list[Series]:
    runs = [_run(candles, float(candles.low[0]), steps), _run(candles, -float(candles.high[0]), steps)]
    for later in LATER_STARTS:
        if len(candles) > later + 1:
            lead = np.full(later, np.nan)
            runs.append(np.concatenate((lead, _run(candles.since(later), 0.0, steps))))
    return runs


def _agreement(values: Series, others: list[Series], size: float) -> int:
    """Index from which on all runs give one value; at most `ENOUGH_BARS`."""
    tolerance = size * 1e-9
    apart = np.zeros(len(values), dtype=bool)
    for other in others:
        apart |= ~(np.abs(other - values) <= tolerance)
    differing = np.flatnonzero(apart)
    return min(int(differing[-1]) + 1, ENOUGH_BARS) if differing.size else 0
