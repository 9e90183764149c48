"""Building blocks of the formulas, as Pine Script defines them in its `ta` namespace.

Series of one value per bar in, series of the same length out, NaN where a value is not defined. All functions
are pure. Averages over a window are defined once the window is full. Recursive averages start with the simple
average of their first `length` values. Sums and averages skip a missing value: their window holds the last
`length` numbers, and the result is missing where the value is.

The reference manual does not say all of this. PyneCore, which compares its results with exports of
TradingView, describes it, and the tolerance of comparisons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.charts.local.input.candles import Candles, Series

#: Numbers that differ by no more are equal to Pine's operators.
TOLERANCE = 1e-10
#: Sums and averages of prices differ by less than this part of their size through binary rounding alone. From
#: a price of 100 on that is more than `TOLERANCE`.
ROUNDING = 1e-12


def first_defined(values: Series) -> int:
    """Return the index of the first number, or the length if there is none."""
    defined = np.flatnonzero(~np.isnan(values))
    return int(defined[0]) if defined.size else len(values)


def windows(values: Series, length: int) -> Series:
    """Return all runs of `length` neighbours, one row each; no rows if there are too few values."""
    return sliding_window_view(values, length) if len(values) >= length else np.empty((0, length))


def columns(values: Series, length: int) -> Series:
    """Return all runs of `length` neighbours, one column each.

    NumPy reduces columns up to ten times faster than rows.
    """
    return windows(values, length).T


def aligned(values: Series, length: int) -> Series:
    """Return `values` with NaN in front, `length` values in all."""
    return np.concatenate((np.full(length - len(values), np.nan), values))


def negligible(values: Series) -> Series:
    """Return by how much numbers of this size may differ and still be equal."""
    return np.maximum(TOLERANCE, ROUNDING * np.abs(values))


def shift(values: Series, bars: int) -> Series:
    """Return the value of `bars` bars ago for each bar (Pine `values[bars]`); negative looks ahead."""
    result = np.full(len(values), np.nan)
    if bars >= 0:
        result[bars:] = values[: max(len(values) - bars, 0)]
    else:
        result[:bars] = values[-bars:]
    return result


def change(values: Series, bars: int = 1) -> Series:
    """Return the difference to the value of `bars` bars ago (Pine `ta.change`)."""
    return values - shift(values, bars)


def roc(values: Series, length: int) -> Series:
    """Return the change over `length` bars in percent (Pine `ta.roc`)."""
    return divide(100 * change(values, length), shift(values, length))


def divide(dividend: Series, divisor: Series) -> Series:
    """Divide; NaN where the divisor is zero, as in Pine."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = dividend / divisor
    return np.where(np.isfinite(quotient), quotient, np.nan)


def log(values: Series) -> Series:
    """Return the natural logarithm; NaN for zero and below, as in Pine."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(values)
    return np.where(values > 0, found, np.nan)


def cumulate(values: Series) -> Series:
    """Return the running sum (Pine `ta.cum`); it is missing where the value is."""
    return np.where(np.isnan(values), np.nan, np.cumsum(np.nan_to_num(values)))


def fixnan(values: Series) -> Series:
    """Replace each missing value by the last one before it (Pine `fixnan`)."""
    index = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(index >= 0, values[np.maximum(index, 0)], np.nan)


def of_defined(function: Callable[[Series], Series], values: Series) -> Series:
    """Apply a function to the numbers of a series; a missing value stays missing."""
    defined = ~np.isnan(values)
    if defined.all():
        return aligned(function(values), len(values))
    numbers = values[defined]
    result = np.full(len(values), np.nan)
    result[defined] = aligned(function(numbers), len(numbers))
    return result


def total(values: Series, length: int) -> Series:
    """Return the sum of the last `length` values (Pine `math.sum`)."""
    return of_defined(lambda numbers: columns(numbers, length).sum(axis=0), values)


def highest(values: Series, length: int) -> Series:
    """Return the largest of the last `length` values (Pine `ta.highest`)."""
    return aligned(columns(values, length).max(axis=0), len(values))


def lowest(values: Series, length: int) -> Series:
    """Return the smallest of the last `length` values (Pine `ta.lowest`)."""
    return aligned(columns(values, length).min(axis=0), len(values))


def sma(values: Series, length: int) -> Series:
    """Return the simple moving average (Pine `ta.sma`)."""
    return of_defined(lambda numbers: columns(numbers, length).mean(axis=0), values)


def wma(values: Series, length: int) -> Series:
    """Return the linearly weighted average; the newest bar weighs most (Pine `ta.wma`)."""
    weights = np.arange(1, length + 1, dtype=np.float64)
    weights /= weights.sum()
    return of_defined(lambda numbers: windows(numbers, length) @ weights, values)


def ema(values: Series, length: int) -> Series:
    """Return the exponential average, alpha = 2 / (length + 1) (Pine `ta.ema`)."""
    return smoothed(values, length, 2 / (length + 1))


def rma(values: Series, length: int) -> Series:
    """Return Wilder's average, alpha = 1 / length (Pine `ta.rma`)."""
    return smoothed(values, length, 1 / length)


