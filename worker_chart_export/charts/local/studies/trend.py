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
    fixnan,
    rma,
    shift,
    total,
    true_range,
)
from worker_chart_export.charts.local.studies.study import Numbers, PlotType

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs


def directional_movement(bars: Candles, length: int) -> tuple[Series, Series]:
    """Return the directional indicators +DI and -DI, 0 to 100 (Pine `ta.dmi`)."""
    up, down = change(bars.high), -change(bars.low)
    rise = np.where(np.isnan(up), np.nan, np.where((up > down) & (up > 0), up, 0))
    fall = np.where(np.isnan(down), np.nan, np.where((down > up) & (down > 0), down, 0))
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
    result = np.full(len(close), np.nan)
    if len(close) < 2:  # noqa: PLR2004  # the first trend needs two bars
        return result
    rising = close[1] > close[0]
    extreme, stop, step = (high[1], low[0], start) if rising else (low[1], high[0], start)
    for bar in range(1, len(close)):
        turned = bar == 1
        stop += step * (extreme - stop)
        if stop > low[bar] if rising else stop < high[bar]:
            turned, step = True, start
            stop = max(high[bar], extreme) if rising else min(low[bar], extreme)
            extreme = low[bar] if rising else high[bar]
            rising = not rising
        if not turned and (high[bar] > extreme if rising else low[bar] < extreme):
            extreme = high[bar] if rising else low[bar]
            step = min(step + increment, maximum)
        before = slice(max(bar - 2, 0), bar)
        stop = min(stop, *low[before]) if rising else max(stop, *high[before])
        result[bar] = stop
    return result


@study("Directional Movement", title="DMI")
def directional_movement_system(bars: Candles, inputs: Inputs) -> Plots:
    """Show the directional indicators and their index, plain, averaged and averaged over time.

    ADXR is the mean of ADX and of ADX one smoothing length ago. Source: Wilder's definition.
    """
    smoothing = inputs.length("in_1")
    plus, minus = directional_movement(bars, inputs.length("in_0"))
    index = directional_index(plus, minus)
    average = rma(index, smoothing)
    rating = (average + shift(average, smoothing)) / 2
    return {"+DI": plus, "-DI": minus, "DX": index, "ADX": average, "ADXR": rating}


@study("Aroon", title="Aroon")
def aroon(bars: Candles, inputs: Inputs) -> Plots:
    """Show how long ago the highest high and the lowest low were, 100 for now. Source: Pine's built-in."""
    length = inputs.length("in_0")
    upper, lower = (bars_since_highest(values, length + 1) for values in (bars.high, -bars.low))
    return {"Upper": 100 * (length - upper) / length, "Lower": 100 * (length - lower) / length}


@study("Vortex Indicator", title="VI")
def vortex_indicator(bars: Candles, inputs: Inputs) -> Plots:
    """Divide the moves from low to high and from high to low by the way. Source: TradingView's built-in."""
    length = inputs.length("in_0")
    way = total(true_range(bars), length)
    return {
        "VI +": divide(total(np.abs(bars.high - shift(bars.low, 1)), length), way),
        "VI -": divide(total(np.abs(bars.low - shift(bars.high, 1)), length), way),
    }


@study("Advance/Decline", title="A/D")
def advance_decline(bars: Candles, inputs: Inputs) -> Plots:
    """Divide the number of rising bars by that of falling bars among the last `in_0`.

    TradingView does not document its formula; this is the ratio that the name has for bars.
    """
    length, moves = inputs.length("in_0"), change(bars.close)
    rises, falls = (total(np.where(np.isnan(moves), np.nan, side), length) for side in (moves > 0, moves < 0))
    return {"Plot": divide(rises, falls)}


