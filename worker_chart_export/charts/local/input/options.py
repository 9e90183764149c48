"""The Chart-IMG request body as this renderer understands it.

A field that changes the meaning of the picture and can't be drawn here is refused by its name. Fields without
effect on a chart drawn from given candles are ignored: `symbol` (the legend shows the symbol of the run),
`session`, `watermark*`, and overrides that change only the appearance (`style`, `scalesFontSize`, name and
symbol labels). Keys that are not in Chart-IMG's documentation are found by the template check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from datetime import UTC
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH
from worker_chart_export.charts.local.input.candles import Timeframe, parse_timeframe, same_timeframe
from worker_chart_export.charts.whole_numbers import whole_number
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

STYLES = ("candle", "hollowCandle", "bar", "line", "area")
SCALES = ("regular", "logarithmic")
THEMES = ("light", "dark")
MAX_STUDIES = 50
_NOT_DRAWN = ("range", "shiftLeft", "shiftRight", "drawings")
_NOT_DRAWN_OVERRIDES = {"showMainPane": False, "showInvertScale": True, "showInvertScaleStudies": True}
_DEFAULT_RANGE_MARGIN = 0.0025
_RANGE_MARGINS = (0.001, 0.1)
_MAIN_PANE_HEIGHTS = (100, 1800)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    """One study of a template.

    Attributes:
        name: Chart-IMG's name of the study.
        inputs: The template's inputs, unchecked.
        overrides: The template's overrides, unchecked.
        force_overlay: The template's `forceOverlay`; None if it is not set.
    """

    name: str
    inputs: Mapping[str, Any]
    overrides: Mapping[str, Any]
    force_overlay: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRange:
    """A price axis fixed by the template; an end left out follows the prices shown.

    Attributes:
        low: Lowest price shown.
        high: Highest price shown.
        margin: Room beyond the prices at an end left out, as a part of them.
    """

    low: float | None
    high: float | None
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleParts:
    """The parts of the chart to draw. The default is all; a template can hide some."""

    legend: bool = field(default=True, metadata={"key": "showLegend"})
    legend_values: bool = field(default=True, metadata={"key": "showLegendValues"})
    prices: bool = field(default=True, metadata={"key": "showSeriesOHLC"})
    change: bool = field(default=True, metadata={"key": "showBarChange"})
    price_line: bool = field(default=True, metadata={"key": "showPriceLine"})
    price_label: bool = field(default=True, metadata={"key": "showSeriesLastValue"})
    study_labels: bool = field(default=True, metadata={"key": "showStudyLastValue"})
    vertical_grid: bool = field(default=True, metadata={"key": "showVertGrid"})
    horizontal_grid: bool = field(default=True, metadata={"key": "showHorzGrid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartOverrides:
    """The chart-wide overrides that have an effect here."""

    visible: VisibleParts
    price_range: PriceRange | None
    main_pane_height: int | None


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
        symbol: The symbol of the run.
        timeframe: The timeframe of the step; the `interval` of the body must mean the same.

    Raises:
        RenderFailed: A field can't be drawn here, or its value is wrong.
    """
    for name in _NOT_DRAWN:
        if payload.get(name):
            raise RenderFailed(f"The template's `{name}` can't be drawn here.", field=name)
    if payload.get("format", "png") != "png":
        raise RenderFailed(f"`format` is {payload['format']!r:.60}, expected png.", field="format")
    return ChartOptions(
        symbol=symbol,
        timeframe=_timeframe(payload, timeframe),
        width=_pixels(payload, "width", DEFAULT_WIDTH, (400, 2048)),
        height=_pixels(payload, "height", DEFAULT_HEIGHT, (300, 1920)),
        theme=_choice(payload, "theme", THEMES),
        style=_choice(payload, "style", STYLES),
        logarithmic=_choice(payload, "scale", SCALES) == "logarithmic",
        zone=_zone(payload),
        overrides=_overrides(payload),
        studies=_studies(payload),
    )


def _timeframe(payload: Mapping[str, Any], expected: str) -> Timeframe:
    interval = payload.get("interval", expected)
    parsed = parse_timeframe(interval) if isinstance(interval, str) else None
    if parsed is None:
        raise RenderFailed(f"`interval` is {interval!r:.60}, expected one like 15m, 4h, 1D, 1W, 1M.")
    if not same_timeframe(interval, expected):
        raise RenderFailed(
            f"`interval` is {interval!r}, but the candles are of {expected!r}.", field="interval"
        )
    return parsed


