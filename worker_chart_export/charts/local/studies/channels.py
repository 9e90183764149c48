"""Bands and channels around the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.studies.registry import Band, Plots, study
from worker_chart_export.charts.local.studies.series import sma, stdev

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Bollinger Bands", title="BB", fills={"Plots Background": Band(upper="Upper", lower="Lower")})
def bollinger_bands(bars: Candles, inputs: Inputs) -> Plots:
    """Put bands `in_1` population deviations around the simple average. Source: Pine `ta.bb`."""
    length = inputs.length("in_0")
    median, spread = sma(bars.close, length), inputs.number("in_1") * stdev(bars.close, length)
    return {"Median": median, "Upper": median + spread, "Lower": median - spread}
