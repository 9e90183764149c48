"""Building blocks of the oracles, as Pine Script's reference manual defines them."""

from __future__ import annotations

import math


def equal_within(size):
    """Return by how much numbers of this size may differ and be equal: 1e-10 in Pine, and their rounding."""
    return max(1e-10, abs(size) / 1e12)


def run(values, length):
    """Return the last `length` values up to each bar, None where one is missing."""
    for end in range(1, len(values) + 1):
        part = values[max(0, end - length) : end]
        yield None if len(part) < length or None in part else part


def numbers(values, length):
    """Return the last `length` numbers up to each bar, None at a bar without one.

    Pine's sums and averages skip missing values like this.
    """
    last = []
    for value in values:
        if value is not None:
            last = [*last, value][-length:]
        yield None if value is None or len(last) < length else last


def each(function, *columns):
    """Apply a function bar by bar; None where an argument is None or the function divides by zero."""
    result = []
    for values in zip(*columns, strict=True):
        try:
            result.append(None if None in values else function(*values))
        except ZeroDivisionError:
            result.append(None)
    return result


def windowed(function, values, length):
    """Apply a function to the last `length` values up to each bar."""
    return [None if part is None else function(part) for part in run(values, length)]


def ago(values, bars):
    """Return the value of `bars` bars ago; negative looks ahead."""
    return [values[n - bars] if 0 <= n - bars < len(values) else None for n in range(len(values))]


def change(values, bars=1):
    """Return the difference to the value of `bars` bars ago."""
    return each(lambda new, old: new - old, values, ago(values, bars))


def averaged(function, values, length):
    """Apply a function to the last `length` numbers up to each bar."""
    return [None if part is None else function(part) for part in numbers(values, length)]


def sma(values, length):
    """Return the simple moving average."""
    return averaged(lambda part: math.fsum(part) / length, values, length)


def wma(values, length):
    """Return the average with weights 1, 2, 3 ... towards the newest bar."""
    weight = length * (length + 1) / 2
    return averaged(lambda part: math.fsum(v * (n + 1) for n, v in enumerate(part)) / weight, values, length)


def smoothed(values, length, alpha):
    """Start with the average of the first `length` values, then move by `alpha` towards each new one."""
    result, seed, last = [], [], None
    for value in values:
        if value is None:
            result.append(None)
            continue
        if last is None:
            seed.append(value)
            last = math.fsum(seed) / length if len(seed) == length else None
        else:
            last = last * (1 - alpha) + value * alpha
        result.append(last)
    return result


def ema(values, length):
    """Return the exponential moving average."""
    return smoothed(values, length, 2 / (length + 1))


def rma(values, length):
    """Return Wilder's average."""
    return smoothed(values, length, 1 / length)


def average(values, length, method):
    """Return an average by the method's name."""
    return {"Exponential": ema, "Weighted": wma, "Simple": sma, "EMA": ema, "WMA": wma, "SMA": sma}[method](
        values, length
    )


def deviation(values, length):
    """Return the population's standard deviation."""

    def spread(part):
        mean = math.fsum(part) / length
        return math.sqrt(math.fsum((v - mean) ** 2 for v in part) / length)

    return windowed(spread, values, length)


def true_range(bars):
    """Return the true range of each bar (`ta.tr`); the first has none, as no close is before it."""
    result = [None]
    for high, low, before in zip(bars.high[1:], bars.low[1:], bars.close, strict=False):
        result.append(max(high - low, abs(high - before), abs(low - before)))
    return result


def first_true_range(bars):
    """Return the true range (`ta.tr(true)`); that of the first bar is its high less its low."""
    return [bars.high[0] - bars.low[0], *true_range(bars)[1:]]


def cross(one, other):
    """Return `one` where it jumps to the other side of `other`; bars of equality change no side."""
    result, side = [], 0
    for now, against in zip(one, other, strict=True):
        if now is None or against is None:
            result.append(None)
            continue
        before = side
        if abs(now - against) > equal_within(now):
            side = 1 if now > against else -1
        result.append(now if before * side < 0 else None)
    return result


def plus(one, other):
    """Return the sum bar by bar."""
    return each(lambda a, b: a + b, one, other)


def minus(one, other):
    """Return the difference bar by bar."""
    return each(lambda a, b: a - b, one, other)


def ratio(one, other, factor=1):
    """Return `factor` times the quotient bar by bar; None where the divisor is zero."""
    return each(lambda a, b: factor * a / b, one, other)


def roc(values, length):
    """Return the change over `length` bars in percent."""
    return each(lambda new, old: 100 * (new - old) / old, values, ago(values, length))


def summed(values, length):
    """Return the sum of the last `length` values."""
    return averaged(math.fsum, values, length)


def top(values, length):
    """Return the largest of the last `length` values."""
    return windowed(max, values, length)


def low(values, length):
    """Return the smallest of the last `length` values."""
    return windowed(min, values, length)


def running(values):
    """Return the running sum; it is missing where the value is."""
    result, total = [], 0.0
    for value in values:
        total += value or 0.0
        result.append(None if value is None else total)
    return result


def line(part):
    """Return intercept and slope of the least-squares line through points 0, 1, 2 ..."""
    n = len(part)
    if n == 1:
        return part[0], 0.0
    x, y = (n - 1) / 2, math.fsum(part) / n
    slope = math.fsum((i - x) * (v - y) for i, v in enumerate(part)) / math.fsum(
        (i - x) ** 2 for i in range(n)
    )
    return y - slope * x, slope


def regression(values, length, offset=0):
    """Return the least-squares line's value `offset` bars before its end."""

    def end(part):
        start, slope = line(part)
        return start + slope * (length - 1 - offset)

    return windowed(end, values, length)


def regression_error(values, length):
    """Return the standard error of the least-squares line."""

    def error(part):
        start, slope = line(part)
        rest = math.fsum((v - start - slope * i) ** 2 for i, v in enumerate(part))
        return math.sqrt(rest / (length - 2))

    return windowed(error, values, length)


def symmetric(values):
    """Return the average of four bars with weights 1, 2, 2, 1."""
    return windowed(lambda p: (p[0] + 2 * p[1] + 2 * p[2] + p[3]) / 6, values, 4)
