"""Momentum: how fast and how steadily the price moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import (
    change,
    divide,
    ema,
    highest,
    lowest,
    rma,
    shift,
    sma,
)
from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs

#: RSI goes from 0 to 100; a smaller spread than this is a rounding error, not a movement.
_NO_SPREAD = 1e-9


def rsi(values: Series, length: int) -> Series:
    """Return the relative strength index, 0 to 100 (Pine `ta.rsi`).

    It is 100 if no bar fell and 0 if none rose. A market that never moved counts as 100, as in Pine.
    """
    moves = change(values)
    gain, loss = rma(np.maximum(moves, 0), length), rma(np.maximum(-moves, 0), length)
    strength = 100 - 100 / (1 + divide(gain, loss))
    return np.where(loss == 0, 100.0, strength)


@study("Relative Strength Index", title="RSI", levels={"MiddleLimit": 50.0})
def relative_strength_index(bars: Candles, inputs: Inputs) -> Plots:
    """Compare the average rise with the average fall. Source: Pine `ta.rsi`."""
    return {"Plot": rsi(bars.close, inputs.length("length"))}


@study("Stochastic RSI", title="Stoch RSI")
def stochastic_rsi(bars: Candles, inputs: Inputs) -> Plots:
    """Place the RSI in its own recent range. Source: TradingView's built-in indicator.

    Where the RSI did not move at all, its range is empty and there is a gap.
    """
    strength, length = rsi(bars.close, inputs.length("in_0")), inputs.length("in_1")
    low, spread = lowest(strength, length), highest(strength, length) - lowest(strength, length)
    position = divide(100 * (strength - low), np.where(spread > _NO_SPREAD, spread, 0))
    k = sma(position, inputs.length("in_2"))
    return {"%K": k, "%D": sma(k, inputs.length("in_3"))}


@study("MACD", title="MACD", numbers=Numbers.PRICE)
def macd(bars: Candles, inputs: Inputs) -> Plots:
    """Subtract a slow from a fast exponential average, and smooth the result. Source: Pine `ta.macd`.

    The histogram's colours: 0 above zero and growing, 1 above and shrinking, 2 below and rising, 3 below and
    falling.
    """
    values = inputs.source("in_3", bars)
    line = ema(values, inputs.length("in_0")) - ema(values, inputs.length("in_1"))
    signal = ema(line, inputs.length("in_2"))
    histogram = line - signal
    rising = histogram >= shift(histogram, 1)
    shades = np.where(histogram >= 0, np.where(rising, 0, 1), np.where(rising, 2, 3))
    return {"Histogram": PlotValues(values=histogram, shades=shades), "MACD": line, "Signal": signal}
