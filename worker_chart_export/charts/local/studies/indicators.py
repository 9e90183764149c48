"""The formulas: candles or a series in, one or more series of the same length out, NaN where undefined.

TA-Lib is used where its results are those of TradingView. Other formulas are here. All functions are pure.
Where TA-Lib compares with an absolute epsilon, prices are divided by their own size first. So a coin at
0.00000001 gets the same result as a share at 100.

Recursive studies (exponential averages and all that is built on them) depend on where the history begins.
With more history than the file holds, their first values would be different, so a line drawn from the first
computable bar would be wrong. The rule: a recursive value is drawn once the weight of its starting value is
at most `SEED_WEIGHT`. Each smoothing stage adds its own time. The gap ends at the latest `ENOUGH_BARS` bars
after the start of the history, or at the first computable bar if that is later.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import talib
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series

#: Part of a recursive value that may still come from the arbitrary start of the history.
SEED_WEIGHT = 0.02
#: So many bars of history are enough for every study, however slow.
ENOUGH_BARS = 200
#: RSI goes from 0 to 100; a smaller spread than this is a rounding error, not a movement.
_NO_SPREAD = 1e-9
#: The parabolic SAR is compared with runs that start so many bars later.
_LATER_STARTS = (3, 6, 10, 15)


def source(candles: Candles, name: str) -> Series:
    """Return the price series of a study: open, high, low, close, hl2, hlc3 or ohlc4."""
    parts = {
        "hl2": (candles.high, candles.low),
        "hlc3": (candles.high, candles.low, candles.close),
        "ohlc4": (candles.open, candles.high, candles.low, candles.close),
    }
    if name in parts:
        return np.asarray(sum(parts[name]) / len(parts[name]))
    single = {"open": candles.open, "high": candles.high, "low": candles.low, "close": candles.close}
    return single[name]


def _windows(values: Series, length: int) -> Series:
    """Return all runs of `length` neighbours, one row each; no rows if there are too few values."""
    return sliding_window_view(values, length) if len(values) >= length else np.empty((0, length))


def _after_gap(values: Series, length: int) -> Series:
    """Return `values` with NaN in front, `length` values in all."""
    return np.concatenate((np.full(length - len(values), np.nan), values))


def first_defined(values: Series) -> int:
    """Return the index of the first number, or the length if there is none."""
    defined = np.flatnonzero(~np.isnan(values))
    return int(defined[0]) if defined.size else len(values)


def hide_warm_up(values: Series, *alphas: float) -> Series:
    """Return a recursive study with NaN where it still depends on the start of the history.

    Args:
        values: A recursive study, NaN up to its first computable bar.
        alphas: The weight that each smoothing stage gives its newest value.
    """
    start = first_defined(values)
    wait = sum(math.ceil(math.log(SEED_WEIGHT) / math.log1p(-alpha)) for alpha in alphas if alpha < 1)
    result = values.copy()
    result[: min(start + wait, max(start, ENOUGH_BARS))] = np.nan
    return result


def sma(values: Series, length: int) -> Series:
    """Compute the simple moving average."""
    return _after_gap(_windows(values, length).mean(axis=1), len(values))


def wma(values: Series, length: int) -> Series:
    """Compute the linearly weighted moving average; the newest bar has the largest weight."""
    weights = np.arange(1, length + 1, dtype=np.float64)
    return _after_gap(_windows(values, length) @ (weights / weights.sum()), len(values))


def ema(values: Series, length: int) -> Series:
    """Compute the exponential average, which starts with the simple average of `length` bars."""
    if length == 1 or len(values) - first_defined(values) < length:
        return values.copy() if length == 1 else np.full_like(values, np.nan)
    return np.asarray(talib.EMA(values, length))


def ema_alpha(length: int) -> float:
    """Return the weight that an exponential average gives its newest value."""
    return 2.0 / (length + 1)


def wilder(values: Series, length: int) -> Series:
    """Compute Wilder's smoothing, alpha = 1 / length; it starts with the simple average of `length` bars."""
    smoothed = np.full_like(values, np.nan)
    start = first_defined(values)
    end = start + length
    if end > len(values):
        return smoothed
    current = float(values[start:end].mean())
    smoothed[end - 1] = current
    for index, value in enumerate(values[end:].tolist(), end):
        current += (value - current) / length
        smoothed[index] = current
    return smoothed


def moving_average(values: Series, length: int, method: str) -> Series:
    """Compute an average by method: `Simple`/`SMA`, `Exponential`/`EMA`, `Weighted`/`WMA`, `Smoothed`."""
    if method in {"Exponential", "EMA"}:
        return hide_warm_up(ema(values, length), ema_alpha(length))
    if method == "Smoothed":
        return hide_warm_up(wilder(values, length), 1 / length)
    return wma(values, length) if method in {"Weighted", "WMA"} else sma(values, length)


