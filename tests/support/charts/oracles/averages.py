"""Oracles of the averages of the price."""

from __future__ import annotations

import math

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import (
    ago,
    average,
    cross,
    each,
    ema,
    ratio,
    regression,
    rma,
    sma,
    summed,
    windowed,
    wma,
)

_MOVED = ({"length": 5, "source": "hl2", "offset": 3}, {"length": 20, "offset": -2})


@oracle("Moving Average", *_MOVED)
def moving_average(bars, inputs):
    """Average the source, moved by the offset."""
    return {"Plot": ago(sma(bars.price(inputs["source"]), inputs["length"]), inputs["offset"])}


@oracle("Moving Average Exponential", *_MOVED)
def moving_average_exponential(bars, inputs):
    """Average the source exponentially, moved by the offset."""
    return {"Plot": ago(ema(bars.price(inputs["source"]), inputs["length"]), inputs["offset"])}


@oracle("Moving Average Weighted", {"in_0": 4, "in_1": "ohlc4", "in_2": 1})
def moving_average_weighted(bars, inputs):
    """Average the source with linear weights, moved by the offset."""
    return {"Plot": ago(wma(bars.price(inputs["in_1"]), inputs["in_0"]), inputs["in_2"])}


@oracle("Moving Average Double", {"method": "Exponential"}, {"method": "Weighted", "firstPeriods": 3})
def moving_average_double(bars, inputs):
    """Average the close over two lengths."""
    return {
        f"Plot {number}": average(bars.close, inputs[f"{name}Periods"], inputs["method"])
        for number, name in ((1, "first"), (2, "second"))
    }


@oracle("MA Cross", {"in_0": 3, "in_1": 7})
def ma_cross(bars, inputs):
    """Average the close over two lengths, and mark where the averages cross."""
    short, long = sma(bars.close, inputs["in_0"]), sma(bars.close, inputs["in_1"])
    return {"PlotShort": short, "PlotLong": long, "PlotCrosses": cross(short, long)}


@oracle("Smoothed Moving Average", {"in_0": 3, "in_1": "open"})
def smoothed_moving_average(bars, inputs):
    """Average the source by Wilder's method."""
    return {"Plot": rma(bars.price(inputs["in_1"]), inputs["in_0"])}


@oracle("Moving Average Triple", {"method": "Exponential", "thirdPeriods": 9})
def moving_average_triple(bars, inputs):
    """Average the close over three lengths."""
    names = ("first", "second", "third")
    return {
        f"Plot {n}": average(bars.close, inputs[f"{name}Periods"], inputs["method"])
        for n, name in enumerate(names, 1)
    }


@oracle("Moving Average Multiple", {"method": "Weighted", "sixthPeriods": 11})
def moving_average_multiple(bars, inputs):
    """Average the close over six lengths."""
    names = ("first", "second", "third", "fourth", "fifth", "sixth")
    return {
        f"Plot {n}": average(bars.close, inputs[f"{name}Periods"], inputs["method"])
        for n, name in enumerate(names, 1)
    }


@oracle("MA with EMA Cross", {"in_0": 5, "in_1": 8})
def ma_with_ema_cross(bars, inputs):
    """Average the close simply and exponentially, and mark where they cross."""
    simple, exponential = sma(bars.close, inputs["in_0"]), ema(bars.close, inputs["in_1"])
    return {"MA": simple, "EMA": exponential, "Crosses": cross(simple, exponential)}


@oracle("Moving Average Channel", {"in_0": 5, "in_1": 7, "in_2": 2, "in_3": -1})
def moving_average_channel(bars, inputs):
    """Average highs and lows."""
    return {
        "Upper": ago(sma(bars.high, inputs["in_0"]), inputs["in_2"]),
        "Lower": ago(sma(bars.low, inputs["in_1"]), inputs["in_3"]),
    }


@oracle("Arnaud Legoux Moving Average", {"in_0": 21, "in_1": 0.5, "in_2": 3.0})
def alma(bars, inputs):
    """Average with Gaussian weights around the offset."""
    length = inputs["in_0"]
    middle, size = inputs["in_1"] * (length - 1), length / inputs["in_2"]
    weights = [math.exp(-((i - middle) ** 2) / (2 * size * size)) for i in range(length)]
    whole = math.fsum(weights)
    return {
        "Plot": windowed(
            lambda p: math.fsum(w * v for w, v in zip(weights, p, strict=True)) / whole, bars.close, length
        )
    }


