"""Volatility: how far the price moves, whatever the direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, study
from worker_chart_export.charts.local.studies.series import (
    atr,
    change,
    divide,
    ema,
    first_true_range,
    highest,
    log,
    lowest,
    roc,
    shift,
    stdev,
    total,
)
from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Average True Range", title="ATR", numbers=Numbers.PRICE)
def average_true_range(bars: Candles, inputs: Inputs) -> Plots:
    """Average the true range by Wilder's method. Source: Pine `ta.atr`."""
    return {"Plot": atr(bars, inputs.length("in_0"))}


@study("Chaikin Volatility", title="Chaikin Vol")
def chaikin_volatility(bars: Candles, inputs: Inputs) -> Plots:
    """Show the rate of change of the smoothed range, in percent. Source: Chaikin's definition.

    TradingView publishes no source of it; here the range is smoothed exponentially.
    """
    return {"Plot": roc(ema(bars.high - bars.low, inputs.length("periods")), inputs.length("rocLookback"))}


@study("Choppiness Index", title="CHOP")
def choppiness_index(bars: Candles, inputs: Inputs) -> Plots:
    """Compare the way of the bars with their range, 0 to 100. Source: TradingView's built-in indicator."""
    length = inputs.length("in_0")
    way = total(first_true_range(bars), length)
    with np.errstate(divide="ignore"):
        ratio = np.log10(divide(way, highest(bars.high, length) - lowest(bars.low, length)))
    return {"Plot": divide(100 * ratio, np.full(len(bars), np.log10(length)))}


@study("Historical Volatility", title="HV")
def historical_volatility(bars: Candles, inputs: Inputs) -> Plots:
    """Show the deviation of the log returns per year, in percent. Source: TradingView's built-in.

    A year has 365 periods for daily and shorter bars, 365 / 7 for longer ones.
    """
    frame = bars.timeframe
    days = 1 if frame.is_intraday or (frame.unit == "D" and frame.count == 1) else 7
    deviation = stdev(change(log(bars.close)), inputs.length("in_0"))
    return {"Plot": 100 * deviation * (365 / days) ** 0.5}


@study("Mass Index", title="Mass")
def mass_index(bars: Candles, inputs: Inputs) -> Plots:
    """Sum the ratio of the once and the twice smoothed range. Source: TradingView's built-in indicator."""
    once = ema(bars.high - bars.low, 9)
    return {"Plot": total(divide(once, ema(once, 9)), inputs.length("in_0"))}


@study("Volatility Close-to-Close", title="VCTC")
def volatility_close_to_close(bars: Candles, inputs: Inputs) -> Plots:
    """Show the sample deviation of the log returns per year, in percent.

    TradingView publishes no source of it. Here the divisor is `periods` - 1.
    """
    length = inputs.length("periods")
    spread = stdev(change(log(bars.close)), length)
    correction = length / (length - 1) if length > 1 else np.nan
    return {"Plot": 100 * spread * (correction * inputs.whole("daysPerYear")) ** 0.5}


@study("Volatility Zero Trend Close-to-Close", title="VZTCTC")
def volatility_zero_trend(bars: Candles, inputs: Inputs) -> Plots:
    """Show the root of the mean squared log return per year, in percent: the trend counts as zero.

    TradingView publishes no source of it. Here the divisor is `periods`.
    """
    length = inputs.length("periods")
    squares = total(change(log(bars.close)) ** 2, length)
    return {"Plot": 100 * np.sqrt(squares * inputs.whole("daysPerYear") / length)}


@study("Volatility O-H-L-C", title="VOHLC")
def volatility_ohlc(bars: Candles, inputs: Inputs) -> Plots:
    """Estimate the volatility per year from whole bars, in percent. Source: Garman and Klass.

    TradingView publishes no source of it.
    `marketClosedPercentage` is the part of a day without trade. Where it is above zero, the gap from the
    close to the open weighs 0.12.
    """
    length, closed = inputs.length("periods"), inputs.number("marketClosedPercentage")
    open_, high, low, close = (log(bars.price(name)) for name in ("open", "high", "low", "close"))
    inside = 0.5 * (high - low) ** 2 - (2 * np.log(2) - 1) * (close - open_) ** 2
    variance = inside
    if closed > 0:
        gap = (open_ - shift(close, 1)) ** 2
        variance = 0.12 * gap / closed + 0.88 * inside / (1 - closed)
    mean = total(variance, length) / length
    return {"Plot": 100 * np.sqrt(np.maximum(mean, 0) * inputs.whole("daysPerYear"))}
