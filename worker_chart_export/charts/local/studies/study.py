"""A computed study: named plots, levels and fills with values and colours, not yet in pixels.

The keys of plots are Chart-IMG's (`Plot`, `Upper`, `%K`): a template's `override` names them. An override has
an effect if it changes the picture's meaning or colours: `<key>.color`, `.linewidth`, `.visible`, and the
`.value` of a limit. Others are ignored: `.plottype` and `.linestyle`, plots that are not drawn here, and
graphics of a profile other than its colours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.primitives.colors import parse_color
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.local.input.candles import Series
    from worker_chart_export.charts.local.input.options import StudyRequest
    from worker_chart_export.charts.local.primitives.colors import Color
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile


class Place(Enum):
    """Where a study is drawn."""

    PRICE = "over the price, on its scale"
    FLOOR = "over the price, at the lower edge of its pane, on an own scale"
    PANE = "in an own pane below"


class PlotKind(Enum):
    """How a plot is drawn."""

    LINE = "a line, broken where a value is missing"
    CROSSES = "a small cross at each bar"
    COLUMNS = "a column from zero at each bar, coloured by `Plot.shades`"


class Numbers(Enum):
    """How a study's values are written."""

    PRICE = "with the decimals of the price"
    PLAIN = "with two decimals"
    COMPACT = "short, as 3.31M"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plotted series.

    Attributes:
        key: Chart-IMG's name of the plot.
        values: One value per bar.
        color: Colour of the line, the legend value and the axis label.
        width: Line width in pixels.
        kind: Line, crosses or columns.
        palette: The colours that `shades` points into, for columns.
        shades: Index into `palette` per bar, for columns.
    """

    key: str
    values: Series
    color: Color
    width: float = 1.0
    kind: PlotKind = PlotKind.LINE
    palette: tuple[Color, ...] = ()
    shades: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A dashed horizontal line at a fixed value."""

    key: str
    value: float
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A tinted area between two plots or two levels, named by their keys."""

    key: str
    upper: str
    lower: str
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileStyle:
    """A volume profile's rows and how they are drawn.

    Attributes:
        profile: The rows; None when there was no volume.
        mode: `Up/Down`, `Total` or `Delta`.
        outside: Colours of rising and falling volume outside the value area.
        inside: The same within it.
        control: Colour of the line at the point of control.
    """

    profile: VolumeProfile | None
    mode: str
    outside: tuple[Color, Color]
    inside: tuple[Color, Color]
    control: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One computed study."""

    title: str
    place: Place
    numbers: Numbers
    plots: tuple[Plot, ...] = ()
    levels: tuple[Level, ...] = ()
    fills: tuple[Fill, ...] = ()
    profile: ProfileStyle | None = None


def with_overrides(study: Study, request: StudyRequest) -> Study:
    """Apply the template's overrides to a study.

    Raises:
        RenderFailed: An override that has an effect here has a wrong value.
    """
    if not request.overrides:
        return study
    given = _Overrides(request)
    plots = tuple(given.plot(plot) for plot in study.plots if given.visible(plot.key))
    levels = tuple(
        replace(
            level,
            value=given.number(f"{level.key}.value", level.value, low=-1e6, high=1e6),
            color=given.color(f"{level.key}.color", level.color),
        )
        for level in study.levels
        if given.visible(level.key)
    )
    fills = tuple(
        replace(fill, color=given.color(f"{fill.key}.color", fill.color))
        for fill in study.fills
        if all(given.visible(key) for key in (fill.key, fill.upper, fill.lower))
    )
    profile = given.profile(study.profile) if study.profile else None
    return replace(study, plots=plots, levels=levels, fills=fills, profile=profile)


class _Overrides:
    """The overrides of one study, each checked when it is read."""

    def __init__(self, request: StudyRequest) -> None:
        self._study = request.name
        self._values: Mapping[str, Any] = request.overrides

    def plot(self, plot: Plot) -> Plot:
        palette = tuple(self.color(f"{plot.key}.color.{n}", old) for n, old in enumerate(plot.palette))
        color = palette[plot.shades[-1]] if palette else self.color(f"{plot.key}.color", plot.color)
        width = self.number(f"{plot.key}.linewidth", plot.width, low=1, high=10)
        return replace(plot, color=color, width=width, palette=palette)

    def profile(self, style: ProfileStyle) -> ProfileStyle:
        rows = "graphics.hhists.histBars"
        outside, inside = (
            (self.color(f"{rows}{kind}.colors.0", old[0]), self.color(f"{rows}{kind}.colors.1", old[1]))
            for kind, old in (("2", style.outside), ("VA", style.inside))
        )
        control = self.color("graphics.horizlines.pocLines.color", style.control)
        return replace(style, outside=outside, inside=inside, control=control)

    def visible(self, key: str) -> bool:
        value = self._values.get(f"{key}.visible", True)
        if not isinstance(value, bool):
            raise self._wrong(f"{key}.visible", "true or false")
        return value

    def color(self, key: str, old: Color) -> Color:
        if key not in self._values:
            return old
        return parse_color(self._values[key], where=f"Override {key!r} of study {self._study!r}")

    def number(self, key: str, old: float, *, low: float, high: float) -> float:
        value = self._values.get(key, old)
        if type(value) not in {int, float} or not low <= value <= high:
            raise self._wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def _wrong(self, key: str, expected: str) -> RenderFailed:
        value = repr(self._values.get(key))[:60]
        return RenderFailed(
            f"Override {key!r} of study {self._study!r} is {value}, expected {expected}.", study=self._study
        )