@oracle("Double EMA", {"in_0": 4})
def double_ema(bars, inputs):
    """Take out the lag once."""
    once = ema(bars.close, inputs["in_0"])
    return {"Plot": each(lambda a, b: 2 * a - b, once, ema(once, inputs["in_0"]))}


@oracle("Triple EMA", {"in_0": 4})
def triple_ema(bars, inputs):
    """Take out the lag twice."""
    once = ema(bars.close, inputs["in_0"])
    twice = ema(once, inputs["in_0"])
    return {"Plot": each(lambda a, b, c: 3 * a - 3 * b + c, once, twice, ema(twice, inputs["in_0"]))}


@oracle("Hull Moving Average", {"in_0": 16}, {"in_0": 5})
def hull(bars, inputs):
    """Average 2 WMA(n / 2) - WMA(n) over the square root of n."""
    n = inputs["in_0"]
    raw = each(lambda a, b: 2 * a - b, wma(bars.close, n // 2), wma(bars.close, n))
    return {"Plot": wma(raw, math.isqrt(n))}


@oracle("Least Squares Moving Average", {"in_0": 10, "in_1": 3})
def least_squares(bars, inputs):
    """Take the regression line some bars before its end."""
    return {"Plot": regression(bars.close, inputs["in_0"], inputs["in_1"])}


@oracle("Linear Regression Curve", {"in_0": 4})
def regression_curve(bars, inputs):
    """Take the regression line's end."""
    return {"Plot": regression(bars.close, inputs["in_0"])}


@oracle("McGinley Dynamic", {"in_0": 5})
def mcginley(bars, inputs):
    """Follow McGinley's recursion from the exponential average on."""
    n, result = inputs["in_0"], []
    for seed, close in zip(ema(bars.close, inputs["in_0"]), bars.close, strict=True):
        last = result[-1] if result else None
        result.append(seed if last is None else last + (close - last) / (n * (close / last) ** 4))
    return {"Plot": result}


@oracle("Moving Average Adaptive", {"periods": 5})
def adaptive(bars, inputs):
    """Follow Kaufman's recursion from the first full window's close on."""
    n, close, result = inputs["periods"], bars.close, []
    for bar in range(len(close)):
        if bar <= n:
            result.append(close[bar] if bar == n else None)
            continue
        way = math.fsum(abs(close[i] - close[i - 1]) for i in range(bar - n + 1, bar + 1))
        efficiency = abs(close[bar] - close[bar - n]) / way if way else 0.0
        step = (efficiency * (2 / 3 - 2 / 31) + 2 / 31) ** 2
        result.append(result[-1] + step * (close[bar] - result[-1]))
    return {"Plot 1": result}


@oracle("Moving Average Hamming", {"periods": 4})
def hamming(bars, inputs):
    """Average with the weights of a Hamming window."""
    n = inputs["periods"]
    weights = [0.54 - 0.46 * math.cos(2 * math.pi * i / (n - 1)) for i in range(n)]
    return {
        "Plot 1": windowed(
            lambda p: math.fsum(w * v for w, v in zip(weights, p, strict=True)) / math.fsum(weights),
            bars.close,
            n,
        )
    }


@oracle("VWMA", {"in_0": 5})
def vwma(bars, inputs):
    """Average weighted with volume."""
    money = each(lambda a, b: a * b, bars.close, bars.volume)
    return {"Plot": ratio(summed(money, inputs["in_0"]), summed(bars.volume, inputs["in_0"]))}


@oracle("VWAP")
def vwap(bars, inputs):  # noqa: ARG001  # every oracle takes both
    """Return the typical price: on bars of a day and longer, each bar is its own session."""
    return {"VWAP": each(lambda p, v: p * v / v, bars.price("hlc3"), bars.volume)}


@oracle("Williams Alligator", {"in_0": 5, "in_1": 4, "in_2": 3, "in_3": 2, "in_4": 1, "in_5": 1})
def alligator(bars, inputs):
    """Average the middles by Wilder's method, moved to the right."""
    return {
        name: ago(rma(bars.price("hl2"), inputs[f"in_{n}"]), inputs[f"in_{n + 3}"])
        for n, name in enumerate(("Jaw", "Teeth", "Lips"))
    }
