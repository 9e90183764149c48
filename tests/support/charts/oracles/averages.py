"""Oracles of the averages of the price."""

from __future__ import annotations

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import ago, average, cross, ema, sma, wma

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
