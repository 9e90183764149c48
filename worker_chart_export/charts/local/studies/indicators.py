"""The formulas: candles or a series in, one or more series of the same length out, NaN where undefined.

TA-Lib computes what it computes as TradingView does; the rest stands here. All functions are pure. Prices are
divided by their own size first where TA-Lib compares with an absolute epsilon, so that a coin at 0.00000001
gets the same answer as a share at 100. Gaps of recursive studies: see `recursion`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import talib
from numpy.lib.stride_tricks import sliding_window_view

from worker_chart_export.charts.local.studies.recursion import ema, ema_alpha, settled, wilder

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series

#: RSI runs from 0 to 100; a smaller spread than this is rounding noise, not movement.
_NO_SPREAD = 1e-9


def source(candles: Candles, name: str) -> Series:
    """The price series a study is computed from: open, high, low, close, hl2, hlc3 or ohlc4."""
    parts = {
        "hl2": (candles.high, candles.low),
        "hlc3": (candles.high, candles.low, candles.close),
        "ohlc4": (candles.open, candles.high, candles.low, candles.close),
    }
    if name in parts:
        return np.asarray(sum(parts[name]) / len(parts[name]))
    single = {"open": candles.open, "high": candles.high, "low": candles.low, "close": candles.close}
    return single[name]


def windows(values: Series, length: int) -> Series:
    """All runs of `length` neighbours, one row each; no rows when there are too few."""
    if len(values) < length:
        return np.empty((0, length))
    return sliding_window_view(values, length)


def _after(values: Series, length: int) -> Series:
    return np.concatenate((np.full(length - len(values), np.nan), values))


def sma(values: Series, length: int) -> Series:
    """Simple moving average."""
    return _after(windows(values, length).mean(axis=1), len(values))


def wma(values: Series, length: int) -> Series:
    """Linearly weighted moving average, the newest bar weighing most."""
    weights = np.arange(1, length + 1, dtype=np.float64)
    return _after(windows(values, length) @ (weights / weights.sum()), len(values))


def moving_average(values: Series, length: int, method: str) -> Series:
    """Moving average by method: `Simple`/`SMA`, `Exponential`/`EMA`, `Weighted`/`WMA`, `Smoothed`."""
    if method in {"Exponential", "EMA"}:
        return settled(ema(values, length), ema_alpha(length))
    if method == "Smoothed":
        return settled(wilder(values, length), 1 / length)
    return wma(values, length) if method in {"Weighted", "WMA"} else sma(values, length)


def bollinger(values: Series, length: int, factor: float) -> tuple[Series, Series, Series]:
    """Median, upper and lower band: the simple average and `factor` population deviations around it."""
    median = sma(values, length)
    spread = factor * _after(windows(values, length).std(axis=1), len(values))
    return median, median + spread, median - spread


def macd(values: Series, fast: int, slow: int, signal: int) -> tuple[Series, Series, Series]:
    """MACD line, signal line and histogram.

    Each average starts on its own first bars, as on TradingView (TA-Lib's MACD starts the fast one late).
    """
    line = ema(values, fast) - ema(values, slow)
    smooth = ema(line, signal)
    stages = max(fast, slow)
    settled_line = settled(line, ema_alpha(stages))
    settled_signal = settled(smooth, ema_alpha(stages), ema_alpha(signal))
    return settled_line, settled_signal, settled_line - settled_signal


def rsi(values: Series, length: int) -> Series:
    """Wilder's relative strength index, 0 to 100.

    Without a falling bar in memory it is 100, without a rising one 0; a flat market counts as the former, as
    on TradingView.
    """
    change = np.diff(values, prepend=np.nan)
    gain, loss = wilder(np.maximum(change, 0), length), wilder(np.maximum(-change, 0), length)
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = 100 - 100 / (1 + gain / loss)
    return settled(np.where(loss == 0, 100.0, strength), 1 / length)


def stochastic_rsi(values: Series, lengths: tuple[int, int, int, int]) -> tuple[Series, Series]:
    """%K and %D of the RSI's place in its own recent range, 0 to 100.

    `lengths` are RSI, range, %K and %D. TradingView smooths %K; TA-Lib's STOCHRSI does not. Where the RSI did
    not move at all there is no place in a range, hence a gap.
    """
    rsi_length, range_length, k_length, d_length = lengths
    strength = rsi(values, rsi_length)
    recent = windows(strength, range_length)
    low, high = (_after(edge(axis=1), len(values)) for edge in (recent.min, recent.max))
    spread = high - low
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.where(spread > _NO_SPREAD, 100 * (strength - low) / spread, np.nan)
    k = sma(place, k_length)
    return k, sma(k, d_length)


def adx(candles: Candles, smoothing: int, length: int) -> Series:
    """Wilder's average directional index: directional movement over `length` bars, smoothed over `smoothing`.

    With equal lengths this is TA-Lib's ADX.
    """
    if len(candles) <= length:
        return np.full(len(candles), np.nan)
    # A power of two: every difference keeps its bits, so equal moves stay equal.
    size = math.ldexp(1.0, math.frexp(float(candles.close[-1]))[1])
    movement = talib.DX(candles.high / size, candles.low / size, candles.close / size, length)
    return settled(wilder(np.asarray(movement), smoothing), 1 / length, 1 / smoothing)


def on_balance_volume(candles: Candles) -> Series:
    """Running sum of volume, added on a rise and taken off on a fall of the close.

    It starts at 0 with the history, so its shape means something and its height does not.
    """
    direction = np.sign(np.diff(candles.close, prepend=candles.close[:1]))
    return np.asarray(np.cumsum(direction * candles.volume))
