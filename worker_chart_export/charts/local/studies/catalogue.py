"""The studies that can be drawn here, by Chart-IMG's names, with their inputs and defaults."""

from __future__ import annotations

from dataclasses import dataclass
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
from worker_chart_export.charts.local.studies.overrides import with_overrides
from worker_chart_export.charts.local.studies.study import Place, Study
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.options import StudyRequest
    from worker_chart_export.charts.local.input.study_inputs import Inputs

    Build: TypeAlias = Callable[[Candles, Inputs], Study]

_SMOOTHING = ("SMA", "EMA", "WMA")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """One study that can be drawn.

    Attributes:
        build: Computes it.
        inputs: The inputs it honours.
        visible_only: Whether it is computed from the bars shown instead of the whole history.
    """

    build: Build
    inputs: Mapping[str, Input]
    visible_only: bool = False


def _length(default: int, *, low: int = 1) -> WholeNumber:
    return WholeNumber(default=default, low=low)


def _smoothing(default: int) -> dict[str, Input]:
    return {
        "smoothingLine": Choice(default="SMA", options=_SMOOTHING),
        "smoothingLength": _length(default),
    }


def _source() -> Choice:
    return Choice(default="close", options=SOURCES)


def _offset() -> WholeNumber:
    return WholeNumber(default=0, low=-10_000, high=10_000)


def _acceleration(default: float) -> Fraction:
    # The API accepts far more, but a step outside 0 to 1 leads the stop away from the price.
    return Fraction(default=default, low=0.0, high=1.0)


def _average() -> dict[str, Input]:
    return {"length": _length(9), "source": _source(), "offset": _offset(), **_smoothing(9)}


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
        inputs={"in_0": _length(12), "in_1": _length(26), "in_2": _length(9), "in_3": _source()},
    ),
    "Moving Average": StudyKind(build=overlays.moving_average_simple, inputs=_average()),
    "Moving Average Double": StudyKind(
        build=overlays.moving_average_double,
        inputs={
            "firstPeriods": _length(14),
            "secondPeriods": _length(21),
            "method": Choice(default="Simple", options=("Simple", "Exponential", "Weighted", "Smoothed")),
        },
    ),
    "Moving Average Exponential": StudyKind(build=overlays.moving_average_exponential, inputs=_average()),
    "Moving Average Weighted": StudyKind(
        build=overlays.moving_average_weighted,
        inputs={"in_0": _length(9), "in_1": _source(), "in_2": _offset()},
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
    """Compute one study of a template over all candles.

    Args:
        request: The study as the template asks for it.
        candles: The whole history; what comes before `first_shown` is warm-up.
        first_shown: Index of the first bar that the chart shows.

    Raises:
        RenderFailed: The study, an input or an override can't be honoured.
    """
    kind = _kind_of(request.name)
    inputs = read_inputs(request.name, kind.inputs, request.inputs)
    study = kind.build(candles.since(first_shown) if kind.visible_only else candles, inputs)
    return with_overrides(_placed(study, request), request)


def _kind_of(name: str) -> StudyKind:
    kind = STUDIES.get(name)
    if kind is None:
        raise RenderFailed(
            f"Study {name!r:.80} can't be drawn here; known studies: {', '.join(STUDIES)}.", study=name
        )
    return kind


def _placed(study: Study, request: StudyRequest) -> Study:
    """Move the study where `forceOverlay` wants it, or refuse.

    Volume alone can stand in either place; without a word it stands at the foot of the price pane.
    """
    if request.force_overlay and study.place is Place.PANE:
        raise RenderFailed(
            f"Study {request.name!r} can't be laid over the price here: `forceOverlay` true.",
            study=request.name,
        )
    if request.force_overlay is False and study.place is Place.FLOOR:
        return Study(title=study.title, place=Place.PANE, numbers=study.numbers, plots=study.plots)
    return study
