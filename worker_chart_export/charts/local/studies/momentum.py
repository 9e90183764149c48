"""Momentum: how fast and how steadily the price moves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import (
    change,
    divide,
    ema,
    highest,
    log,
    lowest,
    mean_deviation,
    negligible,
    percent_rank,
    rma,
    roc,
    shift,
    sma,
    swma,
    total,
    wma,
)
from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


#: RSI goes from 0 to 100; a smaller spread than this is a rounding error, not a movement.
_NO_SPREAD = 1e-9


def rsi(values: Series, length: int) -> Series:
    """Return the relative strength index, 0 to 100 (Pine `ta.rsi`).

    It is 100 if no bar fell and 0 if none rose. A market that never moved counts as 100, as in Pine.
    """
    moves = change(values)
    gain, loss = rma(np.maximum(moves, 0), length), rma(np.maximum(-moves, 0), length)
    strength = 100 - 100 / (1 + divide(gain, loss))
    return np.where(loss == 0, 100.0, strength)


def stochastic(values: Series, high: Series, low: Series, length: int, *, smallest: float = 0.0) -> Series:
    """Place values between the lowest low and the highest high, 0 to 100 (Pine `ta.stoch`).

    A spread of at most `smallest` gives NaN.
    """
    bottom = lowest(low, length)
    spread = highest(high, length) - bottom
    return divide(100 * (values - bottom), np.where(spread > smallest, spread, 0))


def strength_of_changes(values: Series, long: int, short: int) -> Series:
    """Divide the doubly smoothed changes by the doubly smoothed sizes, -1 to 1 (Pine `ta.tsi`)."""
    moves = change(values)
    return divide(ema(ema(moves, long), short), ema(ema(np.abs(moves), long), short))


@study("Relative Strength Index", title="RSI", levels={"MiddleLimit": 50.0})
def relative_strength_index(bars: Candles, inputs: Inputs) -> Plots:
    """Compare the average rise with the average fall. Source: Pine `ta.rsi`."""
    return {"Plot": rsi(bars.close, inputs.length("length"))}


@study("Stochastic RSI", title="Stoch RSI")
def stochastic_rsi(bars: Candles, inputs: Inputs) -> Plots:
    """Place the RSI in its own recent range. Source: TradingView's built-in indicator.

    Where the RSI did not move at all, its range is empty and there is a gap.
    """
    strength = rsi(bars.close, inputs.length("in_0"))
    place = stochastic(strength, strength, strength, inputs.length("in_1"), smallest=_NO_SPREAD)
    k = sma(place, inputs.length("in_2"))
    return {"%K": k, "%D": sma(k, inputs.length("in_3"))}


@study("Stochastic", title="Stoch")
def stochastic_oscillator(bars: Candles, inputs: Inputs) -> Plots:
    """Place the close in its recent range, smoothed over `in_1` and again over `in_2` bars.

    Chart-IMG calls `in_1` "D" and `in_2` "smooth". With its defaults, 1 and 3, these are the lines of
    TradingView's built-in indicator, whose inputs are %K length, %K smoothing, %D smoothing. Source: that.
    """
    k = sma(stochastic(bars.close, bars.high, bars.low, inputs.length("in_0")), inputs.length("in_1"))
    return {"%K": k, "%D": sma(k, inputs.length("in_2"))}


@study("Williams %R", title="%R")
def williams_percent_range(bars: Candles, inputs: Inputs) -> Plots:
    """Place the close in its recent range, -100 to 0. Source: Pine `ta.wpr`."""
    return {"Plot": stochastic(bars.close, bars.high, bars.low, inputs.length("in_0")) - 100}


@study("MACD", title="MACD", numbers=Numbers.PRICE)
def macd(bars: Candles, inputs: Inputs) -> Plots:
    """Subtract a slow from a fast exponential average, and smooth the result. Source: Pine `ta.macd`.

    The histogram's colours: 0 above zero and rising, 1 above and not rising, 2 below and rising, 3 below and
    not rising. Source: TradingView's built-in indicator.
    """
    values = inputs.source("in_3", bars)
    line = ema(values, inputs.length("in_0")) - ema(values, inputs.length("in_1"))
    signal = ema(line, inputs.length("in_2"))
    histogram = line - signal
    rising = histogram > shift(histogram, 1)
    shades = np.where(histogram >= 0, np.where(rising, 0, 1), np.where(rising, 2, 3))
    return {"Histogram": PlotValues(values=histogram, shades=shades), "MACD": line, "Signal": signal}


@study("Awesome Oscillator", title="AO", numbers=Numbers.PRICE)
def awesome_oscillator(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001  # every formula takes both
    """Subtract the 34-bar from the 5-bar average of the bars' middles. Source: TradingView's built-in.

    Colour 0 where it does not rise, else 1; the first value has no change and colour 1.
    """
    middle = bars.price("hl2")
    values = sma(middle, 5) - sma(middle, 34)
    return {"Plot": PlotValues(values=values, shades=np.where(change(values) <= negligible(middle), 0, 1))}


@study("Balance of Power", title="BOP")
def balance_of_power(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Divide each bar's gain by its range. Source: TradingView's built-in indicator."""
    return {"Plot": divide(bars.close - bars.open, bars.high - bars.low)}