def _pixels(payload: Mapping[str, Any], name: str, default: int, limits: tuple[int, int]) -> int:
    value = payload.get(name, default)
    pixels = whole_number(value)
    if pixels is None or not limits[0] <= pixels <= limits[1]:
        raise RenderFailed(
            f"`{name}` is {value!r:.60}, expected a whole number from {limits[0]} to {limits[1]}.",
            field=name,
        )
    return pixels


def _choice(payload: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = payload.get(name, known[0])
    if value not in known:
        raise RenderFailed(f"`{name}` is {value!r:.60}, known here: {', '.join(known)}.", field=name)
    return str(value)


def _zone(payload: Mapping[str, Any]) -> tzinfo:
    name = payload.get("timezone", "Etc/UTC")
    if name in {"Etc/UTC", "UTC"}:
        # Works on machines without a time zone database as well.
        return UTC
    try:
        return ZoneInfo(name)
    except (TypeError, ValueError, AttributeError, OSError, KeyError) as error:
        raise RenderFailed(f"`timezone` {name!r:.60} is not a known time zone.", field="timezone") from error


def _overrides(payload: Mapping[str, Any]) -> ChartOverrides:
    value = payload.get("override")
    given = {} if value is None else value
    if not isinstance(given, dict):
        raise RenderFailed(f"`override` is {given!r:.60}, expected an object.", field="override")
    for key, refused in _NOT_DRAWN_OVERRIDES.items():
        if given.get(key) is refused:
            raise RenderFailed(f"`override.{key}` {str(refused).lower()} can't be drawn here.", field=key)
    visible = {part.name: given.get(part.metadata["key"], True) for part in fields(VisibleParts)}
    for part in fields(VisibleParts):
        if not isinstance(visible[part.name], bool):
            key = part.metadata["key"]
            raise RenderFailed(f"`override.{key}` is {given[key]!r:.60}, expected true or false.", field=key)
    return ChartOverrides(
        visible=VisibleParts(**visible),
        price_range=_price_range(given.get("priceRange")),
        main_pane_height=_main_pane_height(given.get("mainPaneHeight")),
    )


def _main_pane_height(value: Any) -> int | None:
    if value is None:
        return None
    height, (low, high) = whole_number(value), _MAIN_PANE_HEIGHTS
    if height is None or not low <= height <= high:
        raise RenderFailed(f"`override.mainPaneHeight` is {value!r:.60}, expected {low} to {high} pixels.")
    return height


def _price_range(value: Any) -> PriceRange | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RenderFailed(f"`override.priceRange` is {value!r:.60}, expected an object.", field="priceRange")
    for key in ("from", "to"):
        price = value.get(key)
        if price is not None and (type(price) not in {int, float} or not 0 < price < math.inf):
            raise RenderFailed(f"`override.priceRange.{key}` is {price!r:.60}, expected a price above zero.")
    low, high = value.get("from"), value.get("to")
    if low is not None and high is not None and low >= high:
        raise RenderFailed(f"`override.priceRange` runs from {low:g} to {high:g}.", field="priceRange")
    margin = value.get("margin", _DEFAULT_RANGE_MARGIN)
    if type(margin) not in {int, float} or not _RANGE_MARGINS[0] <= margin <= _RANGE_MARGINS[1]:
        raise RenderFailed(f"`override.priceRange.margin` is {margin!r:.60}, expected 0.001 to 0.1.")
    return PriceRange(low=low, high=high, margin=margin)


def _studies(payload: Mapping[str, Any]) -> tuple[StudyRequest, ...]:
    studies = payload.get("studies") or []
    if not isinstance(studies, list) or len(studies) > MAX_STUDIES:
        raise RenderFailed(f"`studies` is not a list of at most {MAX_STUDIES} studies.", field="studies")
    requests = []
    for index, study in enumerate(studies):
        name = study.get("name") if isinstance(study, dict) else None
        if not isinstance(name, str):
            raise RenderFailed(f"`studies[{index}]` has no `name`.", field=f"studies[{index}].name")
        overlay = study.get("forceOverlay")
        if overlay is not None and not isinstance(overlay, bool):
            raise RenderFailed(f"Study {name!r} has `forceOverlay` {overlay!r:.60}, expected true or false.")
        inputs, overrides = study.get("input") or {}, study.get("override") or {}
        for key, value in (("input", inputs), ("override", overrides)):
            if not isinstance(value, dict):
                raise RenderFailed(
                    f"Study {name!r} has `{key}` {value!r:.60}, expected an object.", study=name
                )
        requests.append(StudyRequest(name=name, inputs=inputs, overrides=overrides, force_overlay=overlay))
    return tuple(requests)
