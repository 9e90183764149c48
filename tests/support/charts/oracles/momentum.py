"""Oracles of momentum."""

from __future__ import annotations

from itertools import pairwise

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import each, ema, rma, run, sma


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
