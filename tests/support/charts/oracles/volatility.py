"""Oracles of volatility."""

from __future__ import annotations

import math

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import (
    ago,
    change,
    deviation,
    each,
    ema,
    first_true_range,
    low,
    minus,
    ratio,
    rma,
    summed,
    top,
    windowed,
)


def returns(bars):
    """Return the log returns."""
    return change(each(math.log, bars.close))


@oracle("Average True Range", {"in_0": 5})
def atr(bars, inputs):
    """Average the true range."""
    return {"Plot": rma(first_true_range(bars), inputs["in_0"])}


@oracle("Chaikin Volatility", {"periods": 4, "rocLookback": 3})
def chaikin_volatility(bars, inputs):
    """Show the rate of change of the smoothed range."""
    smooth = ema(minus(bars.high, bars.low), inputs["periods"])
    before = ago(smooth, inputs["rocLookback"])
    return {"Plot": ratio(minus(smooth, before), before, 100)}


@oracle("Choppiness Index", {"in_0": 5})
def choppiness(bars, inputs):
    """Compare the way with the range."""
    n = inputs["in_0"]
    reach = minus(top(bars.high, n), low(bars.low, n))
    way = ratio(summed(first_true_range(bars), n), reach)
    return {"Plot": each(lambda v: 100 * math.log10(v) / math.log10(n), way)}


@oracle("Historical Volatility", {"in_0": 5})
def historical(bars, inputs):
    """Show the deviation of the returns per year of 365 days, on daily bars."""
    return {"Plot": each(lambda v: 100 * v * math.sqrt(365), deviation(returns(bars), inputs["in_0"]))}


@oracle("Mass Index", {"in_0": 5})
def mass(bars, inputs):
    """Sum the ratios of the once and the twice smoothed range."""
    once = ema(minus(bars.high, bars.low), 9)
    return {"Plot": summed(ratio(once, ema(once, 9)), inputs["in_0"])}


@oracle("Volatility Close-to-Close", {"periods": 5, "daysPerYear": 365})
def close_to_close(bars, inputs):
    """Show the sample deviation of the returns per year."""

    def spread(part):
        mean = math.fsum(part) / len(part)
        variance = math.fsum((v - mean) ** 2 for v in part) / (len(part) - 1)
        return 100 * math.sqrt(variance * inputs["daysPerYear"])

    return {"Plot": windowed(spread, returns(bars), inputs["periods"])}


@oracle("Volatility Zero Trend Close-to-Close", {"periods": 5, "daysPerYear": 365})
def zero_trend(bars, inputs):
    """Show the root of the mean square of the returns per year."""

    def spread(part):
        return 100 * math.sqrt(math.fsum(v * v for v in part) * inputs["daysPerYear"] / len(part))

    return {"Plot": windowed(spread, returns(bars), inputs["periods"])}


@oracle("Volatility O-H-L-C", {"periods": 5, "marketClosedPercentage": 0.3, "daysPerYear": 365})
def ohlc(bars, inputs):
    """Estimate the volatility from whole bars by Garman and Klass."""
    closed, variance = inputs["marketClosedPercentage"], []
    for n in range(len(bars.close)):
        spread = math.log(bars.high[n] / bars.low[n]) ** 2 / 2
        inside = spread - (2 * math.log(2) - 1) * math.log(bars.close[n] / bars.open[n]) ** 2
        if closed and n == 0:
            inside = None
        elif closed:
            gap = math.log(bars.open[n] / bars.close[n - 1]) ** 2
            inside = 0.12 * gap / closed + 0.88 * inside / (1 - closed)
        variance.append(inside)
    days = inputs["daysPerYear"] / inputs["periods"]
    sums = summed(variance, inputs["periods"])
    return {"Plot": each(lambda v: 100 * math.sqrt(max(v, 0.0) * days), sums)}
