"""The studies that can be drawn here, by Chart-IMG's names, with their inputs and defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from worker_chart_export.charts.local.input.study_inputs import (
    SOURCES,
    Choice,
    Fraction,
    Input,
    WholeNumber,
    read_inputs,
)
from worker_chart_export.charts.local.studies import oscillators, overlays
from worker_chart_export.charts.local.studies.study import Place, Study, with_overrides
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.options import StudyRequest
    from worker_chart_export.charts.local.input.study_inputs import Inputs

    Build: TypeAlias = Callable[[Candles, Inputs], Study]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """One study that can be drawn.

    Attributes:
        build: Computes it.
        inputs: The inputs that have an effect here.
        visible_only: Whether it is computed from the bars shown, not from the whole history.
    """

    build: Build
    inputs: Mapping[str, Input]
    visible_only: bool = False


def _length(default: int, *, low: int = 1) -> WholeNumber:
    return WholeNumber(default=default, low=low)


def _smoothing(default: int) -> dict[str, Input]:
    method = Choice(default="SMA", options=("SMA", "EMA", "WMA"))
    return {"smoothingLine": method, "smoothingLength": _length(default)}


def _acceleration(default: float) -> Fraction:
    # The API accepts far more, but a step outside 0 to 1 moves the stop away from the price.
    return Fraction(default=default, low=0.0, high=1.0)


_SOURCE = Choice(default="close", options=SOURCES)
_OFFSET = WholeNumber(default=0, low=-10_000, high=10_000)
_AVERAGE = {"length": _length(9), "source": _SOURCE, "offset": _OFFSET, **_smoothing(9)}

STUDIES: Mapping[str, StudyKind] = {
    "Average Directional Index": StudyKind(
        build=oscillators.average_directional_index,
        inputs={"in_0": _length(14), "in_1": _length(14, low=2)},
    ),
    "Bollinger Bands": StudyKind(
        build=overlays.bollinger_bands,
        inputs={"in_0": _length(20), "in_1": Fraction(default=2.0, low=0.001, high=50.0)},
    ),
    "MA Cross": StudyKind(
        build=overlays.moving_average_cross, inputs={"in_0": _length(9), "in_1": _length(26)}
    ),
    "MACD": StudyKind(
        build=oscillators.macd_study,
        inputs={"in_0": _length(12), "in_1": _length(26), "in_2": _length(9), "in_3": _SOURCE},
    ),
    "Moving Average": StudyKind(
        build=partial(overlays.moving_average_study, method="Simple", title="MA"), inputs=_AVERAGE
    ),
    "Moving Average Double": StudyKind(
        build=overlays.moving_average_double,
        inputs={
            "firstPeriods": _length(14),
            "secondPeriods": _length(21),
            "method": Choice(default="Simple", options=("Simple", "Exponential", "Weighted", "Smoothed")),
        },
    ),
    "Moving Average Exponential": StudyKind(
        build=partial(overlays.moving_average_study, method="Exponential", title="EMA"), inputs=_AVERAGE
    ),
    "Moving Average Weighted": StudyKind(
        build=overlays.moving_average_weighted,
        inputs={"in_0": _length(9), "in_1": _SOURCE, "in_2": _OFFSET},
    ),
    "On Balance Volume": StudyKind(build=oscillators.on_balance_volume_study, inputs=_smoothing(9)),
    "Parabolic SAR": StudyKind(
        build=overlays.parabolic_stop,
        inputs={"in_0": _acceleration(0.02), "in_1": _acceleration(0.02), "in_2": _acceleration(0.2)},
    ),
    "Relative Strength Index": StudyKind(
        build=oscillators.relative_strength_index, inputs={"length": _length(14), **_smoothing(14)}
    ),
    "Stochastic RSI": StudyKind(
        build=oscillators.stochastic_rsi_study,
        inputs={"in_0": _length(14), "in_1": _length(14), "in_2": _length(3), "in_3": _length(3)},
    ),
    "Volume": StudyKind(build=overlays.volume, inputs={}),
    "Volume Profile Visible Range": StudyKind(
        build=overlays.visible_volume_profile,
        inputs={
            "rows": WholeNumber(default=24, low=1, high=1000),
            "volume": Choice(default="Up/Down", options=("Up/Down", "Total", "Delta")),
            "vaVolume": WholeNumber(default=70, low=0, high=100),
        },
        visible_only=True,
    ),
}


def compute_study(request: StudyRequest, candles: Candles, first_shown: int) -> Study:
    """Compute one study of a template over all candles, and apply its overrides.

    Args:
        request: The study as the template names it.
        candles: The whole history; the bars before `first_shown` are warm-up.
        first_shown: Index of the first bar that the chart shows.

    Raises:
        RenderFailed: The study can't be drawn here, or an input or an override has a wrong value.
    """
    name, overlay = request.name, request.force_overlay
    kind = STUDIES.get(name)
    if kind is None:
        raise RenderFailed(
            f"Study {name!r:.80} can't be drawn here; known studies: {', '.join(STUDIES)}.", study=name
        )
    inputs = read_inputs(name, kind.inputs, request.inputs)
    study = kind.build(candles.since(first_shown) if kind.visible_only else candles, inputs)
    if overlay and study.place is Place.PANE:
        raise RenderFailed(
            f"Study {name!r} can't be laid over the price here: `forceOverlay` true.", study=name
        )
    if overlay is False and study.place is Place.FLOOR:
        # Only volume can be in both places; by default it is in the price pane.
        study = replace(study, place=Place.PANE)
    return with_overrides(study, request)
