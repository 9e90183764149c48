"""Averages of the price."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Band, Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import (
    aligned,
    change,
    crossings,
    divide,
    ema,
    first_defined,
    linreg,
    moving_average,
    rma,
    sma,
    total,
    windows,
    wma,
)

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Moving Average", title="MA")
def simple_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the source over `length` bars. Source: Pine `ta.sma`."""
    values = sma(inputs.source("source", bars), inputs.length("length"))
    return {"Plot": PlotValues(values=values, offset=inputs.whole("offset"))}


@study("Moving Average Exponential", title="EMA")
def exponential_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the source with weights that fall exponentially. Source: Pine `ta.ema`."""
    values = ema(inputs.source("source", bars), inputs.length("length"))
    return {"Plot": PlotValues(values=values, offset=inputs.whole("offset"))}


@study("Moving Average Weighted", title="WMA")
def weighted_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the source with weights that fall linearly. Source: Pine `ta.wma`."""
    values = wma(inputs.source("in_1", bars), inputs.length("in_0"))
    return {"Plot": PlotValues(values=values, offset=inputs.whole("in_2"))}


@study("Smoothed Moving Average", title="SMMA")
def smoothed_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the source by Wilder's method. Source: Pine `ta.rma`."""
    return {"Plot": rma(inputs.source("in_1", bars), inputs.length("in_0"))}


@study("Moving Average Double", title="MA Double")
def double_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close over two lengths by one method. Source: Pine `ta.sma`, `ta.ema`, `ta.wma`."""
    return _several(bars, inputs, "first second")


@study("Moving Average Triple", title="MA Triple")
def triple_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close over three lengths by one method. Source: Pine `ta.sma`, `ta.ema`, `ta.wma`."""
    return _several(bars, inputs, "first second third")


@study("Moving Average Multiple", title="MA Multiple")
def multiple_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close over six lengths by one method. Source: Pine `ta.sma`, `ta.ema`, `ta.wma`."""
    return _several(bars, inputs, "first second third fourth fifth sixth")


def _several(bars: Candles, inputs: Inputs, names: str) -> Plots:
    method = inputs.text("method")
    lengths = [inputs.length(f"{name}Periods") for name in names.split()]
    return {
        f"Plot {number}": moving_average(bars.close, length, method)
        for number, length in enumerate(lengths, 1)
    }


@study("MA Cross", title="MA Cross")
def average_cross(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close over a short and a long window, and mark where they cross.

    Source: TradingView's built-in indicator, Pine `ta.cross`.
    """
    short, long = (sma(bars.close, inputs.length(name)) for name in ("in_0", "in_1"))
    return {"PlotShort": short, "PlotLong": long, "PlotCrosses": crossings(short, long)}


