"""Bands and channels around the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.studies.registry import Band, Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import (
    atr,
    divide,
    ema,
    highest,
    linreg,
    lowest,
    moving_average,
    sma,
    standard_error,
    stdev,
    true_range,
)

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


_GREEN, _RED = (67, 160, 71, 255), (244, 67, 54, 255)
_BETWEEN = Band(upper="Upper", lower="Lower")


@study("Bollinger Bands", title="BB", fills={"Plots Background": _BETWEEN})
def bollinger_bands(bars: Candles, inputs: Inputs) -> Plots:
    """Put bands `in_1` population deviations around the simple average. Source: Pine `ta.bb`."""
    middle, upper, lower = _bollinger(bars, inputs)
    return {"Median": middle, "Upper": upper, "Lower": lower}


@study("Bollinger Bands %B", title="BB %B")
def bollinger_percent(bars: Candles, inputs: Inputs) -> Plots:
    """Place the close within the Bollinger Bands: 0 at the lower one, 1 at the upper one.

    Source: TradingView's built-in indicator.
    """
    _, upper, lower = _bollinger(bars, inputs)
    return {"Plot": divide(bars.close - lower, upper - lower)}


@study("Bollinger Bands Width", title="BBW")
def bollinger_width(bars: Candles, inputs: Inputs) -> Plots:
    """Show the distance of the Bollinger Bands in percent of their middle. Source: Pine `ta.bbw`."""
    middle, upper, lower = _bollinger(bars, inputs)
    return {"Plot": divide(100 * (upper - lower), middle)}


def _bollinger(bars: Candles, inputs: Inputs) -> tuple[Series, Series, Series]:
    length = inputs.length("in_0")
    middle, spread = sma(bars.close, length), inputs.number("in_1") * stdev(bars.close, length)
    return middle, middle + spread, middle - spread


@study("Donchian Channels", title="DC", fills={"Plots Background": _BETWEEN})
def donchian_channels(bars: Candles, inputs: Inputs) -> Plots:
    """Show the highest high, the lowest low, and their middle. Source: TradingView's built-in indicator."""
    length = inputs.length("in_0")
    upper, lower = highest(bars.high, length), lowest(bars.low, length)
    return {"Lower": lower, "Upper": upper, "Basis": (upper + lower) / 2}


@study("Price Channel", title="PC")
def price_channel(bars: Candles, inputs: Inputs) -> Plots:
    """Show the highest high, the lowest low, and their middle, moved by the offset.

    TradingView publishes no source of it; the bar itself counts, as in the Donchian Channels.
    """
    length, offset = inputs.length("in_0"), inputs.whole("in_1")
    upper, lower = highest(bars.high, length), lowest(bars.low, length)
    return {
        "Highprice Line": PlotValues(values=upper, offset=offset),
        "Lowprice Line": PlotValues(values=lower, offset=offset),
        "Centerprice Line": PlotValues(values=(upper + lower) / 2, offset=offset),
    }


@study("Envelopes", title="Env", fills={"Plots Background": _BETWEEN})
def envelopes(bars: Candles, inputs: Inputs) -> Plots:
    """Put bands some percent above and below an average. Source: TradingView's built-in indicator."""
    average = moving_average(inputs.source("in_4", bars), inputs.length("in_0"), inputs.text("in_3"))
    return {
        "Average": average,
        "Upper": average * (1 + inputs.number("in_1") / 100),
        "Lower": average * (1 - inputs.number("in_2") / 100),
    }


@study("Keltner Channels", title="KC", fills={"Plots Background": _BETWEEN})
def keltner_channels(bars: Candles, inputs: Inputs) -> Plots:
    """Put bands of the average range around the exponential average. Source: Pine `ta.kc`."""
    length = inputs.length("in_1")
    middle = ema(bars.close, length)
    reach = ema(true_range(bars) if inputs.flag("in_0") else bars.high - bars.low, length)
    spread = inputs.number("in_2") * reach
    return {"Upper": middle + spread, "Middle": middle, "Lower": middle - spread}


@study(
    "Standard Error Bands",
    title="SEB",
    fills={"Background": Band(upper="Plot 1", lower="Plot 3")},
)
def standard_error_bands(bars: Candles, inputs: Inputs) -> Plots:
    """Put bands of standard errors around the smoothed regression line. Source: Andersen's definition.

    TradingView publishes no source of it. Here the standard error is smoothed like the line.
    """
    length, smooth = inputs.length("periods"), inputs.length("averagePeriods")
    method = inputs.text("method")
    middle = moving_average(linreg(bars.close, length, 0), smooth, method)
    spread = inputs.number("errors") * moving_average(standard_error(bars.close, length), smooth, method)
    return {"Plot 1": middle + spread, "Plot 2": middle, "Plot 3": middle - spread}


@study(
    "Ichimoku Cloud",
    title="Ichimoku",
    fills={"Plots Background": Band(upper="LeadingSpanA", lower="LeadingSpanB", colors=(_GREEN, _RED))},
)
def ichimoku_cloud(bars: Candles, inputs: Inputs) -> Plots:
    """Show five lines of range middles. Source: TradingView's built-in indicator.

    The leading spans are moved `in_3` - 1 bars to the right, the lagging span as far to the left.
    """

    def middle(name: str) -> Series:
        length = inputs.length(name)
        return (highest(bars.high, length) + lowest(bars.low, length)) / 2

    conversion, base = middle("in_0"), middle("in_1")
    offset = inputs.length("in_3") - 1
    return {
        "ConversionLine": conversion,
        "BaseLine": base,
        "LaggingSpan": PlotValues(values=bars.close, offset=-offset),
        "LeadingSpanA": PlotValues(values=(conversion + base) / 2, offset=offset),
        "LeadingSpanB": PlotValues(values=middle("in_2"), offset=offset),
    }


@study("Chande Kroll Stop", title="CKS")
def chande_kroll_stop(bars: Candles, inputs: Inputs) -> Plots:
    """Set stops below the highs and above the lows by average ranges. Source: TradingView's built-in."""
    length, smooth = inputs.length("in_0"), inputs.length("in_2")
    reach = inputs.number("in_1") * atr(bars, length)
    return {
        "Long": lowest(lowest(bars.low, length) + reach, smooth),
        "Short": highest(highest(bars.high, length) - reach, smooth),
    }
