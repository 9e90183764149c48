"""The Chart-IMG request body as this renderer understands it.

What would change the picture's message and can't be done here is refused with the field's name. Left aside as
without bearing on a chart drawn from given candles: `symbol` (the legend shows the run's), `session`,
`watermark*`, and overrides that only concern looks (`style`, `scalesFontSize`, name and symbol labels). Keys
that no Chart-IMG document knows are the template check's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH
from worker_chart_export.charts.local.input.chart_overrides import ChartOverrides, read_overrides
from worker_chart_export.charts.local.input.timeframe import Timeframe, parse_timeframe, same_timeframe
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

STYLES = ("candle", "hollowCandle", "bar", "line", "area")
SCALES = ("regular", "logarithmic")
THEMES = ("light", "dark")
MAX_STUDIES = 50
_NOT_DRAWN = ("range", "shiftLeft", "shiftRight", "drawings")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    """One study as the template asks for it.

    Attributes:
        name: Chart-IMG's name of the study.
        inputs: The template's inputs, unchecked.
        overrides: The template's overrides, unchecked.
        force_overlay: The template's `forceOverlay`, if it says anything.
    """

    name: str
    inputs: Mapping[str, Any]
    overrides: Mapping[str, Any]
    force_overlay: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartOptions:
    """What to draw.

    Attributes:
        symbol: Shown in the legend.
        timeframe: Length of the bars.
        width: Picture width in pixels.
        height: Picture height in pixels.
        theme: `light` or `dark`.
        style: How the price is drawn, one of `STYLES`.
        logarithmic: Whether equal distances mean equal ratios on the price axis.
        zone: Time zone of the time axis for bars shorter than a day.
        overrides: The chart-wide overrides.
        studies: The studies in the template's order.
    """

    symbol: str
    timeframe: Timeframe
    width: int
    height: int
    theme: str
    style: str
    logarithmic: bool
    zone: tzinfo
    overrides: ChartOverrides
    studies: tuple[StudyRequest, ...]


def read_options(payload: Mapping[str, Any], *, symbol: str, timeframe: str) -> ChartOptions:
    """Check a request body and fill in the API's defaults.

    Args:
        payload: The Chart-IMG request body.
        symbol: The run's symbol.
        timeframe: The step's timeframe; the body's `interval` must mean the same.

    Raises:
        RenderFailed: A field can't be honoured.
    """
    _refuse_undrawable(payload)
    return ChartOptions(
        symbol=symbol,
        timeframe=_timeframe(payload, timeframe),
        width=_pixels(payload, "width", DEFAULT_WIDTH, (400, 2048)),
        height=_pixels(payload, "height", DEFAULT_HEIGHT, (300, 1920)),
        theme=_choice(payload, "theme", THEMES),
        style=_choice(payload, "style", STYLES),
        logarithmic=_choice(payload, "scale", SCALES) == "logarithmic",
        zone=_zone(payload),
        overrides=read_overrides(payload.get("override")),
        studies=_studies(payload),
    )


def _refuse_undrawable(payload: Mapping[str, Any]) -> None:
    for field in _NOT_DRAWN:
        if payload.get(field):
            raise RenderFailed(f"The template's `{field}` can't be drawn here.", field=field)
    if payload.get("format", "png") != "png":
        raise RenderFailed(f"`format` is {payload['format']!r:.60}, expected png.", field="format")


def _timeframe(payload: Mapping[str, Any], asked: str) -> Timeframe:
    interval = payload.get("interval", asked)
    parsed = parse_timeframe(interval) if isinstance(interval, str) else None
    if parsed is None:
        raise RenderFailed(f"`interval` is {interval!r:.60}, expected one like 15m, 4h, 1D, 1W, 1M.")
    if not same_timeframe(interval, asked):
        raise RenderFailed(f"`interval` is {interval!r}, but the candles are of {asked!r}.", field="interval")
    return parsed


def _pixels(payload: Mapping[str, Any], field: str, default: int, limits: tuple[int, int]) -> int:
    value = payload.get(field, default)
    if type(value) is not int or not limits[0] <= value <= limits[1]:
        raise RenderFailed(
            f"`{field}` is {value!r:.60}, expected a whole number from {limits[0]} to {limits[1]}.",
            field=field,
        )
    return value


def _choice(payload: Mapping[str, Any], field: str, known: tuple[str, ...]) -> str:
    value = payload.get(field, known[0])
    if value not in known:
        raise RenderFailed(f"`{field}` is {value!r:.60}, known here: {', '.join(known)}.", field=field)
    return str(value)


def _zone(payload: Mapping[str, Any]) -> tzinfo:
    name = payload.get("timezone", "Etc/UTC")
    if name in {"Etc/UTC", "UTC"}:
        # Machines without a time zone database still know this one.
        return UTC
    try:
        return ZoneInfo(name)
    except (TypeError, ValueError, AttributeError, OSError, KeyError) as error:
        raise RenderFailed(f"`timezone` {name!r:.60} is not a known time zone.", field="timezone") from error


def _studies(payload: Mapping[str, Any]) -> tuple[StudyRequest, ...]:
    studies = payload.get("studies") or []
    if not isinstance(studies, list) or len(studies) > MAX_STUDIES:
        raise RenderFailed(f"`studies` is no list of at most {MAX_STUDIES} studies.", field="studies")
    return tuple(_study(index, study) for index, study in enumerate(studies))


def _study(index: int, study: Any) -> StudyRequest:
    name = study.get("name") if isinstance(study, dict) else None
    if not isinstance(name, str):
        raise RenderFailed(f"`studies[{index}]` has no `name`.", field=f"studies[{index}].name")
    overlay = study.get("forceOverlay")
    if overlay is not None and not isinstance(overlay, bool):
        raise RenderFailed(f"Study {name!r} has `forceOverlay` {overlay!r:.60}, expected true or false.")
    return StudyRequest(
        name=name,
        inputs=_object(study, name, "input"),
        overrides=_object(study, name, "override"),
        force_overlay=overlay,
    )


def _object(study: Mapping[str, Any], name: str, field: str) -> Mapping[str, Any]:
    value = study.get(field) or {}
    if not isinstance(value, dict):
        raise RenderFailed(f"Study {name!r} has `{field}` {value!r:.60}, expected an object.", study=name)
    return value
