"""Oracles of momentum."""

from __future__ import annotations

import math
from itertools import pairwise

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import (
    ago,
    change,
    each,
    ema,
    low,
    minus,
    plus,
    ratio,
    rma,
    roc,
    run,
    sma,
    summed,
    symmetric,
    top,
    windowed,
    wma,
)


def rsi(values, length):
    """Return Wilder's relative strength index."""
    gains = [None] + [max(b - a, 0) for a, b in pairwise(values)]
    losses = [None] + [max(a - b, 0) for a, b in pairwise(values)]

    def strength(gain, loss):
        return 100.0 if loss == 0 else 100 * gain / (gain + loss)

    return each(strength, rma(gains, length), rma(losses, length))


@oracle("Relative Strength Index", {"length": 5})
def relative_strength_index(bars, inputs):
    """Compute the RSI of the close."""
    return {"Plot": rsi(bars.close, inputs["length"])}


@oracle("Stochastic RSI", {"in_0": 8, "in_1": 6, "in_2": 2, "in_3": 4})
def stochastic_rsi(bars, inputs):
    """Place the RSI in its own range; %K is smoothed, %D once more."""
    place = []
    for part in run(rsi(bars.close, inputs["in_0"]), inputs["in_1"]):
        moved = part is not None and max(part) - min(part) > 1e-9
        place.append(100 * (part[-1] - min(part)) / (max(part) - min(part)) if moved else None)
    k = sma(place, inputs["in_2"])
    return {"%K": k, "%D": sma(k, inputs["in_3"])}


@oracle("MACD", {"in_0": 5, "in_1": 9, "in_2": 4, "in_3": "hl2"}, {"in_3": "ohlc4"})
def macd(bars, inputs):
    """Subtract two exponential averages, and smooth the difference."""
    values = bars.price(inputs["in_3"])
    line = each(lambda a, b: a - b, ema(values, inputs["in_0"]), ema(values, inputs["in_1"]))
    signal = ema(line, inputs["in_2"])
    return {"MACD": line, "Signal": signal, "Histogram": each(lambda a, b: a - b, line, signal)}


def place_in_range(values, bars, length):
    """Place values between the lowest low and the highest high, 0 to 100."""
    lower, upper = low(bars.low, length), top(bars.high, length)
    return ratio(minus(values, lower), minus(upper, lower), 100)


@oracle("Stochastic", {"in_0": 5, "in_1": 3, "in_2": 2})
def stochastic(bars, inputs):
    """Place the close in its range, smoothed once and twice."""
    k = sma(place_in_range(bars.close, bars, inputs["in_0"]), inputs["in_1"])
    return {"%K": k, "%D": sma(k, inputs["in_2"])}


@oracle("Williams %R", {"in_0": 5})
def percent_r(bars, inputs):
    """Measure from the highest high downwards."""
    upper, lower = top(bars.high, inputs["in_0"]), low(bars.low, inputs["in_0"])
    return {"Plot": ratio(minus(bars.close, upper), minus(upper, lower), 100)}


@oracle("Awesome Oscillator")
def awesome(bars, inputs):  # noqa: ARG001  # every oracle takes both
    """Subtract two averages of the middles."""
    return {"Plot": minus(sma(bars.price("hl2"), 5), sma(bars.price("hl2"), 34))}


@oracle("Balance of Power")
def balance(bars, inputs):  # noqa: ARG001
    """Divide gain by range."""
    return {"Plot": ratio(minus(bars.close, bars.open), minus(bars.high, bars.low))}


@oracle("Chande Momentum Oscillator", {"in_0": 4})
def chande(bars, inputs):
    """Compare the sums of rises and falls."""

    def compare(part):
        up, down = math.fsum(v for v in part if v > 0), math.fsum(-v for v in part if v < 0)
        return 100 * (up - down) / (up + down) if up + down else None

    return {"Plot": windowed(compare, change(bars.close), inputs["in_0"])}


@oracle("Commodity Channel Index", {"in_0": 5})
def cci(bars, inputs):
    """Measure the typical price in mean deviations."""

    def distance(part):
        mean = math.fsum(part) / len(part)
        spread = math.fsum(abs(v - mean) for v in part) / len(part)
        return (part[-1] - mean) / (0.015 * spread) if spread else None

    return {"Plot": windowed(distance, bars.price("hlc3"), inputs["in_0"])}


@oracle("Connors RSI", {"in_0": 4, "in_1": 3, "in_2": 20})
def connors(bars, inputs):
    """Average three strengths; the first bar counts as a fall."""
    streak = [-1]
    for before, now in pairwise(bars.close):
        if now > before:
            streak.append(max(streak[-1], 0) + 1)
        else:
            streak.append(min(streak[-1], 0) - 1 if now < before else 0)
    moves, n = roc(bars.close, 1), inputs["in_2"]
    rank = [None] * len(moves)
    for end in range(n, len(moves)):
        before = [v for v in moves[end - n : end] if v is not None]
        rank[end] = None if moves[end] is None else 100 * sum(v <= moves[end] + 1e-10 for v in before) / n
    parts = rsi(bars.close, inputs["in_0"]), rsi(streak, inputs["in_1"]), rank
    return {"CRSI": each(lambda a, b, c: (a + b + c) / 3, *parts)}


@oracle("Coppock Curve", {"in_0": 4, "in_1": 6, "in_2": 3})
def coppock(bars, inputs):
    """Average the sum of two rates of change."""
    return {
        "Plot": wma(plus(roc(bars.close, inputs["in_1"]), roc(bars.close, inputs["in_2"])), inputs["in_0"])
    }


