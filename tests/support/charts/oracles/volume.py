"""Oracles of volume."""

from __future__ import annotations

from tests.support.charts.oracles import oracle


@oracle("Volume")
def volume(bars, inputs):  # noqa: ARG001  # every oracle takes both
    """Return the volume."""
    return {"Volume": bars.volume}


@oracle("On Balance Volume")
def on_balance_volume(bars, inputs):  # noqa: ARG001
    """Return the signed running sum of volume."""
    result, total = [0.0], 0.0
    for n in range(1, len(bars.close)):
        total += bars.volume[n] * ((bars.close[n] > bars.close[n - 1]) - (bars.close[n] < bars.close[n - 1]))
        result.append(total)
    return {"Plot": result}
