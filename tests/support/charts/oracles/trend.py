"""Oracles of the trend."""

from __future__ import annotations

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import (
    ago,
    each,
    ema,
    equal_within,
    first_true_range,
    ratio,
    rma,
    run,
    summed,
    true_range,
    windowed,
)


def directional(bars, length):
    """Return +DI and -DI; where no bar moved they keep their last values."""
    plus, minus = [None], [None]
    for n in range(1, len(bars.close)):
        up, down = bars.high[n] - bars.high[n - 1], bars.low[n - 1] - bars.low[n]
        least = equal_within(bars.high[n])
        plus.append(up if up - down > least and up > least else 0.0)
        minus.append(down if down - up > least and down > least else 0.0)
    reach = rma(true_range(bars), length)
    found = []
    for moves in (plus, minus):
        lines, last = [], None
        for one in each(lambda move, size: 100 * move / size, rma(moves, length), reach):
            last = last if one is None else one
            lines.append(last)
        found.append(lines)
    return found


@oracle("Average Directional Index", {"in_0": 8, "in_1": 5})
def average_directional_index(bars, inputs):
    """Average the directional index by Wilder's method."""

    def index(plus, minus):
        return 100 * abs(plus - minus) / (plus + minus or 1)

    return {"ADX": rma(each(index, *directional(bars, inputs["in_1"])), inputs["in_0"])}


@oracle("Parabolic SAR", {"in_0": 0.01, "in_1": 0.03, "in_2": 0.15})
def parabolic_sar(bars, inputs):  # noqa: C901  # as long as the definition
    """Follow Pine's reference for `ta.sar`, state by state."""
    start, increment, maximum = inputs["in_0"], inputs["in_1"], inputs["in_2"]
    result, stop, extreme, step, below = [None], None, None, None, None
    for n in range(1, len(bars.close)):
        high, low, is_first = bars.high[n], bars.low[n], False
        if n == 1:
            below = bars.close[1] > bars.close[0]
            extreme, stop = (high, bars.low[0]) if below else (low, bars.high[0])
            is_first, step = True, start
        stop = stop + step * (extreme - stop)
        if below and stop > low:
            is_first, below, stop, extreme, step = True, False, max(high, extreme), low, start
        elif not below and stop < high:
            is_first, below, stop, extreme, step = True, True, min(low, extreme), high, start
        if not is_first:
            if below and high > extreme:
                extreme, step = high, min(step + increment, maximum)
            elif not below and low < extreme:
                extreme, step = low, min(step + increment, maximum)
        for back in (1, 2) if n > 1 else (1,):
            stop = min(stop, bars.low[n - back]) if below else max(stop, bars.high[n - back])
        result.append(stop)
    return {"Plot": result}


@oracle("Directional Movement", {"in_0": 5, "in_1": 4})
def directional_movement(bars, inputs):
    """Show the indicators, their index, its average, and the mean of two averages."""
    up, down = directional(bars, inputs["in_0"])
    index = each(lambda a, b: 100 * abs(a - b) / (a + b or 1), up, down)
    average = rma(index, inputs["in_1"])
    rating = each(lambda a, b: (a + b) / 2, average, ago(average, inputs["in_1"]))
    return {"+DI": up, "-DI": down, "DX": index, "ADX": average, "ADXR": rating}


@oracle("Aroon", {"in_0": 5})
def aroon(bars, inputs):
    """Show how long ago the extremes were; of equal ones the oldest counts."""
    n = inputs["in_0"]

    def since(part):
        return 100 * part.index(max(part)) / n

    return {
        "Upper": windowed(since, bars.high, n + 1),
        "Lower": windowed(since, [-v for v in bars.low], n + 1),
    }


@oracle("Vortex Indicator", {"in_0": 4})
def vortex(bars, inputs):
    """Divide the moves between lows and highs by the way."""
    n, way = inputs["in_0"], summed(first_true_range(bars), inputs["in_0"])
    up = each(lambda a, b: abs(a - b), bars.high, ago(bars.low, 1))
    down = each(lambda a, b: abs(a - b), bars.low, ago(bars.high, 1))
    return {"VI +": ratio(summed(up, n), way), "VI -": ratio(summed(down, n), way)}


@oracle("Advance/Decline", {"in_0": 4})
def advance_decline(bars, inputs):
    """Divide the number of bars that closed at their open or above by that of the others."""
    result = []
    for part in run([c - o for o, c in zip(bars.open, bars.close, strict=True)], inputs["in_0"]):
        rises = part and sum(v >= 0 for v in part)
        result.append(part and rises / (len(part) - rises or 1))
    return {"Plot": result}


