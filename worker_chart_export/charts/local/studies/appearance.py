"""The looks of a study: the table's defaults, changed by the template's overrides.

A key of the table is an element's name, a dot, and an attribute: `Plots Background.color`, `Plot.color.1`. An
element with a `value` is a level, one whose name ends in `Background` is a fill, `graphics` is a profile, and
all others are plots.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from worker_chart_export.charts.local.primitives.colors import GREY, with_opacity
from worker_chart_export.charts.local.primitives.dashes import LineStyle
from worker_chart_export.charts.local.studies.registry import PlotValues
from worker_chart_export.charts.local.studies.series import shift
from worker_chart_export.charts.local.studies.study import (
    Fill,
    Level,
    Plot,
    PlotType,
    ProfileStyle,
)
from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.catalogue import Color, StudyEntry
    from worker_chart_export.charts.local.studies.registry import Band, Plots, StudyKind

_GRAPHICS = "graphics"
_LIMITS = ("UpperLimit", "LowerLimit")
_OPAQUE, _TINT = 255, 0.1
#: Attributes that hide an element when they are false.
_SHOWN = ("visible", "display")


class Looks:
    """The attributes of a study's elements by element and attribute, e.g. `["Plot"]["color"]`.

    Args:
        entry: The study in the table.
        given: The template's overrides; `read_options` has checked them.
    """

    def __init__(self, entry: StudyEntry, given: Mapping[str, Any]) -> None:
        self._elements: dict[str, dict[str, Any]] = defaultdict(dict)
        for key, parameter in entry.overrides.items():
            element, attribute = _split(key)
            self._elements[element][attribute] = parameter.read(given.get(key, parameter.default))

    def plots(self, computed: Plots, kind: StudyKind) -> tuple[Plot, ...]:
        """Return the visible plots in the table's order."""
        order = [key for key in self._elements if key in computed]
        order += [key for key in computed if key not in self._elements]
        plots = []
        for key in order:
            values = computed[key]
            if values is None or isinstance(values, VolumeProfile) or not self._shown(key):
                continue
            whole = values if isinstance(values, PlotValues) else PlotValues(values=values)
            plots.append(_plot(key, whole, self._elements.get(key, {}), kind.types.get(key)))
        return tuple(plots)

    def levels(self, kind: StudyKind) -> tuple[Level, ...]:
        """Return the visible levels: the table's, then the study's own."""
        levels = [
            Level(
                key=key,
                value=float(look["value"]),
                color=look["color"],
                width=look["linewidth"],
                style=LineStyle(look["linestyle"]),
            )
            for key, look in self._elements.items()
            if "value" in look and self._shown(key)
        ]
        levels += [Level(key=key, value=value, color=GREY) for key, value in kind.levels.items()]
        return tuple(levels)

    def fills(self, kind: StudyKind) -> tuple[Fill, ...]:
        """Return the visible fills between plots, and between the upper and the lower limit."""
        fills = [
            self._fill(key, band)
            for key, band in kind.fills.items()
            if all(self._shown(element) for element in (key, band.upper, band.lower))
        ]
        key = "Hlines Background"
        if key in self._elements and all(self._shown(element) for element in (key, *_LIMITS)):
            upper, lower = _LIMITS
            color = _tint(self._elements[key]["color"])
            fills.append(Fill(key=key, upper=upper, lower=lower, color=color))
        return tuple(fills)

    def profile(self, profile: VolumeProfile | None, mode: str) -> ProfileStyle:
        """Return a volume profile with its looks."""
        look = self._elements[_GRAPHICS]
        rows, line = "hhists.histBars", "horizlines.pocLines"
        control = None
        if look[f"{line}.visible"]:
            control = Level(
                key=f"{_GRAPHICS}.{line}",
                value=profile.control_price if profile else float("nan"),
                color=look[f"{line}.color"],
                width=look[f"{line}.width"],
                style=LineStyle(look[f"{line}.style"]),
            )
        return ProfileStyle(
            profile=profile,
            mode=mode,
            outside=(look[f"{rows}2.colors.0"], look[f"{rows}2.colors.1"]),
            inside=(look[f"{rows}VA.colors.0"], look[f"{rows}VA.colors.1"]),
            outside_width=look[f"{rows}2.percentWidth"],
            inside_width=look[f"{rows}VA.percentWidth"],
            outside_from_right=look[f"{rows}2.direction"] == "right_to_left",
            inside_from_right=look[f"{rows}VA.direction"] == "right_to_left",
            control=control,
        )

    def _fill(self, key: str, band: Band) -> Fill:
        look = self._elements.get(key, {})
        if band.colors is None:
            return Fill(key=key, upper=band.upper, lower=band.lower, color=_tint(look["color"]))
        opacity = 1 - look.get("transparency", 0) / 100
        above, below = (with_opacity(color, opacity) for color in band.colors)
        return Fill(key=key, upper=band.upper, lower=band.lower, color=above, color_below=below)

    def _shown(self, element: str) -> bool:
        look = self._elements.get(element, {})
        return all(look.get(attribute, True) for attribute in _SHOWN)


def _tint(color: Color) -> Color:
    """Return the colour of a fill. On TradingView a colour without opacity of its own is a light tint."""
    return color if color[3] < _OPAQUE else with_opacity(color, _TINT)


def _split(key: str) -> tuple[str, str]:
    """Split a key of the table into element and attribute."""
    if key.startswith(f"{_GRAPHICS}."):
        return _GRAPHICS, key.removeprefix(f"{_GRAPHICS}.")
    element, attribute = key.rsplit(".", 1)
    if attribute.isdecimal():
        element, attribute = element.rsplit(".", 1)[0], key.removeprefix(element.rsplit(".", 1)[0] + ".")
    return element, attribute


def _plot(key: str, whole: PlotValues, look: Mapping[str, Any], fixed: PlotType | None) -> Plot:
    """Join the values of a plot with its looks."""
    values, shades, offset = whole.values, whole.shades, whole.offset
    palette = tuple(look[f"color.{n}"] for n in range(len(look)) if f"color.{n}" in look)
    color = look.get("color", GREY)
    if palette and shades is not None:
        color = palette[int(shades[-1])]
    return Plot(
        key=key,
        values=values if offset == 0 else shift(values, offset),
        future=values[-offset:] if offset > 0 else np.empty(0),
        color=color,
        width=look.get("linewidth", 1 if fixed is None else 2),
        type=fixed or PlotType(look.get("plottype", "line")),
        palette=palette,
        shades=shades,
    )
