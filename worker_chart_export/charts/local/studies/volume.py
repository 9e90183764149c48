"""Volume, and studies that weigh the price's moves with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, PlotValues, study
from worker_chart_export.charts.local.studies.series import change, cumulate
from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Volume", title="Vol", numbers=Numbers.COMPACT)
def volume(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001  # every formula takes both
    """Show the volume of each bar; colour 1 if it closed at or above its open, else 0."""
    return {"Volume": PlotValues(values=bars.volume, shades=np.where(bars.close >= bars.open, 1, 0))}


@study("On Balance Volume", title="OBV", numbers=Numbers.COMPACT, cumulative=True)
def on_balance_volume(bars: Candles, inputs: Inputs) -> Plots:  # noqa: ARG001
    """Add the volume when the close rises, subtract it when it falls. Source: Pine `ta.obv`."""
    return {"Plot": cumulate(np.sign(change(bars.close)) * bars.volume)}
