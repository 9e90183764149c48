"""Volume by price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.local.studies.registry import Plots, study
from worker_chart_export.charts.local.studies.volume_profile import volume_profile

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.study_inputs import Inputs


@study("Volume Profile Visible Range", title="VPVR", visible_only=True)
def visible_volume_profile(bars: Candles, inputs: Inputs) -> Plots:
    """Sum the volume of the bars shown by price. See `volume_profile`."""
    rows, percent = inputs.whole("rows"), inputs.whole("vaVolume")
    return {"graphics": volume_profile(bars, rows=rows, area_percent=percent)}