@study("Chande Momentum Oscillator", title="ChandeMO")
def chande_momentum(bars: Candles, inputs: Inputs) -> Plots:
    """Compare the sums of rises and falls, -100 to 100. Source: Pine `ta.cmo`."""
    length, moves = inputs.length("in_0"), change(bars.close)
    rises, falls = total(np.maximum(moves, 0), length), total(np.maximum(-moves, 0), length)
    return {"Plot": divide(100 * (rises - falls), rises + falls)}


@study("Commodity Channel Index", title="CCI")
def commodity_channel_index(bars: Candles, inputs: Inputs) -> Plots:
    """Measure the typical price's distance from its average in mean deviations. Source: Pine `ta.cci`."""
    length, price = inputs.length("in_0"), bars.price("hlc3")
    return {"Plot": divide(price - sma(price, length), 0.015 * mean_deviation(price, length))}


@study("Connors RSI", title="CRSI")
def connors_rsi(bars: Candles, inputs: Inputs) -> Plots:
    """Average the RSI, the RSI of the streak of rises or falls, and the rank of the last change.

    The first bar counts as a fall. Source: TradingView's built-in indicator.
    """
    signs = np.sign(change(bars.close))
    signs[:1] = -1
    numbers = np.arange(len(bars))
    starts = np.maximum.accumulate(np.where(signs != shift(signs, 1), numbers, 0))
    streak = signs * (numbers - starts + 1.0)
    strength, streaks = rsi(bars.close, inputs.length("in_0")), rsi(streak, inputs.length("in_1"))
    return {"CRSI": (strength + streaks + percent_rank(roc(bars.close, 1), inputs.length("in_2"))) / 3}


@study("Coppock Curve", title="Coppock")
def coppock_curve(bars: Candles, inputs: Inputs) -> Plots:
    """Average the sum of a long and a short rate of change with linear weights.

    Source: TradingView's built-in indicator.
    """
    rates = roc(bars.close, inputs.length("in_1")) + roc(bars.close, inputs.length("in_2"))
    return {"Plot": wma(rates, inputs.length("in_0"))}


@study("Detrended Price Oscillator", title="DPO", numbers=Numbers.PRICE)
def detrended_price(bars: Candles, inputs: Inputs) -> Plots:
    """Subtract an average from half a period ago. Source: TradingView's built-in indicator.

    When centred, the average is subtracted from the close of that time, and the plot is moved back.
    """
    length = inputs.length("in_0")
    back, average = length // 2 + 1, sma(bars.close, length)
    if inputs.flag("in_1"):
        return {"DPO": PlotValues(values=shift(bars.close, back) - average, offset=-back)}
    return {"DPO": bars.close - shift(average, back)}


@study("Fisher Transform", title="Fisher")
def fisher_transform(bars: Candles, inputs: Inputs) -> Plots:
    """Spread the price's place in its range by the Fisher transform. Source: TradingView's built-in.

    After bars without a range it starts again.
    """
    middle, length = bars.price("hl2"), inputs.length("in_0")
    low = lowest(middle, length)
    places = divide(middle - low, highest(middle, length) - low)
    value, fisher, values = 0.0, 0.0, []
    for place in places.tolist():
        if place != place:  # noqa: PLR0124  # NaN
            value, fisher = 0.0, 0.0
            values.append(place)
            continue
        value = 0.66 * (place - 0.5) + 0.67 * value
        value = 0.999 if value > 0.99 else -0.999 if value < -0.99 else value  # noqa: PLR2004  # as defined
        fisher = 0.5 * math.log((1 + value) / (1 - value)) + 0.5 * fisher
        values.append(fisher)
    fishers = np.array(values, dtype=np.float64)
    return {"Fisher": fishers, "Trigger": shift(fishers, 1)}


@study("Know Sure Thing", title="KST")
def know_sure_thing(bars: Candles, inputs: Inputs) -> Plots:
    """Add four smoothed rates of change with weights 1 to 4. Source: TradingView's built-in indicator."""
    line = sum(
        (place + 1) * sma(roc(bars.close, inputs.length(f"in_{place}")), inputs.length(f"in_{place + 4}"))
        for place in range(4)
    )
    values = np.asarray(line)
    return {"KST": values, "Signal": sma(values, inputs.length("in_8"))}