def smoothed(values: Series, length: int, alpha: float) -> Series:
    """Return a recursive average that starts with the simple average of the first `length` values."""

    def average(numbers: Series) -> Series:
        if len(numbers) < length:
            return np.empty(0)
        current = float(numbers[:length].mean())
        later = [current := current + alpha * (value - current) for value in numbers[length:].tolist()]
        return np.concatenate(([numbers[:length].mean()], later))

    return of_defined(average, values)


def moving_average(values: Series, length: int, method: str) -> Series:
    """Return an average by the method's name in the table: `Simple`, `SMA`, `Exponential`, `EMA` ..."""
    averages = {"Exponential": ema, "EMA": ema, "Weighted": wma, "WMA": wma}
    return averages.get(method, sma)(values, length)


def stdev(values: Series, length: int) -> Series:
    """Return the population's standard deviation (Pine `ta.stdev`)."""
    return aligned(columns(values, length).std(axis=0), len(values))


def true_range(bars: Candles) -> Series:
    """Return the range of each bar, its gap to the close before included (Pine `ta.tr`).

    The first bar has no close before it, so it has no true range.
    """
    before = shift(bars.close, 1)
    gaps = np.maximum(np.abs(bars.high - before), np.abs(bars.low - before))
    return np.maximum(bars.high - bars.low, gaps)


def first_true_range(bars: Candles) -> Series:
    """Return the true range, on the first bar the high less the low (Pine `ta.tr(true)`)."""
    reach = true_range(bars)
    reach[:1] = bars.high[:1] - bars.low[:1]
    return reach


def atr(bars: Candles, length: int) -> Series:
    """Return the average true range (Pine `ta.atr`)."""
    return rma(first_true_range(bars), length)


def crossings(one: Series, other: Series) -> Series:
    """Return `one` at the bars where the two series cross, NaN elsewhere (Pine `ta.cross`).

    Bars where the two are equal count neither as above nor as below: the bars before them decide.
    """
    difference = one - other
    sides = np.where(np.abs(difference) > negligible(one), np.sign(difference), np.nan)
    before = shift(fixnan(sides), 1)
    return np.where(before * sides < 0, one, np.nan)


def linreg(values: Series, length: int, offset: int) -> Series:
    """Return the regression line's value `offset` bars before its end (Pine `ta.linreg`)."""
    middle, slope = regression(values, length)
    return middle + slope * ((length - 1) / 2 - offset)


def regression(values: Series, length: int) -> tuple[Series, Series]:
    """Return the mean and the slope per bar of the least-squares line through the last `length` values."""
    places = np.arange(length) - (length - 1) / 2
    squares = float((places**2).sum())
    parts = windows(values, length)
    slope = parts @ places / squares if squares else np.zeros(len(parts))
    return sma(values, length), aligned(slope, len(values))


def standard_error(values: Series, length: int) -> Series:
    """Return the standard error of the regression line, with `length` - 2 degrees of freedom."""
    if length <= 2:  # noqa: PLR2004  # a line through two points has no error
        return np.full(len(values), np.nan)
    places = np.arange(length) - (length - 1) / 2
    parts = windows(values, length)
    centred = parts - parts.mean(axis=1, keepdims=True)
    slope = centred @ places / float((places**2).sum())
    rest = centred - slope[:, None] * places
    return aligned(np.sqrt((rest**2).sum(axis=1) / (length - 2)), len(values))


def correlation(one: Series, other: Series, length: int) -> Series:
    """Return the correlation of the last `length` values (Pine `ta.correlation`); NaN without movement."""
    parts, others = windows(one, length), windows(other, length)
    parts = parts - parts.mean(axis=1, keepdims=True)
    others = others - others.mean(axis=1, keepdims=True)
    both = (parts * others).sum(axis=1)
    size = np.sqrt((parts**2).sum(axis=1) * (others**2).sum(axis=1))
    return aligned(divide(both, size), len(one))


def percent_rank(values: Series, length: int) -> Series:
    """Return the percent of the `length` values before that are at most the current (Pine `ta.percentrank`).

    A missing value before counts as larger.
    """
    parts = columns(values, length + 1)
    below = (parts[:-1] <= parts[-1] + TOLERANCE).sum(axis=0, dtype=np.int32)
    return aligned(np.where(np.isnan(parts[-1]), np.nan, 100 * below / length), len(values))


def mean_deviation(values: Series, length: int) -> Series:
    """Return the mean distance from the simple average (Pine `ta.dev`)."""
    parts = windows(values, length)
    return aligned(np.abs(parts - parts.mean(axis=1, keepdims=True)).mean(axis=1), len(values))


def swma(values: Series) -> Series:
    """Return the average of four bars with weights 1, 2, 2, 1 (Pine `ta.swma`)."""
    return aligned(windows(values, 4) @ (np.array([1, 2, 2, 1]) / 6), len(values))


def bars_since_highest(values: Series, length: int) -> Series:
    """Return how many bars ago the largest of the last `length` values was (Pine `ta.highestbars`).

    Of equal ones the oldest counts, as in exports of TradingView.
    """
    parts = windows(values, length)
    ago = length - 1 - parts.argmax(axis=1).astype(np.float64) if len(parts) else np.empty(0)
    return aligned(ago, len(values))
