"""Oracles of the bands and channels around the price."""

from __future__ import annotations

from tests.support.charts.oracles import oracle
from tests.support.charts.oracles.blocks import deviation, each, sma


@oracle("Bollinger Bands", {"in_0": 5, "in_1": 1.5})
def bollinger_bands(bars, inputs):
    """Put bands of population deviations around the average."""
    middle, spread = sma(bars.close, inputs["in_0"]), deviation(bars.close, inputs["in_0"])
    return {
        "Median": middle,
        "Upper": each(lambda mean, one: mean + inputs["in_1"] * one, middle, spread),
        "Lower": each(lambda mean, one: mean - inputs["in_1"] * one, middle, spread),
    }
