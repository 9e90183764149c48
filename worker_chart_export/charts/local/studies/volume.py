"""Volume, and studies that weigh the price's moves with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import (
    change,
    cumulate,
    divide,
    ema,
    negligible,
    shift,
    sma,
    total,
)
from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Volume", title="Vol", numbers=Numbers.COMPACT)
def volume(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001  # every formula takes both
    """Show the volume of each bar; colour 1 if it closed at or above its open, else 0.

    Source: TradingView's built-in indicator.
    """
    return {"Volume": PlotValues(values=bars.volume, shades=np.where(bars.close >= bars.open, 1, 0))}


@study("On Balance Volume", title="OBV", numbers=Numbers.COMPACT, cumulative=True)
def on_balance_volume(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Add the volume when the close rises, subtract it when it falls. Source: Pine `ta.obv`."""
    return {"Plot": cumulate(np.sign(change(bars.close)) * bars.volume)}


@study("Net Volume", title="Net Volume", numbers=Numbers.COMPACT)
def net_volume(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Show the volume with the sign of the close's change.

    TradingView's present indicator nets volume within each bar, which needs bars of a smaller timeframe.
    """
    return {"Plot": np.sign(change(bars.close)) * bars.volume}


@study("Price Volume Trend", title="PVT", numbers=Numbers.COMPACT, cumulative=True)
def price_volume_trend(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Sum the volume times the relative change of the close. Source: Pine `ta.pvt`."""
    return {"PVT": cumulate(divide(change(bars.close), shift(bars.close, 1)) * bars.volume)}


def accumulation(bars: Candles) -> Series:
    """Return the volume times the close's place in its bar, -1 at the low to 1 at the high."""
    place = divide(2 * bars.close - bars.low - bars.high, bars.high - bars.low)
    return np.nan_to_num(place) * bars.volume


@study("Accumulation/Distribution", title="Accum/Dist", numbers=Numbers.COMPACT, cumulative=True)
def accumulation_distribution(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Sum the volume by the close's place in its bar. Source: Pine `ta.accdist`."""
    return {"Plot": cumulate(accumulation(bars))}


@study("Chaikin Money Flow", title="CMF")
def chaikin_money_flow(bars: Candles, inputs: Inputs) -> Plots:
    """Divide the accumulation of `in_0` bars by their volume. Source: TradingView's built-in indicator."""
    length = inputs.length("in_0")
    return {"Plot": divide(total(accumulation(bars), length), total(bars.volume, length))}


@study("Chaikin Oscillator", title="Chaikin Osc", numbers=Numbers.COMPACT)
def chaikin_oscillator(bars: Candles, inputs: Inputs) -> Plots:
    """Subtract a slow from a fast exponential average of the accumulation.

    Source: TradingView's built-in indicator.
    """
    line = cumulate(accumulation(bars))
    return {"Plot": ema(line, inputs.length("in_0")) - ema(line, inputs.length("in_1"))}


@study("Ease of Movement", title="EOM")
def ease_of_movement(bars: Candles, inputs: Inputs) -> Plots:
    """Average the move of the bars' middle times range, divided by volume. Source: TradingView's built-in."""
    moves = inputs.whole("in_0") * change(bars.price("hl2")) * (bars.high - bars.low)
    return {"Plot": sma(divide(moves, bars.volume), inputs.length("in_1"))}


@study("Elder's Force Index", title="EFI", numbers=Numbers.COMPACT)
def elder_force_index(bars: Candles, inputs: Inputs) -> Plots:
    """Smooth the change of the close times volume. Source: TradingView's built-in indicator."""
    return {"Plot": ema(change(bars.close) * bars.volume, inputs.length("in_0"))}


@study("Klinger Oscillator", title="Klinger", numbers=Numbers.COMPACT)
def klinger_oscillator(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Subtract the 55-bar from the 34-bar average of signed volume; the signal smooths over 13 bars.

    The volume of a bar whose typical price fell is negative, and that of the first bar. Source: TradingView's
    built-in indicator.
    """
    price = bars.price("hlc3")
    signed = np.where(change(price) >= -negligible(price), bars.volume, -bars.volume)
    line = ema(signed, 34) - ema(signed, 55)
    return {"Plot": line, "Signal": ema(line, 13)}


@study("Money Flow Index", title="MFI")
def money_flow_index(bars: Candles, inputs: Inputs) -> Plots:
    """Compare the money of rising and falling bars, 0 to 100. Source: Pine `ta.mfi`.

    The first bar has no change; its money counts on both sides.
    """
    price, length = bars.price("hlc3"), inputs.length("in_0")
    money, moves, least = price * bars.volume, change(price), negligible(price)
    rise = total(np.where(moves <= least, 0, money), length)
    fall = total(np.where(moves >= -least, 0, money), length)
    return {"Plot": np.where(fall == 0, 100.0, 100 - 100 / (1 + divide(rise, fall)))}


@study("Volume Oscillator", title="Volume Osc")
def volume_oscillator(bars: Candles, inputs: Inputs) -> Plots:
    """Show the distance of two exponential averages of volume in percent of the long one.

    Source: TradingView's built-in indicator.
    """
    short, long = ema(bars.volume, inputs.length("in_0")), ema(bars.volume, inputs.length("in_1"))
    return {"Plot": divide(100 * (short - long), long)}
