"""Statistics of the close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, study
from worker_chart_export.charts.local.studies.series import (
    change,
    correlation,
    regression,
    standard_error,
    stdev,
    total,
)
from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Standard Deviation", title="SD", numbers=Numbers.PRICE)
def standard_deviation(bars: Candles, inputs: Inputs) -> Plots:
    """Show some of the population's standard deviations of the close. Source: Pine `ta.stdev`."""
    return {"Plot": inputs.whole("deviations") * stdev(bars.close, inputs.length("periods"))}


@study("Standard Error", title="SE", numbers=Numbers.PRICE)
def standard_error_of_regression(bars: Candles, inputs: Inputs) -> Plots:
    """Show the standard error of the regression line of the close, with `length` - 2 degrees of freedom.

    TradingView publishes no source of it.
    """
    return {"Plot": standard_error(bars.close, inputs.length("length"))}


@study("Linear Regression Slope", title="LRS", numbers=Numbers.PRICE)
def linear_regression_slope(bars: Candles, inputs: Inputs) -> Plots:
    """Show the regression line's rise per bar. TradingView publishes no source of it."""
    return {"Plot": regression(bars.close, inputs.length("periods"))[1]}


@study("Trend Strength Index", title="TSI")
def trend_strength_index(bars: Candles, inputs: Inputs) -> Plots:
    """Show the correlation of the close with the bar's number, -1 to 1. Source: TradingView's built-in."""
    numbers = np.arange(len(bars), dtype=np.float64)
    return {"Plot": correlation(bars.close, numbers, inputs.length("periods"))}


@study("Majority Rule", title="MR")
def majority_rule(bars: Candles, inputs: Inputs) -> Plots:
    """Show how many percent of the last bars closed above the close before.

    TradingView publishes no source of it; this is the name's usual meaning.
    """
    moves = change(bars.close)
    rises = np.where(np.isnan(moves), np.nan, moves > 0)
    length = inputs.length("rollingPeriod")
    return {"Majority Rule": 100 * total(rises, length) / length}
