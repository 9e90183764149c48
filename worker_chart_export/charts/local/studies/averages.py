"""Averages of the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.studies.registry import Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import crossings, ema, moving_average, sma, wma

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
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


@study("Moving Average Double", title="MA Double")
def double_average(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close over two lengths by one method."""
    method = inputs.text("method")
    return {
        "Plot 1": moving_average(bars.close, inputs.length("firstPeriods"), method),
        "Plot 2": moving_average(bars.close, inputs.length("secondPeriods"), method),
    }


@study("MA Cross", title="MA Cross")
def average_cross(bars: Candles, inputs: Inputs) -> Plots:
    """Average the close over a short and a long window, and mark where they cross."""
    short, long = (sma(bars.close, inputs.length(name)) for name in ("in_0", "in_1"))
    return {"PlotShort": short, "PlotLong": long, "PlotCrosses": crossings(short, long)}