@study("Momentum", title="Mom", numbers=Numbers.PRICE)
def momentum(bars: Candles, inputs: Inputs) -> Plots:
    """Subtract the source of `in_0` bars ago. Source: Pine `ta.mom`."""
    return {"Mom": change(inputs.source("in_1", bars), inputs.length("in_0"))}


@study("Price Oscillator", title="PPO")
def price_oscillator(bars: Candles, inputs: Inputs) -> Plots:
    """Show the distance of two simple averages in percent of the long one.

    Source: TradingView's built-in indicator, with the defaults that it had before version 6.
    """
    short, long = sma(bars.close, inputs.length("in_0")), sma(bars.close, inputs.length("in_1"))
    return {"Plot": divide(100 * (short - long), long)}


@study("Rate Of Change", title="ROC")
def rate_of_change(bars: Candles, inputs: Inputs) -> Plots:
    """Show the change over `in_0` bars in percent. Source: Pine `ta.roc`."""
    return {"ROC": roc(bars.close, inputs.length("in_0"))}


@study("Relative Vigor Index", title="RVGI")
def relative_vigor_index(bars: Candles, inputs: Inputs) -> Plots:
    """Divide smoothed gains by smoothed ranges. Source: TradingView's built-in indicator."""
    length = inputs.length("in_0")
    gains, ranges = swma(bars.close - bars.open), swma(bars.high - bars.low)
    values = divide(total(gains, length), total(ranges, length))
    return {"RVGI": values, "Signal": swma(values)}


@study("SMI Ergodic Indicator/Oscillator", title="SMIIO")
def ergodic_oscillator(bars: Candles, inputs: Inputs) -> Plots:
    """Smooth changes twice, smooth the result again, and show the difference. Source: Pine `ta.tsi`."""
    values = strength_of_changes(bars.close, inputs.length("in_1"), inputs.length("in_0"))
    signal = ema(values, inputs.length("in_2"))
    return {"Indicator": values, "Signal": signal, "Oscillator": values - signal}


@study("True Strength Index", title="TSI")
def true_strength_index(bars: Candles, inputs: Inputs) -> Plots:
    """Smooth changes twice, -100 to 100, and smooth the result again. Source: Pine `ta.tsi`."""
    values = 100 * strength_of_changes(bars.close, inputs.length("in_0"), inputs.length("in_1"))
    return {"True Strength Index": values, "Signal": ema(values, inputs.length("in_2"))}


@study("TRIX", title="TRIX")
def trix(bars: Candles, inputs: Inputs) -> Plots:
    """Show the change of the logarithm, smoothed three times, times 10,000.

    Source: TradingView's built-in indicator.
    """
    length = inputs.length("in_0")
    return {"TRIX": 10_000 * change(ema(ema(ema(log(bars.close), length), length), length))}


@study("Ultimate Oscillator", title="UO")
def ultimate_oscillator(bars: Candles, inputs: Inputs) -> Plots:
    """Weigh the buying pressure over three lengths 4 : 2 : 1. Source: TradingView's built-in indicator."""
    before = shift(bars.close, 1)
    pressure = bars.close - np.fmin(bars.low, before)
    reach = np.fmax(bars.high, before) - np.fmin(bars.low, before)
    reach[:1] = pressure[:1] = np.nan

    def ratio(name: str) -> Series:
        length = inputs.length(name)
        return divide(total(pressure, length), total(reach, length))

    return {"UO": 100 * (4 * ratio("in_0") + 2 * ratio("in_1") + ratio("in_2")) / 7}


@study("Chop Zone", title="Chop Zone")
def chop_zone(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Colour a column by the angle of the 34-bar exponential average. Source: TradingView's built-in.

    The angle is measured on a scale of the range of 30 bars. Colours 0 to 3 are for rises from 5 degrees
    down to 0.71, 4 to 7 for falls, 8 is flat. Before the average begins TradingView draws columns in the
    colour for flat; here there are none.
    """
    top, bottom = highest(bars.high, 30), lowest(bars.low, 30)
    span = divide(25 * bottom, top - bottom)
    rise = divide(change(ema(bars.close, 34)) * span, bars.price("hlc3"))
    angle = np.round(np.degrees(np.arctan(rise)))
    limits = [5, 3.57, 2.14, 0.71]
    rising = [angle >= limit for limit in limits]
    falling = [angle <= -limit for limit in limits]
    shades = np.select([*rising, *falling], range(8), default=8)
    return {"Plot": PlotValues(values=np.where(np.isnan(angle), np.nan, 1.0), shades=shades)}
