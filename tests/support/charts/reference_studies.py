"""The studies in plain Python from their published formulas: no NumPy, no TA-Lib, no shared code.

An undefined value is None. Recursive studies have values from their first computable bar on; `drawn_from` is
the first bar that is drawn.
"""

from __future__ import annotations

import math
from itertools import pairwise

SEED_WEIGHT = 0.02
ENOUGH_BARS = 200


def run(values, length):
    """Return the last `length` values up to each bar, None where one is missing."""
    for end in range(1, len(values) + 1):
        part = values[max(0, end - length) : end]
        yield None if len(part) < length or None in part else part


def sma(values, length):
    """Return the simple moving average."""
    return [None if part is None else math.fsum(part) / length for part in run(values, length)]


def wma(values, length):
    """Return the average with weights 1, 2, 3 ... towards the newest bar."""
    weight = length * (length + 1) / 2
    return [
        None if part is None else math.fsum(v * (n + 1) for n, v in enumerate(part)) / weight
        for part in run(values, length)
    ]


def smoothed(values, length, alpha):
    """Start with the average of the first `length` values, then move by `alpha` towards each new one."""
    result, seed, last = [], [], None
    for value in values:
        if value is not None and last is None:
            seed.append(value)
            last = math.fsum(seed) / length if len(seed) == length else None
        elif value is not None:
            last = last * (1 - alpha) + value * alpha
        result.append(last)
    return result


def ema(values, length):
    """Return the exponential moving average."""
    return smoothed(values, length, 2 / (length + 1))


def wilder(values, length):
    """Return Wilder's smoothing."""
    return smoothed(values, length, 1 / length)


def minus(left, right):
    """Return the difference bar by bar."""
    return [None if a is None or b is None else a - b for a, b in zip(left, right, strict=True)]


def bollinger(values, length, factor):
    """Return median, upper and lower band with the population deviation."""
    middle, upper, lower = [], [], []
    for part in run(values, length):
        mean = None if part is None else math.fsum(part) / length
        spread = (
            None if part is None else factor * math.sqrt(math.fsum((v - mean) ** 2 for v in part) / length)
        )
        middle.append(mean)
        upper.append(None if part is None else mean + spread)
        lower.append(None if part is None else mean - spread)
    return middle, upper, lower


def macd(values, fast, slow, signal):
    """Return line, signal and histogram."""
    line = minus(ema(values, fast), ema(values, slow))
    smooth = ema(line, signal)
    return line, smooth, minus(line, smooth)


def rsi(values, length):
    """Return Wilder's relative strength index."""
    gains = [None] + [max(b - a, 0) for a, b in pairwise(values)]
    losses = [None] + [max(a - b, 0) for a, b in pairwise(values)]
    result = []
    for gain, loss in zip(wilder(gains, length), wilder(losses, length), strict=True):
        if gain is None:
            result.append(None)
        else:
            result.append(100.0 if loss == 0 else 100 * gain / (gain + loss))
    return result


def stochastic_rsi(strength, range_length, k_length, d_length):
    """Return %K and %D of an RSI, %K smoothed."""
    place = []
    for part in run(strength, range_length):
        moved = part is not None and max(part) - min(part) > 1e-9
        place.append(100 * (part[-1] - min(part)) / (max(part) - min(part)) if moved else None)
    k = sma(place, k_length)
    return k, sma(k, d_length)


def directional_index(highs, lows, closes, length):
    """Return Wilder's DX; the first sums have `length - 1` bars and are smoothed from the next bar on."""
    sums, result = [0.0, 0.0, 0.0], [None]
    last = 0.0
    for n in range(1, len(closes)):
        up, down = highs[n] - highs[n - 1], lows[n - 1] - lows[n]
        plus = up if up > down and up > 0 else 0.0
        less = down if down > up and down > 0 else 0.0
        true_range = max(highs[n] - lows[n], abs(highs[n] - closes[n - 1]), abs(lows[n] - closes[n - 1]))
        keep = 1.0 if n < length else 1 - 1 / length
        sums = [old * keep + new for old, new in zip(sums, (plus, less, true_range), strict=True)]
        if n >= length and sums[2] > 0 and sums[0] + sums[1] > 0:
            last = 100 * abs(sums[0] - sums[1]) / (sums[0] + sums[1])
        result.append(last if n >= length else None)
    return result


def adx(highs, lows, closes, smoothing, length):
    """Return the average directional index."""
    return wilder(directional_index(highs, lows, closes, length), smoothing)


def parabolic_sar(highs, lows, start, increment, maximum):
    """Return Wilder's stop and reverse; it starts down when the second bar fell more than it rose."""
    result = [None]
    fall, rise = lows[0] - lows[1], highs[1] - highs[0]
    rising = not (fall > 0 and fall > rise)
    stop, extreme, step = (lows[0], highs[1], start) if rising else (highs[0], lows[1], start)
    before = (highs[1], lows[1])
    for high, low in zip(highs[1:], lows[1:], strict=True):
        if (rising and low <= stop) or (not rising and high >= stop):
            rising = not rising
            stop = min(extreme, before[1], low) if rising else max(extreme, before[0], high)
            result.append(stop)
            step, extreme = start, (high if rising else low)
        else:
            result.append(stop)
            if (rising and high > extreme) or (not rising and low < extreme):
                extreme, step = (high if rising else low), min(step + increment, maximum)
        stop += step * (extreme - stop)
        stop = min(stop, before[1], low) if rising else max(stop, before[0], high)
        before = (high, low)
    return result


def on_balance_volume(closes, volumes):
    """Return the signed running sum of volume."""
    result, total = [0.0], 0.0
    for n in range(1, len(closes)):
        total += volumes[n] * ((closes[n] > closes[n - 1]) - (closes[n] < closes[n - 1]))
        result.append(total)
    return result


def volume_profile(bars, rows):
    """Return rising and falling volume per price row; a bar's volume is spread evenly over its range."""
    low, high = min(b["low"] for b in bars), max(b["high"] for b in bars)
    size = (high - low) / rows
    up, down = [0.0] * rows, [0.0] * rows
    for bar in bars:
        side = up if bar["close"] >= bar["open"] else down
        reach = bar["high"] - bar["low"]
        for row in range(rows):
            bottom = low + row * size
            inside = min(bottom + size, bar["high"]) - max(bottom, bar["low"])
            if reach > 0:
                side[row] += bar["volume"] * max(inside, 0) / reach
            elif bottom <= bar["low"] < bottom + size or (row == rows - 1 and bar["low"] >= bottom):
                side[row] += bar["volume"]
    return up, down


def first(values):
    """Return the index of the first defined value."""
    return next((n for n, value in enumerate(values) if value is not None), len(values))


def settling(alpha):
    """Return the bars until the weight of a starting value is at most SEED_WEIGHT."""
    bars, weight = 0, 1.0
    while weight > SEED_WEIGHT:
        bars, weight = bars + 1, weight * (1 - alpha)
    return bars


def drawn_from(values, *alphas):
    """Return the first bar at which a recursive study is drawn."""
    start = first(values)
    return min(start + sum(settling(alpha) for alpha in alphas), max(start, ENOUGH_BARS))


def with_gap(values, shown_from):
    """Return the values from one bar on, with a gap before."""
    return [value if n >= shown_from else None for n, value in enumerate(values)]
