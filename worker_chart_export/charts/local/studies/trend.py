"""Trend: its direction, its strength, and stops and pivots that follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import (
    atr,
    bars_since_highest,
    change,
    cumulate,
    divide,
    ema,
    first_defined,
    first_true_range,
    fixnan,
    highest,
    negligible,
    rma,
    shift,
    total,
    true_range,
)
from worker_chart_export.charts.local.studies.study import Numbers, PlotType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


def directional_movement(bars: Candles, length: int) -> tuple[Series, Series]:
    """Return the directional indicators +DI and -DI, 0 to 100 (Pine `ta.dmi`).

    Its true range begins on the second bar, unlike that of `ta.atr`.
    """
    up, down = change(bars.high), -change(bars.low)
    least = negligible(bars.high)
    rise = np.where(np.isnan(up), np.nan, np.where((up - down > least) & (up > least), up, 0))
    fall = np.where(np.isnan(down), np.nan, np.where((down - up > least) & (down > least), down, 0))
    reach = rma(true_range(bars), length)
    return (
        fixnan(divide(100 * rma(rise, length), reach)),
        fixnan(divide(100 * rma(fall, length), reach)),
    )


def directional_index(plus: Series, minus: Series) -> Series:
    """Return the difference of +DI and -DI as a part of their sum, 0 to 100."""
    both = plus + minus
    return 100 * np.abs(plus - minus) / np.where(both == 0, 1, both)


@study("Average Directional Index", title="ADX")
def average_directional_index(bars: Candles, inputs: Inputs) -> Plots:
    """Average the directional index by Wilder's method. Source: TradingView's built-in ADX."""
    index = directional_index(*directional_movement(bars, inputs.length("in_1")))
    return {"ADX": rma(index, inputs.length("in_0"))}


@study("Parabolic SAR", title="SAR")
def parabolic_sar(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the trend with Wilder's stop and reverse. Source: Pine `ta.sar`.

    The first trend rises if the second bar closes above the first.
    """
    return {"Plot": _sar(bars, *(inputs.number(name) for name in ("in_0", "in_1", "in_2")))}


def _sar(bars: Candles, start: float, increment: float, maximum: float) -> Series:
    high, low, close = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    if len(close) < 2:  # noqa: PLR2004  # the first trend needs two bars
        return np.full(len(close), np.nan)
    rising = close[1] > close[0]
    extreme, stop, step = (high[1], low[0], start) if rising else (low[1], high[0], start)
    result, older = [float("nan")], (high[0], low[0])
    bars_before = zip(high, low, strict=True)
    for top, bottom, before in zip(high[1:], low[1:], bars_before, strict=False):
        turned = len(result) == 1
        stop += step * (extreme - stop)
        if stop > bottom if rising else stop < top:
            turned, step = True, start
            stop = max(top, extreme) if rising else min(bottom, extreme)
            extreme = bottom if rising else top
            rising = not rising
        if not turned and (top > extreme if rising else bottom < extreme):
            extreme = top if rising else bottom
            step = min(step + increment, maximum)
        stop = min(stop, before[1], older[1]) if rising else max(stop, before[0], older[0])
        older = before
        result.append(stop)
    return np.array(result)


@study("Directional Movement", title="DMI")
def directional_movement_system(bars: Candles, inputs: Inputs) -> Plots:
    """Show the directional indicators and their index, plain, averaged and averaged over time.

    ADXR is the mean of ADX and of ADX one smoothing length ago, by Wilder's definition: TradingView's
    built-in indicator has no ADXR. Source of the others: Pine `ta.dmi`.
    """
    smoothing = inputs.length("in_1")
    plus, minus = directional_movement(bars, inputs.length("in_0"))
    index = directional_index(plus, minus)
    average = rma(index, smoothing)
    rating = (average + shift(average, smoothing)) / 2
    return {"+DI": plus, "-DI": minus, "DX": index, "ADX": average, "ADXR": rating}


@study("Aroon", title="Aroon")
def aroon(bars: Candles, inputs: Inputs) -> Plots:
    """Show how long ago the highest high and the lowest low were, 100 for now.

    Source: TradingView's built-in indicator, Pine `ta.highestbars`.
    """
    length = inputs.length("in_0")
    upper, lower = (bars_since_highest(values, length + 1) for values in (bars.high, -bars.low))
    return {"Upper": 100 * (length - upper) / length, "Lower": 100 * (length - lower) / length}


@study("Vortex Indicator", title="VI")
def vortex_indicator(bars: Candles, inputs: Inputs) -> Plots:
    """Divide the moves from low to high and from high to low by the way. Source: TradingView's built-in."""
    length = inputs.length("in_0")
    way = total(first_true_range(bars), length)
    return {
        "VI +": divide(total(np.abs(bars.high - shift(bars.low, 1)), length), way),
        "VI -": divide(total(np.abs(bars.low - shift(bars.high, 1)), length), way),
    }


@study("Advance/Decline", title="A/D")
def advance_decline(bars: Candles, inputs: Inputs) -> Plots:
    """Divide the number of rising bars by that of falling bars among the last `in_0`.

    A bar that closes at its open or above it counts as rising. Without a falling bar the value is the number
    of rising ones. Source: TradingView's built-in Advance/Decline Ratio (Bars).
    """
    length = inputs.length("in_0")
    rises = total((bars.close >= bars.open).astype(np.float64), length)
    falls = length - rises
    return {"Plot": rises / np.where(falls == 0, 1, falls)}


