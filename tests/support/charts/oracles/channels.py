"""Oracles of the bands and channels around the price."""

from __future__ import annotations

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import (
    ago,
    average,
    deviation,
    each,
    ema,
    first_true_range,
    low,
    minus,
    ratio,
    regression,
    regression_error,
    rma,
    sma,
    top,
    true_range,
)


@oracle("Bollinger Bands", {"in_0": 5, "in_1": 1.5})
def bollinger_bands(bars, inputs):
    """Put bands of population deviations around the average."""
    middle, spread = sma(bars.close, inputs["in_0"]), deviation(bars.close, inputs["in_0"])
    return {
        "Median": middle,
        "Upper": each(lambda mean, one: mean + inputs["in_1"] * one, middle, spread),
        "Lower": each(lambda mean, one: mean - inputs["in_1"] * one, middle, spread),
    }


def bollinger(bars, inputs):
    """Return middle, upper and lower Bollinger Band."""
    plots = bollinger_bands(bars, inputs)
    return plots["Median"], plots["Upper"], plots["Lower"]


@oracle("Bollinger Bands %B", {"in_0": 5, "in_1": 1.5})
def percent_b(bars, inputs):
    """Place the close in the bands."""
    _, upper, lower = bollinger(bars, inputs)
    return {"Plot": ratio(minus(bars.close, lower), minus(upper, lower))}


@oracle("Bollinger Bands Width", {"in_0": 5, "in_1": 1.5})
def band_width(bars, inputs):
    """Show the distance of the bands in percent of their middle."""
    middle, upper, lower = bollinger(bars, inputs)
    return {"Plot": ratio(minus(upper, lower), middle, 100)}


def extremes(bars, length):
    """Return the highest high, the lowest low, and their middle."""
    upper, lower = top(bars.high, length), low(bars.low, length)
    return upper, lower, each(lambda a, b: (a + b) / 2, upper, lower)


@oracle("Donchian Channels", {"in_0": 5})
def donchian(bars, inputs):
    """Show the extremes and their middle."""
    upper, lower, middle = extremes(bars, inputs["in_0"])
    return {"Upper": upper, "Lower": lower, "Basis": middle}


@oracle("Price Channel", {"in_0": 5, "in_1": 2})
def price_channel(bars, inputs):
    """Show the extremes and their middle, moved."""
    names = ("Highprice Line", "Lowprice Line", "Centerprice Line")
    found = extremes(bars, inputs["in_0"])
    return {name: ago(values, inputs["in_1"]) for name, values in zip(names, found, strict=True)}


@oracle("Envelopes", {"in_0": 5, "in_1": 3.5, "in_2": 1.5, "in_3": "Exponential", "in_4": "hl2"})
def envelopes(bars, inputs):
    """Put bands in percent around an average."""
    middle = average(bars.price(inputs["in_4"]), inputs["in_0"], inputs["in_3"])
    return {
        "Average": middle,
        "Upper": each(lambda a: a + a * inputs["in_1"] / 100, middle),
        "Lower": each(lambda a: a - a * inputs["in_2"] / 100, middle),
    }


@oracle("Keltner Channels", {"in_0": False, "in_1": 7, "in_2": 2})
def keltner(bars, inputs):
    """Put bands of average ranges around the exponential average."""
    reach = true_range(bars) if inputs["in_0"] else minus(bars.high, bars.low)
    middle, spread = ema(bars.close, inputs["in_1"]), ema(reach, inputs["in_1"])
    return {
        "Upper": each(lambda a, b: a + inputs["in_2"] * b, middle, spread),
        "Middle": middle,
        "Lower": each(lambda a, b: a - inputs["in_2"] * b, middle, spread),
    }


@oracle("Standard Error Bands", {"periods": 9, "errors": 1.5, "method": "Weighted", "averagePeriods": 4})
def error_bands(bars, inputs):
    """Put bands of standard errors around the smoothed regression line."""
    smooth = (inputs["averagePeriods"], inputs["method"])
    middle = average(regression(bars.close, inputs["periods"]), *smooth)
    spread = average(regression_error(bars.close, inputs["periods"]), *smooth)
    return {
        "Plot 1": each(lambda a, b: a + inputs["errors"] * b, middle, spread),
        "Plot 2": middle,
        "Plot 3": each(lambda a, b: a - inputs["errors"] * b, middle, spread),
    }


@oracle("Ichimoku Cloud", {"in_0": 3, "in_1": 5, "in_2": 9, "in_3": 4})
def ichimoku(bars, inputs):
    """Show the middles of ranges, moved by one bar less than the displacement."""
    conversion, base = extremes(bars, inputs["in_0"])[2], extremes(bars, inputs["in_1"])[2]
    moved = inputs["in_3"] - 1
    return {
        "ConversionLine": conversion,
        "BaseLine": base,
        "LaggingSpan": ago(bars.close, -moved),
        "LeadingSpanA": ago(each(lambda a, b: (a + b) / 2, conversion, base), moved),
        "LeadingSpanB": ago(extremes(bars, inputs["in_2"])[2], moved),
    }


@oracle("Chande Kroll Stop", {"in_0": 5, "in_1": 2, "in_2": 4})
def chande_kroll(bars, inputs):
    """Set stops at a distance of average ranges from the extremes."""
    length, reach = inputs["in_0"], rma(first_true_range(bars), inputs["in_0"])
    above = each(lambda a, b: a - inputs["in_1"] * b, top(bars.high, length), reach)
    below = each(lambda a, b: a + inputs["in_1"] * b, low(bars.low, length), reach)
    return {"Short": top(above, inputs["in_2"]), "Long": low(below, inputs["in_2"])}