@study("Accumulative Swing Index", title="ASI", cumulative=True)
def accumulative_swing_index(bars: Candles, inputs: Inputs) -> Plots:
    """Sum Wilder's swing index; `in_0` is the limit of a move. Source: Wilder's definition."""
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
    middle, close = bars.price("hl2"), bars.close
    values, falls = np.full(len(bars), np.nan), np.ones(len(bars), dtype=np.intp)
    start = first_defined(reach)
    lower, upper, falling = 0.0, 0.0, True
    for bar in range(start, len(bars)):
        below, above = float(middle[bar] - reach[bar]), float(middle[bar] + reach[bar])
        if bar > start:
            before = close[bar - 1]
            below = below if below > lower or before < lower else lower
            above = above if above < upper or before > upper else upper
            falling = close[bar] <= above if falling else close[bar] < below
        lower, upper = below, above
        values[bar], falls[bar] = (upper, 1) if falling else (lower, 0)
    return {"SuperTrend": PlotValues(values=values, shades=falls)}


@study("Volatility Index", title="Volatility Stop", numbers=Numbers.PRICE)
def volatility_stop(bars: Candles, inputs: Inputs) -> Plots:
    """Follow the close's extreme at a distance of average ranges. Source: TradingView's Volatility Stop."""
    length, close = inputs.length("periods"), bars.close.tolist()
    smooth = rma if inputs.text("method") == "Wilder Smoothing" else ema
    reach = inputs.number("atrMult") * smooth(true_range(bars), length)
    values = np.full(len(bars), np.nan)
    start = first_defined(reach)
    rising, high, low, stop = True, -np.inf, np.inf, np.nan
    for bar in range(start, len(bars)):
        price, distance = close[bar], float(reach[bar])
        high, low = max(high, price), min(low, price)
        best = high - distance if rising else low + distance
        stop = best if bar == start else max(stop, best) if rising else min(stop, best)
        if (price >= stop) != rising:
            rising, high, low = not rising, price, price
            stop = price - distance if rising else price + distance
        values[bar] = stop
    return {"Plot": values}


@study(
    "Williams Fractal",
    title="Fractals",
    types={"Up fractals": PlotType.TRIANGLE_UP, "Down fractals": PlotType.TRIANGLE_DOWN},
)
def williams_fractal(bars: Candles, inputs: Inputs) -> Plots:
    """Mark highs and lows with `in_0` smaller bars on each side. Source: TradingView's built-in indicator.

    Up to four bars of the same height may follow before the smaller ones.
    """
    side = inputs.length("in_0")
    return {
        "Up fractals": np.where(_fractals(bars.high, side), bars.high, np.nan),
        "Down fractals": np.where(_fractals(-bars.low, side), bars.low, np.nan),
    }


def _fractals(values: Series, side: int) -> Series:
    found = np.zeros(len(values), dtype=bool)
    for bar in range(side, len(values) - side):
        level = values[bar]
        if not (values[bar - side : bar] < level).all():
            continue
        for equal in range(5):
            same, after = values[bar + 1 : bar + 1 + equal], values[bar + 1 + equal : bar + 1 + equal + side]
            if (same <= level).all() and len(after) == side and (after < level).all():
                found[bar] = True
                break
    return found


@study("Zig Zag", title="ZigZag")
def zig_zag(bars: Candles, inputs: Inputs) -> Plots:
    """Join highs and lows that differ by at least `in_0` percent. Source: TradingView's ZigZag library.

    A pivot is the extreme of `in_1` / 2 bars on each side. The line also goes to the newest bar's extreme.
    """
    side, least = max(inputs.length("in_1") // 2, 1), inputs.number("in_0")
    pivots: list[tuple[int, float, bool]] = []
    for bar in range(side, len(bars) - side):
        around = slice(bar - side, bar + side + 1)
        for is_high, extreme in ((True, bars.high[around].max()), (False, bars.low[around].min())):
            price = float(bars.high[bar] if is_high else bars.low[bar])
            if price == extreme:
                _add_pivot(pivots, (bar, price, is_high), least)
    values = np.full(len(bars), np.nan)
    for bar, price, _ in pivots:
        values[bar] = price
    if pivots and pivots[-1][0] < len(bars) - 1:
        values[-1] = bars.low[-1] if pivots[-1][2] else bars.high[-1]
    return {"Plot": values}


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