@oracle("Detrended Price Oscillator", {"in_0": 8}, {"in_0": 9, "in_1": True})
def detrended(bars, inputs):
    """Subtract an average of another time."""
    back, average = inputs["in_0"] // 2 + 1, sma(bars.close, inputs["in_0"])
    if inputs["in_1"]:
        return {"DPO": ago(minus(ago(bars.close, back), average), -back)}
    return {"DPO": minus(bars.close, ago(average, back))}


@oracle("Fisher Transform", {"in_0": 4})
def fisher(bars, inputs):
    """Follow the definition's two recursions."""
    middle, value, last, result = bars.price("hl2"), 0.0, 0.0, []
    for part in run(middle, inputs["in_0"]):
        if part is None or max(part) == min(part):
            result.append(None)
            value, last = 0.0, 0.0
            continue
        value = 0.66 * ((part[-1] - min(part)) / (max(part) - min(part)) - 0.5) + 0.67 * value
        value = math.copysign(0.999, value) if abs(value) > 0.99 else value
        last = math.atanh(value) + 0.5 * last
        result.append(last)
    return {"Fisher": result, "Trigger": ago(result, 1)}


@oracle("Know Sure Thing", {"in_0": 3, "in_4": 5, "in_8": 4})
def know_sure_thing(bars, inputs):
    """Add four smoothed rates of change."""
    parts = [sma(roc(bars.close, inputs[f"in_{n}"]), inputs[f"in_{n + 4}"]) for n in range(4)]
    values = each(lambda a, b, c, d: a + 2 * b + 3 * c + 4 * d, *parts)
    return {"KST": values, "Signal": sma(values, inputs["in_8"])}


@oracle("Momentum", {"in_0": 3, "in_1": "hlc3"})
def momentum(bars, inputs):
    """Subtract an earlier source."""
    return {"Mom": change(bars.price(inputs["in_1"]), inputs["in_0"])}


@oracle("Price Oscillator", {"in_0": 4, "in_1": 7})
def price_oscillator(bars, inputs):
    """Show the distance of two averages in percent."""
    short, long = sma(bars.close, inputs["in_0"]), sma(bars.close, inputs["in_1"])
    return {"Plot": each(lambda a, b: 100 * (a / b - 1), short, long)}


@oracle("Rate Of Change", {"in_0": 3})
def rate_of_change(bars, inputs):
    """Show the change in percent."""
    return {"ROC": roc(bars.close, inputs["in_0"])}


@oracle("Relative Vigor Index", {"in_0": 4})
def vigor(bars, inputs):
    """Divide smoothed gains by smoothed ranges."""
    gains, ranges = symmetric(minus(bars.close, bars.open)), symmetric(minus(bars.high, bars.low))
    values = ratio(summed(gains, inputs["in_0"]), summed(ranges, inputs["in_0"]))
    return {"RVGI": values, "Signal": symmetric(values)}


def twice_smoothed(values, long, short):
    """Divide the doubly smoothed changes by the doubly smoothed sizes."""
    moves = change(values)
    return ratio(ema(ema(moves, long), short), ema(ema(each(abs, moves), long), short))


@oracle("SMI Ergodic Indicator/Oscillator", {"in_0": 3, "in_1": 7, "in_2": 4})
def ergodic(bars, inputs):
    """Smooth the changes twice, and the result again."""
    values = twice_smoothed(bars.close, inputs["in_1"], inputs["in_0"])
    signal = ema(values, inputs["in_2"])
    return {"Indicator": values, "Signal": signal, "Oscillator": minus(values, signal)}


@oracle("True Strength Index", {"in_0": 9, "in_1": 4, "in_2": 5})
def true_strength(bars, inputs):
    """Smooth the changes twice, in percent."""
    values = each(lambda v: 100 * v, twice_smoothed(bars.close, inputs["in_0"], inputs["in_1"]))
    return {"True Strength Index": values, "Signal": ema(values, inputs["in_2"])}


@oracle("TRIX", {"in_0": 5})
def trix(bars, inputs):
    """Show the change of the logarithm, smoothed three times."""
    values = each(math.log, bars.close)
    for _ in range(3):
        values = ema(values, inputs["in_0"])
    return {"TRIX": each(lambda v: 10_000 * v, change(values))}


@oracle("Ultimate Oscillator", {"in_0": 3, "in_1": 5, "in_2": 8})
def ultimate(bars, inputs):
    """Weigh the buying pressure over three lengths."""
    pressure, reach = [None], [None]
    for n in range(1, len(bars.close)):
        bottom = min(bars.low[n], bars.close[n - 1])
        pressure.append(bars.close[n] - bottom)
        reach.append(max(bars.high[n], bars.close[n - 1]) - bottom)
    parts = [ratio(summed(pressure, inputs[f"in_{n}"]), summed(reach, inputs[f"in_{n}"])) for n in range(3)]
    return {"UO": each(lambda a, b, c: 100 * (4 * a + 2 * b + c) / 7, *parts)}


@oracle("Chop Zone")
def chop_zone(bars, inputs):  # noqa: ARG001
    """Return 1 where the angle of the average is defined; the colours have a test of their own."""
    spread = minus(top(bars.high, 30), low(bars.low, 30))
    return {"Plot": each(lambda _, size: 1.0 / (size and 1), change(ema(bars.close, 34)), spread)}
