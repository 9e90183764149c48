"""The chart-wide `override` of a request body: price range, pane height and what to show.

Honoured: the fields below. Refused, because the picture would say something else: a hidden main pane and
inverted scales. Everything else in `override` is about looks only and is left aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_RANGE_MARGIN = 0.0025
_MARGINS = (0.001, 0.1)
_HEIGHTS = (100, 1800)
_REFUSED = {"showMainPane": False, "showInvertScale": True, "showInvertScaleStudies": True}


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
    margin: float = _DEFAULT_RANGE_MARGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleParts:
    """Which parts of the chart are drawn; all are, unless the template says otherwise."""

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
    """The chart-wide overrides that are honoured."""

    visible: VisibleParts
    price_range: PriceRange | None = None
    main_pane_height: int | None = None


def read_overrides(value: Any) -> ChartOverrides:
    """Check the `override` object of a request body.

    Raises:
        RenderFailed: A field is of the wrong type, out of range, or refused.
    """
    given = {} if value is None else value
    if not isinstance(given, dict):
        raise RenderFailed(f"`override` is {given!r:.60}, expected an object.", field="override")
    for key, refused in _REFUSED.items():
        if given.get(key) is refused:
            raise RenderFailed(f"`override.{key}` {str(refused).lower()} can't be drawn here.", field=key)
    visible = {part.name: _flag(given, part.metadata["key"]) for part in fields(VisibleParts)}
    return ChartOverrides(
        visible=VisibleParts(**visible),
        price_range=_price_range(given),
        main_pane_height=_main_pane_height(given),
    )


def _flag(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key, True)
    if not isinstance(value, bool):
        raise RenderFailed(f"`override.{key}` is {value!r:.60}, expected true or false.", field=key)
    return value


def _price_range(given: Mapping[str, Any]) -> PriceRange | None:
    value = given.get("priceRange")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RenderFailed(f"`override.priceRange` is {value!r:.60}, expected an object.", field="priceRange")
    low, high = _price(value, "from"), _price(value, "to")
    if low is not None and high is not None and low >= high:
        raise RenderFailed(f"`override.priceRange` runs from {low:g} to {high:g}.", field="priceRange")
    margin = value.get("margin", _DEFAULT_RANGE_MARGIN)
    if type(margin) not in {int, float} or not _MARGINS[0] <= margin <= _MARGINS[1]:
        raise RenderFailed(f"`override.priceRange.margin` is {margin!r:.60}, expected 0.001 to 0.1.")
    return PriceRange(low=low, high=high, margin=float(margin))


def _price(value: Mapping[str, Any], key: str) -> float | None:
    price = value.get(key)
    if price is None:
        return None
    if type(price) not in {int, float} or not 0 < price < math.inf:
        raise RenderFailed(f"`override.priceRange.{key}` is {price!r:.60}, expected a price above zero.")
    return float(price)


def _main_pane_height(given: Mapping[str, Any]) -> int | None:
    value = given.get("mainPaneHeight")
    if value is None:
        return None
    if type(value) is not int or not _HEIGHTS[0] <= value <= _HEIGHTS[1]:
        raise RenderFailed(f"`override.mainPaneHeight` is {value!r:.60}, expected 100 to 1800 pixels.")
    return value
