"""Volume by price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.registry import Plots, study
from worker_chart_export.charts.local.studies.volume_profile import developing_profile, volume_profile
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.study_inputs import Inputs

#: More rows than pixels would cost memory and change nothing.
_MAX_ROWS = 2_000


@study("Volume Profile Visible Range", title="VPVR", visible_only=True)
def visible_volume_profile(bars: Candles, inputs: Inputs) -> Plots:
    """Sum the volume of the bars shown by price. See `volume_profile`.

    The developing lines show the point of control and the value area of the bars up to each bar.
    """
    rows, percent = inputs.whole("rows"), inputs.whole("vaVolume")
    if rows > _MAX_ROWS:
        raise RenderFailed(f"`rows` of {inputs.study!r} is {rows}; at most {_MAX_ROWS} rows are drawn here.")
    profile = volume_profile(bars, rows=rows, area_percent=percent)
    if profile is None:
        return {"graphics": None}
    control, high, low = np.array(developing_profile(bars, profile.edges, percent)).T
    return {
        "graphics": profile,
        "Developing Poc": control,
        "Developing VA High": high,
        "Developing VA Low": low,
    }