def bollinger(values: Series, length: int, factor: float) -> tuple[Series, Series, Series]:
    """Compute median, upper and lower band: the simple average and `factor` population deviations."""
    median = sma(values, length)
    spread = factor * _after_gap(_windows(values, length).std(axis=1), len(values))
    return median, median + spread, median - spread


def macd(values: Series, fast: int, slow: int, signal: int) -> tuple[Series, Series, Series]:
    """Compute MACD line, signal line and histogram.

    Each average starts on its own first bars, as on TradingView (TA-Lib's MACD starts the fast one late).
    """
    raw_line = ema(values, fast) - ema(values, slow)
    alpha = ema_alpha(max(fast, slow))
    line = hide_warm_up(raw_line, alpha)
    smooth = hide_warm_up(ema(raw_line, signal), alpha, ema_alpha(signal))
    return line, smooth, line - smooth


def rsi(values: Series, length: int) -> Series:
    """Compute Wilder's relative strength index, 0 to 100.

    It is 100 if no bar fell and 0 if none rose. A market that never moved counts as 100, as on TradingView.
    """
    change = np.diff(values, prepend=np.nan)
    gain, loss = wilder(np.maximum(change, 0), length), wilder(np.maximum(-change, 0), length)
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = 100 - 100 / (1 + gain / loss)
    return hide_warm_up(np.where(loss == 0, 100.0, strength), 1 / length)


def stochastic_rsi(values: Series, lengths: tuple[int, int, int, int]) -> tuple[Series, Series]:
    """Compute %K and %D of the RSI's position in its own recent range, 0 to 100.

    `lengths` are RSI, range, %K and %D. TradingView smooths %K; TA-Lib's STOCHRSI does not. Where the RSI did
    not move at all, its range is empty and there is a gap.
    """
    rsi_length, range_length, k_length, d_length = lengths
    strength = rsi(values, rsi_length)
    recent = _windows(strength, range_length)
    low, high = (_after_gap(edge(axis=1), len(values)) for edge in (recent.min, recent.max))
    spread = high - low
    with np.errstate(divide="ignore", invalid="ignore"):
        position = np.where(spread > _NO_SPREAD, 100 * (strength - low) / spread, np.nan)
    k = sma(position, k_length)
    return k, sma(k, d_length)


def adx(candles: Candles, smoothing: int, length: int) -> Series:
    """Compute Wilder's average directional index.

    It is the directional movement over `length` bars, smoothed over `smoothing` bars. With equal lengths this
    is TA-Lib's ADX.
    """
    if len(candles) <= length:
        return np.full(len(candles), np.nan)
    # A power of two: the division rounds nothing, so equal moves stay equal.
    size = math.ldexp(1.0, math.frexp(float(candles.close[-1]))[1])
    movement = talib.DX(candles.high / size, candles.low / size, candles.close / size, length)
    return hide_warm_up(wilder(np.asarray(movement), smoothing), 1 / length, 1 / smoothing)


def on_balance_volume(candles: Candles) -> Series:
    """Compute the running sum of volume, added when the close rises and subtracted when it falls.

    It starts at 0 with the history, so only its shape has a meaning, not its height.
    """
    direction = np.sign(np.diff(candles.close, prepend=candles.close[:1]))
    return np.asarray(np.cumsum(direction * candles.volume))


def parabolic_sar(candles: Candles, *, start: float, increment: float, maximum: float) -> Series:
    """Compute Wilder's parabolic SAR, with a gap where it still depends on the start of the history.

    The direction of the first trend is a convention, and it can change the values of a hundred bars (with
    real prices mostly fewer than twenty). No formula gives how many. So the study is also computed for
    both first directions and for a few later first bars. The gap ends where all results are equal, and
    after `ENOUGH_BARS` bars at most.

    Args:
        candles: The bars.
        start: Acceleration at the beginning of a trend.
        increment: What each new extreme adds to it.
        maximum: Its upper limit.
    """
    if len(candles) == 1:
        return np.full(len(candles), np.nan)
    steps = (start, increment, maximum) * 2

    def run(bars: Candles, first: float) -> Series:
        # `first` is the first value: negative for a falling trend, 0 for TA-Lib's own choice.
        return np.abs(talib.SAREXT(bars.high, bars.low, first, 0, *steps))

    values = run(candles, 0.0)
    others = [run(candles, float(candles.low[0])), run(candles, -float(candles.high[0]))]
    others += [
        np.concatenate((np.full(later, np.nan), run(candles.since(later), 0.0)))
        for later in _LATER_STARTS
        if len(candles) > later + 1
    ]
    tolerance = float(candles.close[-1]) * 1e-9
    different = np.any([~(np.abs(other - values) <= tolerance) for other in others], axis=0)
    last = np.flatnonzero(different)[-1:]
    values[: min(int(last[0]) + 1, ENOUGH_BARS) if last.size else 0] = np.nan
    return values
