"""Oracles of the trend."""

from __future__ import annotations

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import each, rma, true_range


def directional(bars, length):
    """Return +DI and -DI; where no bar moved they keep their last values."""
    plus, minus = [None], [None]
    for n in range(1, len(bars.close)):
        up, down = bars.high[n] - bars.high[n - 1], bars.low[n - 1] - bars.low[n]
        plus.append(up if up > down and up > 0 else 0.0)
        minus.append(down if down > up and down > 0 else 0.0)
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