@oracle("Accumulative Swing Index", {"in_0": 3.0})
def swing_index(bars, inputs):
    """Sum Wilder's swing index."""
    total, result = 0.0, [None]
    for n in range(1, len(bars.close)):
        o, h, lo, c = bars.open[n], bars.high[n], bars.low[n], bars.close[n]
        before, opened = bars.close[n - 1], bars.open[n - 1]
        up, down, reach, quarter = abs(h - before), abs(lo - before), h - lo, abs(before - opened) / 4
        if up > down and up > reach:
            size = up - down / 2 + quarter
        elif down > up and down > reach:
            size = down - up / 2 + quarter
        else:
            size = reach + quarter
        moved = c - before + (c - o) / 2 + (before - opened) / 4
        total += 50 * moved / size * max(up, down) / inputs["in_0"] if size else 0.0
        result.append(total)
    return {"ASI": result}


@oracle("Super Trend", {"in_0": 5, "in_1": 2})
def super_trend(bars, inputs):
    """Follow Pine's reference for `ta.supertrend`."""
    reach, result = rma(first_true_range(bars), inputs["in_0"]), []
    upper = lower = trend = None
    for n, size in enumerate(reach):
        if size is None:
            result.append(None)
            continue
        middle = (bars.high[n] + bars.low[n]) / 2
        above, below = middle + inputs["in_1"] * size, middle - inputs["in_1"] * size
        if upper is None:
            direction = 1
        else:
            before = bars.close[n - 1]
            below = below if below > lower or before < lower else lower
            above = above if above < upper or before > upper else upper
            if trend == upper:
                direction = -1 if bars.close[n] > above else 1
            else:
                direction = 1 if bars.close[n] < below else -1
        upper, lower = above, below
        trend = lower if direction == -1 else upper
        result.append(trend)
    return {"SuperTrend": result}


@oracle("Volatility Index", {"periods": 5, "atrMult": 2.0, "method": "Exponential"})
def volatility_stop(bars, inputs):
    """Follow TradingView's Volatility Stop, with a choice of the average."""
    smooth = ema if inputs["method"] == "Exponential" else rma
    reach, wide = smooth(first_true_range(bars), inputs["periods"]), true_range(bars)
    since, rising, result = [bars.close[0]], True, [bars.close[0]]
    for n in range(1, len(bars.close)):
        price = bars.close[n]
        distance = wide[n] if reach[n] is None else inputs["atrMult"] * reach[n]
        since.append(price)
        below, above = max(since) - distance, min(since) + distance
        stop = max(result[-1], below) if rising else min(result[-1], above)
        if (price - stop >= 0) is not rising:
            rising, since = not rising, [price]
            stop = price - distance if rising else price + distance
        result.append(stop)
    return {"Plot": result}


@oracle("Williams Fractal", {"in_0": 3})
def fractal(bars, inputs):
    """Mark extremes with smaller bars on both sides; up to four equal ones may come before."""
    side = inputs["in_0"]

    def is_fractal(values, n):
        """Follow the built-in's frontiers: bars after the extreme, then those before it."""
        if n + side >= len(values) or any(values[n + i] >= values[n] for i in range(1, side + 1)):
            return False
        for same in range(5):
            if n - same - side < 0:
                continue
            equal = all(values[n - i] <= values[n] for i in range(1, same + 1))
            if equal and all(values[n - i - same] < values[n] for i in range(1, side + 1)):
                return True
        return False

    def found(values):
        return [v if is_fractal(values, n) else None for n, v in enumerate(values)]

    lows = found([-v for v in bars.low])
    return {"Up fractals": found(bars.high), "Down fractals": each(lambda v: -v, lows)}


@oracle("Zig Zag", {"in_0": 2.0, "in_1": 6}, {"in_0": 10.0, "in_1": 4}, {"in_0": 1.0, "in_1": 2})
def zig_zag(bars, inputs):  # noqa: C901  # as long as the definition
    """Join extremes that are far enough apart, and the newest bar."""
    side, count, pivots = max(inputs["in_1"] // 2, 2), len(bars.close), []
    for n in range(side, count - side):
        for high in (True, False):
            values = bars.high if high else [-v for v in bars.low]
            before, after = values[n - side : n], values[n + 1 : n + side + 1]
            if max(before) >= values[n] or max(after) > values[n]:
                continue
            price = abs(values[n])
            if not pivots:
                pivots.append((n, price, high))
            elif pivots[-1][2] == high:
                if (price > pivots[-1][1]) if high else (price < pivots[-1][1]):
                    pivots[-1] = (n, price, high)
            elif _far(pivots[-1][1], price, inputs["in_0"]) and (price > pivots[-1][1]) == high:
                pivots.append((n, price, high))
    result = [None] * count
    for n, price, _ in pivots:
        result[n] = price
    if pivots and pivots[-1][0] < count - 1:
        result[-1] = bars.low[-1] if pivots[-1][2] else bars.high[-1]
    return {"Plot": result}


def _far(last, price, percent):
    """Return whether two pivots are far enough apart."""
    return 100 * abs(price - last) / last >= percent
