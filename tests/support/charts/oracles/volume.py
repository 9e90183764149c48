"""Oracles of volume."""

from __future__ import annotations

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import (
    ago,
    change,
    each,
    ema,
    equal_within,
    minus,
    ratio,
    running,
    sma,
    summed,
)


@oracle("Volume")
def volume(bars, inputs):  # noqa: ARG001  # every oracle takes both
    """Return the volume."""
    return {"Volume": bars.volume}


@oracle("On Balance Volume")
def on_balance_volume(bars, inputs):  # noqa: ARG001
    """Return the signed running sum of volume."""
    result, total = [None], 0.0
    for n in range(1, len(bars.close)):
        total += bars.volume[n] * ((bars.close[n] > bars.close[n - 1]) - (bars.close[n] < bars.close[n - 1]))
        result.append(total)
    return {"Plot": result}


@oracle("Net Volume")
def net_volume(bars, inputs):  # noqa: ARG001
    """Return the volume with the sign of the change."""
    return {"Plot": each(lambda m, v: v * ((m > 0) - (m < 0)), change(bars.close), bars.volume)}


@oracle("Price Volume Trend")
def price_volume_trend(bars, inputs):  # noqa: ARG001
    """Sum volume times relative change."""
    parts = each(lambda new, old, v: (new - old) / old * v, bars.close, ago(bars.close, 1), bars.volume)
    return {"PVT": running(parts)}


def accumulation(bars):
    """Return volume by the close's place in its bar."""
    result = []
    for high, low, close, volume in zip(bars.high, bars.low, bars.close, bars.volume, strict=True):
        place = ((close - low) - (high - close)) / (high - low) if high > low else 0.0
        result.append(place * volume)
    return result


@oracle("Accumulation/Distribution")
def accumulation_distribution(bars, inputs):  # noqa: ARG001
    """Sum the accumulation."""
    return {"Plot": running(accumulation(bars))}


@oracle("Chaikin Money Flow", {"in_0": 5})
def money_flow(bars, inputs):
    """Divide accumulation by volume."""
    return {"Plot": ratio(summed(accumulation(bars), inputs["in_0"]), summed(bars.volume, inputs["in_0"]))}


@oracle("Chaikin Oscillator", {"in_0": 4, "in_1": 7})
def chaikin_oscillator(bars, inputs):
    """Subtract two averages of the running accumulation."""
    total = running(accumulation(bars))
    return {"Plot": minus(ema(total, inputs["in_0"]), ema(total, inputs["in_1"]))}


@oracle("Ease of Movement", {"in_0": 500, "in_1": 5})
def ease(bars, inputs):
    """Average move times range by volume."""
    moves, reach = change(bars.price("hl2")), minus(bars.high, bars.low)
    parts = each(lambda m, r, v: inputs["in_0"] * m * r / v, moves, reach, bars.volume)
    return {"Plot": sma(parts, inputs["in_1"])}


@oracle("Elder's Force Index", {"in_0": 5})
def force(bars, inputs):
    """Smooth change times volume."""
    return {"Plot": ema(each(lambda m, v: m * v, change(bars.close), bars.volume), inputs["in_0"])}


@oracle("Klinger Oscillator")
def klinger(bars, inputs):  # noqa: ARG001
    """Subtract two averages of signed volume."""
    price = bars.price("hlc3")
    signed = [
        v if m is not None and m >= -equal_within(p) else -v
        for m, v, p in zip(change(price), bars.volume, price, strict=True)
    ]
    values = minus(ema(signed, 34), ema(signed, 55))
    return {"Plot": values, "Signal": ema(values, 13)}


@oracle("Money Flow Index", {"in_0": 5})
def money_flow_index(bars, inputs):
    """Compare the money of rises and falls; that of the first bar counts as both."""
    price = bars.price("hlc3")
    money = [p * v for p, v in zip(price, bars.volume, strict=True)]
    moves = change(price)
    of_bars = list(zip(moves, money, map(equal_within, price), strict=True))
    rises = [0.0 if m is not None and m <= least else v for m, v, least in of_bars]
    falls = [0.0 if m is not None and m >= -least else v for m, v, least in of_bars]

    def index(up, down):
        return 100 * up / (up + down) if down else 100.0

    return {"Plot": each(index, summed(rises, inputs["in_0"]), summed(falls, inputs["in_0"]))}


@oracle("Volume Oscillator", {"in_0": 4, "in_1": 7})
def volume_oscillator(bars, inputs):
    """Show the distance of two averages of volume in percent."""
    short, long = ema(bars.volume, inputs["in_0"]), ema(bars.volume, inputs["in_1"])
    return {"Plot": ratio(minus(short, long), long, 100)}
