"""The Chart-IMG request body as this renderer reads it.

Everything is checked against the documented table first. A field that is not documented, or whose value is
not, is refused by its path. So is a documented one that can't be drawn here. Nothing is ignored, except the
fields that the worker sets itself: the legend shows the symbol of the run, not `symbol`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from worker_chart_export.charts.catalogue import catalogue, read_datetime
from worker_chart_export.charts.local.input.candles import Timeframe, parse_timeframe
from worker_chart_export.charts.request_check import problems
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker_chart_export.charts.catalogue import Parameter

MAX_STUDIES = 50
#: The largest pictures of all Chart-IMG plans, in pixels (its documentation, "Limits").
_MAX_WIDTH, _MAX_HEIGHT = 2048, 1920
#: Prices of candle files are at most a thousandth of it.
_MAX_PRICE = 1e15
#: A price range below this part of its prices has no ticks that can be told apart.
_MIN_SPREAD = 1e-9
#: TradingView draws the colours for up and down instead of these.
_UNUSED_COLORS = (".borderColor", ".wickColor")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    """One study of a template.

    Attributes:
        name: Chart-IMG's name of the study.
        inputs: The template's inputs, checked against the table.
        overrides: The template's overrides, checked too.
        force_overlay: The template's `forceOverlay`; None if it is not set.
    """

    name: str
    inputs: Mapping[str, Any]
    overrides: Mapping[str, Any]
    force_overlay: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingRequest:
    """One drawing of a template.

    Attributes:
        name: Chart-IMG's name of the drawing.
        inputs: The inputs, defaults filled in; None where one without a default is not set.
        look: The overrides, defaults filled in.
        levels: Visibility, coefficient and colour of each level of a drawing with levels.
        z_order: `top`, `bottom`, or None if it is not set.
    """

    name: str
    inputs: Mapping[str, Any]
    look: Mapping[str, Any]
    levels: tuple[Mapping[str, Any], ...]
    z_order: str | None


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
    """The parts of the chart to draw, with Chart-IMG's defaults."""

    legend: bool = field(default=True, metadata={"key": "showLegend"})
    legend_values: bool = field(default=True, metadata={"key": "showLegendValues"})
    main_pane: bool = field(default=True, metadata={"key": "showMainPane"})
    prices: bool = field(default=True, metadata={"key": "showSeriesOHLC"})
    change: bool = field(default=True, metadata={"key": "showBarChange"})
    price_line: bool = field(default=True, metadata={"key": "showPriceLine"})
    price_label: bool = field(default=True, metadata={"key": "showSeriesLastValue"})
    study_labels: bool = field(default=True, metadata={"key": "showStudyLastValue"})
    vertical_grid: bool = field(default=True, metadata={"key": "showVertGrid"})
    horizontal_grid: bool = field(default=True, metadata={"key": "showHorzGrid"})
    study_names: bool = field(default=False, metadata={"key": "showStudyPlotNamesAction"})
    symbol_labels: bool = field(default=False, metadata={"key": "showSymbolLabelsAction"})
    symbol_watermark: bool = field(default=False, metadata={"key": "showSymbolWatermark"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartOptions:
    """What to draw.

    Attributes:
        symbol: Shown in the legend.
        timeframe: Length of the bars to draw.
        width: Picture width in pixels.
        height: Picture height in pixels.
        theme: `light` or `dark`.
        style: How the price is drawn, a name of the table.
        look: The overrides of that style without their prefix, e.g. `upColor`; defaults filled in.
        scale: `regular`, `logarithmic`, `percent` or `indexedTo100`.
        inverted: Whether low prices are at the top.
        inverted_studies: Whether low values of studies in panes of their own are at the top.
        session: `regular` or `extended`.
        zone: Time zone of the time axis for bars shorter than a day.
        when: A range by name, or from and to; None for as many bars as there is room for.
        shift_left: Bars to move the chart's window to the left, towards the past.
        shift_right: Bars to move it to the right: free room after the newest bar.
        visible: The parts to draw.
        price_range: A fixed price axis; None if the template has none.
        main_pane_height: Height of the price pane in pixels; None if the template does not set it.
        font_size: Size of the texts on the axes in pixels.
        watermark: Text in the background; None if the template has none.
        watermark_size: Its size in pixels.
        watermark_opacity: Its opacity, 0.1 to 1.
        studies: The studies in the template's order.
        drawings: The drawings in the template's order.
    """

    symbol: str
    timeframe: Timeframe
    width: int
    height: int
    theme: str
    style: str
    look: Mapping[str, Any]
    scale: str
    inverted: bool
    inverted_studies: bool
    session: str
    zone: tzinfo
    when: str | tuple[datetime, datetime] | None
    shift_left: int
    shift_right: int
    visible: VisibleParts
    price_range: PriceRange | None
    main_pane_height: int | None
    font_size: int
    watermark: str | None
    watermark_size: int
    watermark_opacity: float
    studies: tuple[StudyRequest, ...]
    drawings: tuple[DrawingRequest, ...]

    @property
    def logarithmic(self) -> bool:
        """Whether equal distances mean equal ratios on the price axis."""
        return self.scale == "logarithmic"


def read_options(payload: Mapping[str, Any], *, symbol: str, timeframe: str) -> ChartOptions:
    """Check a request body and fill in the API's defaults.

    Args:
        payload: The Chart-IMG request body.
        symbol: The symbol of the run.
        timeframe: The timeframe to draw if the body has no `interval`.

    Raises:
        RenderFailed: A field can't be drawn here, or its value is wrong.
    """
    body = {key: value for key, value in payload.items() if key != "symbol"}
    problem = next(_problems(body), None)
    if problem is not None:
        raise RenderFailed(f"{problem}.", field=problem.partition(":")[0])
    table, override = catalogue(), body.get("override", {})
    asked = _values(table.request, body)
    wide = _values(table.override, override)
    visible = {part.name: wide[part.metadata["key"]] for part in fields(VisibleParts)}
    return ChartOptions(
        symbol=symbol,
        timeframe=_timeframe(body, timeframe),
        width=asked["width"],
        height=asked["height"],
        theme=asked["theme"],
        style=asked["style"],
        look=_look(asked["style"], override.get("style", {})),
        scale=asked["scale"],
        inverted=wide["showInvertScale"],
        inverted_studies=wide["showInvertScaleStudies"],
        session=asked["session"],
        zone=_zone(asked["timezone"]),
        when=_range(asked["range"]),
        shift_left=asked["shiftLeft"] or 0,
        shift_right=asked["shiftRight"] or 0,
        visible=VisibleParts(**visible),
        price_range=_price_range(override.get("priceRange")),
        main_pane_height=wide["mainPaneHeight"],
        font_size=wide["scalesFontSize"],
        watermark=asked["watermark"],
        watermark_size=asked["watermarkSize"],
        watermark_opacity=asked["watermarkOpacity"],
        studies=tuple(_study(entry) for entry in body.get("studies", ())),
        drawings=tuple(_drawing(entry) for entry in body.get("drawings", ())),
    )


def _problems(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not documented, then what can't be drawn here."""
    yield from problems(body)
    for key, largest in (("width", _MAX_WIDTH), ("height", _MAX_HEIGHT)):
        if body.get(key, 0) > largest:
            yield f"request.{key}: expected at most {largest} pixels, got {body[key]}"
    if len(body.get("studies", ())) > MAX_STUDIES:
        yield f"request.studies: expected at most {MAX_STUDIES} studies"
    yield from _not_drawn(body, body.get("override", {}))


def _not_drawn(body: Mapping[str, Any], override: Mapping[str, Any]) -> Iterator[str]:
    if body.get("format") == "jpeg":
        yield "request.format: jpeg can't be drawn here"
    style = body.get("style", "candle")
    for key, value in override.get("style", {}).items():
        is_default = value == catalogue().styles[style][key].default
        if style != "hiLo" and key.endswith(_UNUSED_COLORS) and not is_default:
            yield f"request.override.style.{key}: has no effect; set the colours for up and down"


def _values(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of checked fields in their own types, defaults filled in."""
    values = {}
    for key, parameter in known.items():
        value = given.get(key, parameter.default)
        values[key] = None if value is None else parameter.read(value)
    return values


def _look(style: str, given: Mapping[str, Any]) -> dict[str, Any]:
    values = _values(catalogue().styles[style], given)
    return {key.partition(".")[2]: value for key, value in values.items()}


def _timeframe(body: Mapping[str, Any], expected: str) -> Timeframe:
    interval = body.get("interval", expected)
    parsed = parse_timeframe(interval) if isinstance(interval, str) else None
    if parsed is None:
        raise RenderFailed(f"`interval` is {interval!r:.60}, expected one like 15m, 4h, 1D, 1W, 1M.")
    return parsed


def _zone(name: str) -> tzinfo:
    if name in {"Etc/UTC", "UTC"}:
        # Works on machines without a time zone database as well.
        return UTC
    try:
        return ZoneInfo(name)
    except (TypeError, ValueError, AttributeError, OSError, KeyError) as error:
        raise RenderFailed(f"`timezone` {name!r:.60} is not a known time zone.", field="timezone") from error


def _range(value: str | Mapping[str, Any] | None) -> str | tuple[datetime, datetime] | None:
    if value is None or isinstance(value, str):
        return value
    begin, end = read_datetime(value["from"]), read_datetime(value["to"])
    if begin is None or end is None or begin >= end:
        raise RenderFailed("`range` must be from a time to a later one.", field="range")
    return begin, end


def _price_range(value: Mapping[str, Any] | None) -> PriceRange | None:
    if value is None:
        return None
    read = _values(catalogue().price_range, value)
    low, high = read["from"], read["to"]
    for key, end in (("from", low), ("to", high)):
        if end is not None and abs(end) > _MAX_PRICE:
            raise RenderFailed(
                f"`override.priceRange.{key}` is {end:g}, expected {-_MAX_PRICE:g} to {_MAX_PRICE:g}.",
                field="priceRange",
            )
    if low is not None and high is not None and high - low <= _MIN_SPREAD * max(abs(low), abs(high)):
        raise RenderFailed(
            f"`override.priceRange` runs from {low:.12g} to {high:.12g}; expected a larger `to`.",
            field="priceRange",
        )
    return PriceRange(low=low, high=high, margin=read["margin"])


def _study(entry: Mapping[str, Any]) -> StudyRequest:
    return StudyRequest(
        name=entry["name"],
        inputs=entry.get("input") or {},
        overrides=entry.get("override") or {},
        force_overlay=entry.get("forceOverlay"),
    )


def _drawing(entry: Mapping[str, Any]) -> DrawingRequest:
    known, overrides = catalogue().drawings[entry["name"]], entry.get("override") or {}
    return DrawingRequest(
        name=entry["name"],
        inputs=_values(known.inputs, entry.get("input") or {}),
        look=_values(known.overrides, overrides),
        levels=tuple(_values(level, overrides.get(key) or {}) for key, level in known.levels.items()),
        z_order=entry.get("zOrder"),
    )
