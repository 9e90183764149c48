"""Oracles of statistics."""

from __future__ import annotations

import math

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import change, deviation, each, line, regression_error, windowed


@oracle("Standard Deviation", {"periods": 9, "deviations": 2})
def standard_deviation(bars, inputs):
    """Show some deviations."""
    return {"Plot": each(lambda v: v * inputs["deviations"], deviation(bars.close, inputs["periods"]))}


@oracle("Standard Error", {"length": 5})
def standard_error(bars, inputs):
    """Show the error of the regression line."""
    return {"Plot": regression_error(bars.close, inputs["length"])}


@oracle("Linear Regression Slope", {"periods": 5})
def slope(bars, inputs):
    """Show the rise of the regression line."""
    return {"Plot": windowed(lambda part: line(part)[1], bars.close, inputs["periods"])}


@oracle("Trend Strength Index", {"periods": 5})
def trend_strength(bars, inputs):
    """Show the correlation of the close with time."""

    def correlation(part):
        x, y = (len(part) - 1) / 2, math.fsum(part) / len(part)
        both = math.fsum((i - x) * (v - y) for i, v in enumerate(part))
        size = math.fsum((i - x) ** 2 for i in range(len(part))) * math.fsum((v - y) ** 2 for v in part)
        return both / math.sqrt(size) if size else None

    return {"Plot": windowed(correlation, bars.close, inputs["periods"])}


@oracle("Majority Rule", {"rollingPeriod": 5})
def majority(bars, inputs):
    """Show the percentage of rises."""
    n = inputs["rollingPeriod"]
    return {"Majority Rule": windowed(lambda p: 100 * sum(v > 0 for v in p) / n, change(bars.close), n)}