@study("Accumulative Swing Index", title="ASI", cumulative=True)
def accumulative_swing_index(bars: Candles, inputs: Inputs) -> Plots:
    """Sum Wilder's swing index; `in_0` is the limit of a move. Source: Wilder's definition.

    TradingView publishes no source of it.
    """
    open_before, close_before = shift(bars.open, 1), shift(bars.close, 1)
    high, low = np.abs(bars.high - close_before), np.abs(bars.low - close_before)
    reach, body = bars.high - bars.low, np.abs(close_before - open_before)
    size = np.where(
        (high > low) & (high > reach),
        high - low / 2 + body / 4,
        np.where((low > high) & (low > reach), low - high / 2 + body / 4, reach + body / 4),
    )
    moves = change(bars.close) + (bars.close - bars.open) / 2 + (close_before - open_before) / 4
    index = 50 * divide(moves, size) * np.maximum(high, low) / inputs.number("in_0")
    return {"ASI": cumulate(index)}


@study("Super Trend", title="Supertrend")
def super_trend(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the trend at a distance of average ranges. Source: Pine `ta.supertrend`.

    Colour 0 is for a rising trend, 1 for a falling one.
    """
    reach = inputs.whole("in_1") * atr(bars, inputs.length("in_0"))
    start, middle = first_defined(reach), bars.price("hl2")
    lower, upper, before, falling = float("-inf"), float("inf"), float("nan"), True
    values, falls = [float("nan")] * start, [1] * start
    columns = (middle - reach, middle + reach, bars.close)
    for below, above, close in zip(*(column[start:].tolist() for column in columns), strict=True):
        lower = below if below > lower or before < lower else lower
        upper = above if above < upper or before > upper else upper
        if len(values) > start:
            falling = close <= upper if falling else close < lower
        values.append(upper if falling else lower)
        falls.append(int(falling))
        before = close
    return {"SuperTrend": PlotValues(values=np.array(values), shades=np.array(falls, dtype=np.intp))}


@study("Volatility Index", title="Volatility Stop", numbers=Numbers.PRICE)
def volatility_stop(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the close's extreme at a distance of average ranges.

    Before the average begins the distance is the true range. Source: TradingView's built-in Volatility Stop.
    It has no choice of the average, and may not be the study that Chart-IMG calls Volatility Index.
    """
    smooth = rma if inputs.text("method") == "Wilder Smoothing" else ema
    reach = inputs.number("atrMult") * smooth(first_true_range(bars), inputs.length("periods"))
    distances = np.where(np.isnan(reach), true_range(bars), reach)
    extreme = stop = float(bars.close[0])
    rising, values = True, [stop]
    for price, distance in zip(bars.close[1:].tolist(), distances[1:].tolist(), strict=True):
        extreme = max(extreme, price) if rising else min(extreme, price)
        stop = max(stop, extreme - distance) if rising else min(stop, extreme + distance)
        if (price >= stop) != rising:
            rising, extreme = not rising, price
            stop = price - distance if rising else price + distance
        values.append(stop)
    return {"Plot": np.array(values)}


@study(
    "Williams Fractal",
    title="Fractals",
    types={"Up fractals": PlotType.TRIANGLE_UP, "Down fractals": PlotType.TRIANGLE_DOWN},
)
def williams_fractal(bars: Candles, inputs: Inputs) -> Plots:
    """Mark highs and lows with `in_0` smaller bars on each side. Source: TradingView's built-in indicator.

    Up to four bars before it may have the same height, so the last of equal ones is marked.
    """
    side = inputs.length("in_0")
    return {
        "Up fractals": np.where(_fractals(bars.high, side), bars.high, np.nan),
        "Down fractals": np.where(_fractals(-bars.low, side), bars.low, np.nan),
    }


def _fractals(values: Series, side: int) -> NDArray[np.bool_]:
    before = highest(shift(values, 1), side)
    smaller_before = before < values
    for equal in range(1, 5):
        same = highest(shift(values, 1), equal) <= values
        smaller_before |= same & (shift(before, equal) < values)
    return np.asarray(smaller_before & (shift(highest(values, side), -side) < values))


@study("Zig Zag", title="ZigZag")
def zig_zag(bars: Candles, inputs: Inputs) -> Plots:
    """Join highs and lows that differ by at least `in_0` percent. Source: TradingView's ZigZag library.

    A pivot is the extreme of `in_1` / 2 bars on each side, the first one of equal bars. The line also goes to
    the newest bar's extreme.
    """
    side, least = max(inputs.length("in_1") // 2, 2), inputs.number("in_0")
    tops, bottoms = _turns(bars.high, side), _turns(-bars.low, side)
    pivots: list[tuple[int, float, bool]] = []
    for bar in np.flatnonzero(tops | bottoms).tolist():
        if tops[bar]:
            _add_pivot(pivots, (bar, float(bars.high[bar]), True), least)
        if bottoms[bar]:
            _add_pivot(pivots, (bar, float(bars.low[bar]), False), least)
    values = np.full(len(bars), np.nan)
    for bar, price, _ in pivots:
        values[bar] = price
    if pivots and pivots[-1][0] < len(bars) - 1:
        values[-1] = bars.low[-1] if pivots[-1][2] else bars.high[-1]
    return {"Plot": values}


def _turns(values: Series, side: int) -> NDArray[np.bool_]:
    """Return which bars are above the `side` bars before and at least as high as those after."""
    around = highest(values, side)
    return np.asarray((shift(around, 1) < values) & (shift(around, -side) <= values))


def _add_pivot(pivots: list[tuple[int, float, bool]], pivot: tuple[int, float, bool], least: float) -> None:
    """Add a pivot in the other direction if it is far enough away, or move the last one further out."""
    _, price, is_high = pivot
    if not pivots:
        pivots.append(pivot)
        return
    _, last, last_is_high = pivots[-1]
    if last_is_high == is_high:
        if price > last if is_high else price < last:
            pivots[-1] = pivot
    elif 100 * abs(price - last) / abs(last) >= least and (price > last) == is_high:
        pivots.append(pivot)
