"""A study's `override`: colours, line widths, visibility and limit values of its plots.

What changes the meaning of the picture or its colours is honoured: `<key>.color`, `.linewidth`, `.visible`,
and `.value` of a limit. Keys that only concern how a line is stroked (`.plottype`, `.linestyle`), plots that
are not drawn here, and graphics of a profile other than its colours are cosmetic, and left as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.primitives.colors import parse_color
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.local.input.options import StudyRequest
    from worker_chart_export.charts.local.primitives.colors import Color
    from worker_chart_export.charts.local.studies.study import Fill, Level, Plot, ProfileStyle, Study

_HISTOGRAMS = "graphics.hhists.histBars"


def with_overrides(study: Study, request: StudyRequest) -> Study:
    """The study with the template's overrides.

    Raises:
        RenderFailed: An override that would be honoured has an unusable value.
    """
    if not request.overrides:
        return study
    look = _Look(request)
    return replace(
        study,
        plots=tuple(look.plot(plot) for plot in study.plots if look.visible(plot.key)),
        levels=tuple(look.level(level) for level in study.levels if look.visible(level.key)),
        fills=tuple(look.fill(fill) for fill in study.fills if look.fill_visible(fill)),
        profile=look.profile(study.profile) if study.profile else None,
    )


class _Look:
    """The overrides of one study, read key by key."""

    def __init__(self, request: StudyRequest) -> None:
        self._study = request.name
        self._overrides: Mapping[str, Any] = request.overrides

    def plot(self, plot: Plot) -> Plot:
        palette = tuple(self._color(f"{plot.key}.color.{n}", old) for n, old in enumerate(plot.palette))
        color = palette[plot.shades[-1]] if palette else self._color(f"{plot.key}.color", plot.color)
        width = self._number(f"{plot.key}.linewidth", plot.width, low=1, high=10)
        return replace(plot, color=color, width=width, palette=palette)

    def level(self, level: Level) -> Level:
        value = self._number(f"{level.key}.value", level.value, low=-1e6, high=1e6)
        return replace(level, value=value, color=self._color(f"{level.key}.color", level.color))

    def fill(self, fill: Fill) -> Fill:
        return replace(fill, color=self._color(f"{fill.key}.color", fill.color))

    def fill_visible(self, fill: Fill) -> bool:
        return all(self.visible(key) for key in (fill.key, fill.upper, fill.lower))

    def profile(self, style: ProfileStyle) -> ProfileStyle:
        return replace(
            style,
            outside=self._pair(f"{_HISTOGRAMS}2", style.outside),
            inside=self._pair(f"{_HISTOGRAMS}VA", style.inside),
            control=self._color("graphics.horizlines.pocLines.color", style.control),
        )

    def visible(self, key: str) -> bool:
        value = self._overrides.get(f"{key}.visible", True)
        if not isinstance(value, bool):
            raise self._refused(f"{key}.visible", "true or false")
        return value

    def _pair(self, key: str, old: tuple[Color, Color]) -> tuple[Color, Color]:
        return self._color(f"{key}.colors.0", old[0]), self._color(f"{key}.colors.1", old[1])

    def _color(self, key: str, old: Color) -> Color:
        if key not in self._overrides:
            return old
        return parse_color(self._overrides[key], where=f"Override {key!r} of study {self._study!r}")

    def _number(self, key: str, old: float, *, low: float, high: float) -> float:
        value = self._overrides.get(key, old)
        if type(value) not in {int, float} or not low <= value <= high:
            raise self._refused(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def _refused(self, key: str, expected: str) -> RenderFailed:
        found = repr(self._overrides.get(key))[:60]
        return RenderFailed(
            f"Override {key!r} of study {self._study!r} is {found}, expected {expected}.", study=self._study
        )