@study("MA with EMA Cross", title="MA/EMA Cross")
def simple_exponential_cross(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close simply and exponentially, and mark where the two cross. Source: Pine `ta.cross`."""
    simple, exponential = sma(bars.close, inputs.length("in_0")), ema(bars.close, inputs.length("in_1"))
    return {"MA": simple, "EMA": exponential, "Crosses": crossings(simple, exponential)}


@study(
    "Moving Average Channel",
    title="MAC",
    fills={"Plots Background": Band(upper="Upper", lower="Lower")},
)
def average_channel(bars: Candles, inputs: Inputs) -> Plots:
    """Average the highs and the lows, each moved by its offset. Source: Pine `ta.sma`."""
    upper, lower = sma(bars.high, inputs.length("in_0")), sma(bars.low, inputs.length("in_1"))
    return {
        "Upper": PlotValues(values=upper, offset=inputs.whole("in_2")),
        "Lower": PlotValues(values=lower, offset=inputs.whole("in_3")),
    }


@study("Arnaud Legoux Moving Average", title="ALMA")
def arnaud_legoux_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close with the weights of a bell curve. Source: Pine `ta.alma`.

    The place of its middle is not rounded.
    """
    length, sigma = inputs.length("in_0"), inputs.number("in_2")
    middle = inputs.number("in_1") * (length - 1)
    places = np.arange(length) - middle
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Infinite for a sigma near zero: then all weights are equal.
        width = np.float64(length) / sigma
        weights = np.exp(-(places**2) / (2 * width**2)) if sigma else np.zeros(length)
    whole = weights.sum()
    average = windows(bars.close, length) @ weights / whole if whole else np.empty(0)
    return {"Plot": aligned(average, len(bars))}


@study("Double EMA", title="DEMA")
def double_exponential_average(bars: Candles, inputs: Inputs) -> Plots:
    """Take out the lag of an exponential average once: 2 EMA - EMA of EMA.

    Source: TradingView's built-in indicator.
    """
    length = inputs.length("in_0")
    once = ema(bars.close, length)
    return {"Plot": 2 * once - ema(once, length)}


@study("Triple EMA", title="TEMA")
def triple_exponential_average(bars: Candles, inputs: Inputs) -> Plots:
    """Take out the lag of an exponential average twice: 3 (EMA1 - EMA2) + EMA3.

    Source: TradingView's built-in indicator.
    """
    length = inputs.length("in_0")
    once = ema(bars.close, length)
    twice = ema(once, length)
    return {"Plot": 3 * (once - twice) + ema(twice, length)}


@study("Hull Moving Average", title="HMA")
def hull_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close twice with linear weights, so that the lag is small. Source: Pine `ta.hma`."""
    length = inputs.length("in_0")
    raw = 2 * wma(bars.close, max(length // 2, 1)) - wma(bars.close, length)
    return {"Plot": wma(raw, int(length**0.5))}


@study("Least Squares Moving Average", title="LSMA")
def least_squares_average(bars: Candles, inputs: Inputs) -> Plots:
    """Take the regression line's value `offset` bars before its end. Source: Pine `ta.linreg`."""
    return {"Plot": linreg(bars.close, inputs.length("in_0"), inputs.whole("in_1"))}


@study("Linear Regression Curve", title="LRC")
def linear_regression_curve(bars: Candles, inputs: Inputs) -> Plots:
    """Take the end of the regression line of the last bars. Source: Pine `ta.linreg`."""
    return {"Plot": linreg(bars.close, inputs.length("in_0"), 0)}


@study("McGinley Dynamic", title="McGinley")
def mcginley_dynamic(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the close faster when it falls. Source: TradingView's built-in indicator.

    It starts with the exponential average, and again where it would divide by zero, as after a price that
    passes through zero.
    """
    length = inputs.length("in_0")
    average = ema(bars.close, length)
    start = first_defined(average)
    values, before = average[:start].tolist(), float("nan")
    for seed, close in zip(average[start:].tolist(), bars.close[start:].tolist(), strict=True):
        weight = length * (close / before) ** 4 if before else 0.0
        followed = before + (close - before) / weight if weight else np.nan
        before = followed if math.isfinite(followed) else seed
        values.append(before)
    return {"Plot": np.array(values)}


@study("Moving Average Adaptive", title="AMA")
def adaptive_average(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the close faster when it moves straight. Source: Kaufman's definition, with 2 and 30 bars.

    TradingView publishes no source of it. Here it starts at the close of the first full window.
    """
    length = inputs.length("periods")
    straight = np.abs(change(bars.close, length))
    way = total(np.abs(change(bars.close)), length)
    efficiency = np.nan_to_num(divide(straight, way))
    fast, slow = 2 / (2 + 1), 2 / (30 + 1)
    steps = (efficiency * (fast - slow) + slow) ** 2
    values = np.full(len(bars), np.nan)
    values[length : length + 1] = bars.close[length : length + 1]
    for bar in range(length + 1, len(bars)):
        values[bar] = values[bar - 1] + steps[bar] * (bars.close[bar] - values[bar - 1])
    return {"Plot 1": values}


@study("Moving Average Hamming", title="HMMA")
def hamming_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close with the weights of a Hamming window, 0.54 - 0.46 cos(2 pi i / (n - 1)).

    TradingView publishes no source of it; this is the usual window.
    """
    weights = np.hamming(inputs.length("periods"))
    return {"Plot 1": aligned(windows(bars.close, len(weights)) @ weights / weights.sum(), len(bars))}


@study("VWMA", title="VWMA")
def volume_weighted_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close, each bar weighted with its volume. Source: Pine `ta.vwma`."""
    length = inputs.length("in_0")
    return {"Plot": divide(sma(bars.close * bars.volume, length), sma(bars.volume, length))}


@study("VWAP", title="VWAP")
def volume_weighted_price(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001  # every formula takes both
    """Average the typical price of a day, weighted with volume. Source: Pine `ta.vwap`.

    It starts again with each day of the dates' own zone. A daily or longer bar is its own period.
    """
    days = [date.date() for date in bars.dates]
    starts = np.array([bar == 0 or days[bar] != days[bar - 1] for bar in range(len(days))])
    if not bars.timeframe.is_intraday:
        starts[:] = True
    first = np.maximum.accumulate(np.where(starts, np.arange(len(days)), 0))

    def since_start(values: Series) -> Series:
        sums = np.cumsum(values)
        return sums - (sums - values)[first]

    return {"VWAP": divide(since_start(bars.price("hlc3") * bars.volume), since_start(bars.volume))}


@study("Williams Alligator", title="Alligator")
def williams_alligator(bars: Candles, inputs: Inputs) -> Plots:
    """Average the middle of the bars by Wilder's method over three lengths, moved to the right.

    Source: TradingView's built-in indicator.
    """
    middle = bars.price("hl2")
    return {
        name: PlotValues(
            values=rma(middle, inputs.length(f"in_{place}")), offset=inputs.whole(f"in_{place + 3}")
        )
        for place, name in enumerate(("Jaw", "Teeth", "Lips"))
    }
