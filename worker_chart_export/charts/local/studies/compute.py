"""Compute a study that a template names: inputs, formula, looks, and the bar from which it is settled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.input.study_inputs import read_inputs
from worker_chart_export.charts.local.studies import families
from worker_chart_export.charts.local.studies.appearance import Looks
from worker_chart_export.charts.local.studies.registry import PlotValues
from worker_chart_export.charts.local.studies.series import first_defined
from worker_chart_export.charts.local.studies.study import Place, Study
from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile
from worker_chart_export.charts.request_check import near_names
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.options import StudyRequest
    from worker_chart_export.charts.local.input.study_inputs import Inputs
    from worker_chart_export.charts.local.studies.registry import Plots, StudyKind

STUDIES = families.STUDIES
#: A value is settled once starts of the history at other bars change it by less than this part of the plot's
#: spread: less than a pixel in a pane of 200.
_SETTLED = 0.005
#: The other starts, in bars after the first one.
_LATER_STARTS = (1, 5, 17, 50)
#: Every study is settled within so many bars, or never. It bounds the time that the search takes.
_SEARCHED_BARS = 1_000


def depends_on_window(request: StudyRequest) -> bool:
    """Return whether a study is computed from the bars shown only."""
    return request.name in STUDIES and STUDIES[request.name].visible_only


def compute_study(request: StudyRequest, bars: Candles, first_shown: int = 0) -> Study:
    """Compute one study of a template over all bars.

    Args:
        request: The study as the template names it.
        bars: The whole history; the bars before `first_shown` are warm-up.
        first_shown: Index of the first bar that the chart shows; only some studies depend on it.

    Raises:
        RenderFailed: The study is unknown, or an input or an override has a wrong value.
    """
    entry, kind = catalogue().studies.get(request.name), STUDIES.get(request.name)
    if entry is None or kind is None:
        raise RenderFailed(
            f"Study {request.name!r:.80} can't be drawn here{near_names(request.name, STUDIES)}.",
            study=request.name,
        )
    inputs = read_inputs(entry, request.inputs)
    looks = Looks(entry, request.overrides)
    computed = (
        _of_visible_bars(kind, bars, first_shown, inputs) if kind.visible_only else kind.formula(bars, inputs)
    )
    settled = 0 if kind.visible_only else _settled_from(kind, bars, inputs, computed)
    settled = min(settled + _moved(computed), len(bars))
    study = Study(
        name=request.name,
        title=" ".join([kind.title, *(_written(value) for value in inputs.values.values())]),
        inputs=inputs.values,
        place=_place(request, own_pane=entry.own_pane),
        numbers=kind.numbers,
        plots=looks.plots(computed, kind),
        levels=looks.levels(kind),
        fills=looks.fills(kind),
        settled_from=settled,
        faint_until=0 if bars.from_the_start else settled,
    )
    if "graphics" in computed:
        profile = computed["graphics"]
        shape = profile if isinstance(profile, VolumeProfile) else None
        study = replace(study, profile=looks.profile(shape, inputs.text("volume")))
    return study


def _of_visible_bars(kind: StudyKind, bars: Candles, first_shown: int, inputs: Inputs) -> Plots:
    """Compute a study from the bars shown; its plots have gaps before."""
    gap = np.full(first_shown, np.nan)
    computed = kind.formula(bars.since(first_shown), inputs)
    return {
        key: np.concatenate((gap, values)) if isinstance(values, np.ndarray) else values
        for key, values in computed.items()
    }


def _moved(plots: Plots) -> int:
    """Return by how many bars the plots are moved to the right at most."""
    return max([0, *(values.offset for values in plots.values() if isinstance(values, PlotValues))])


def _place(request: StudyRequest, *, own_pane: bool) -> Place:
    if not own_pane:
        if request.force_overlay is False:
            raise RenderFailed(
                f"Study {request.name!r} is always over the price: `forceOverlay` false.", study=request.name
            )
        return Place.PRICE
    if not request.force_overlay:
        return Place.PANE
    return Place.FLOOR if request.name == "Volume" else Place.OVERLAY


def _written(value: float | str) -> str:
    """Return an input as the legend shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, int | float) else value


def _settled_from(kind: StudyKind, bars: Candles, inputs: Inputs, computed: Plots) -> int:
    """Return the first bar from which the study no longer depends on where the file begins.

    It is computed again for files that begin some bars later: after how many bars do these agree with the
    whole file? A sum from the first bar on never settles; it counts as settled where its changes are.
    """
    searched = bars.until(_SEARCHED_BARS)
    whole = _numbers(computed if len(searched) == len(bars) else kind.formula(searched, inputs))
    settled = min((first_defined(values) for values in whole.values()), default=0)
    allowed = {key: _SETTLED * _spread(values) for key, values in whole.items()}
    for later in _LATER_STARTS:
        if len(searched) <= later + 1:
            break
        others = _numbers(kind.formula(searched.since(later), inputs))
        for key, values in whole.items():
            difference = values[later:] - others[key]
            if kind.cumulative:
                difference -= difference[-1]
            different = _last_above(np.abs(difference), allowed[key])
            if different == len(searched) - later:
                return len(bars)
            settled = max(settled, different)
    return settled


def _spread(values: Series) -> float:
    defined = values[np.isfinite(values)]
    return float(np.ptp(defined)) if defined.size else 0.0


def _last_above(values: Series, limit: float) -> int:
    """Return the index after the last value above `limit`; 0 if there is none."""
    above = np.flatnonzero(values > limit)
    return int(above[-1]) + 1 if above.size else 0


def _numbers(plots: Plots) -> dict[str, Series]:
    """Return the values of the plots, without moving them."""
    return {
        key: _values_or_colors(values) if isinstance(values, PlotValues) else values
        for key, values in plots.items()
        if isinstance(values, PlotValues | np.ndarray)
    }


def _values_or_colors(plot: PlotValues) -> Series:
    """Return the values, or the numbers of the colours if only these differ (Chop Zone)."""
    defined = plot.values[~np.isnan(plot.values)]
    if plot.shades is None or not defined.size or np.ptp(defined):
        return plot.values
    return np.where(np.isnan(plot.values), np.nan, plot.shades)
