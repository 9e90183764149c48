"""Trend: its direction, its strength, and stops that follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, study
from worker_chart_export.charts.local.studies.series import change, divide, fixnan, rma, true_range

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


def directional_movement(bars: Candles, length: int) -> tuple[Series, Series]:
    """Return the directional indicators +DI and -DI, 0 to 100 (Pine `ta.dmi`)."""
    up, down = change(bars.high), -change(bars.low)
    rise = np.where(np.isnan(up), np.nan, np.where((up > down) & (up > 0), up, 0))
    fall = np.where(np.isnan(down), np.nan, np.where((down > up) & (down > 0), down, 0))
    reach = rma(true_range(bars), length)
    return (
        fixnan(divide(100 * rma(rise, length), reach)),
        fixnan(divide(100 * rma(fall, length), reach)),
    )


def directional_index(plus: Series, minus: Series) -> Series:
    """Return the difference of +DI and -DI as a part of their sum, 0 to 100."""
    both = plus + minus
    return 100 * np.abs(plus - minus) / np.where(both == 0, 1, both)


@study("Average Directional Index", title="ADX")
def average_directional_index(bars: Candles, inputs: Inputs) -> Plots:
    """Average the directional index by Wilder's method. Source: TradingView's built-in ADX."""
    index = directional_index(*directional_movement(bars, inputs.length("in_1")))
    return {"ADX": rma(index, inputs.length("in_0"))}


@study("Parabolic SAR", title="SAR")
def parabolic_sar(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the trend with Wilder's stop and reverse. Source: Pine `ta.sar`.

    The first trend rises if the second bar closes above the first.
    """
    return {"Plot": _sar(bars, *(inputs.number(name) for name in ("in_0", "in_1", "in_2")))}


def _sar(bars: Candles, start: float, increment: float, maximum: float) -> Series:
    high, low, close = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    result = np.full(len(close), np.nan)
    if len(close) < 2:  # noqa: PLR2004  # the first trend needs two bars
        return result
    rising = close[1] > close[0]
    extreme, stop, step = (high[1], low[0], start) if rising else (low[1], high[0], start)
    for bar in range(1, len(close)):
        turned = bar == 1
        stop += step * (extreme - stop)
        if stop > low[bar] if rising else stop < high[bar]:
            turned, step = True, start
            stop = max(high[bar], extreme) if rising else min(low[bar], extreme)
            extreme = low[bar] if rising else high[bar]
            rising = not rising
        if not turned and (high[bar] > extreme if rising else low[bar] < extreme):
            extreme = high[bar] if rising else low[bar]
            step = min(step + increment, maximum)
        before = slice(max(bar - 2, 0), bar)
        stop = min(stop, *low[before]) if rising else max(stop, *high[before])
        result[bar] = stop
    return result
