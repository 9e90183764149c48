"""A computed study: named plots, levels and fills with values and looks, not yet in pixels.

The keys of plots, levels and fills are Chart-IMG's (`Plot`, `Upper`, `%K`, `Hlines Background`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.primitives.dashes import LineStyle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.input.candles import Series
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile


class Place(Enum):
    """Where a study is drawn."""

    PRICE = "over the price, on its scale"
    OVERLAY = "over the price, on a scale of its own"
    FLOOR = "over the price, at the lower edge of its pane, on a scale of its own"
    PANE = "in a pane of its own below"


class PlotType(Enum):
    """How a plot is drawn. The values of the first ten are Chart-IMG's."""

    LINE = "line"
    LINE_WITH_BREAKS = "line_with_breaks"
    STEP_LINE = "step_line"
    STEP_LINE_WITH_BREAKS = "step_line_with_breaks"
    AREA = "area"
    AREA_WITH_BREAKS = "area_with_breaks"
    HISTOGRAM = "histogram"
    COLUMNS = "columns"
    CROSS = "cross"
    CIRCLES = "circles"
    TRIANGLE_UP = "triangle up"
    TRIANGLE_DOWN = "triangle down"


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
        values: One value per bar, NaN where there is none.
        future: Values beyond the newest bar, for a plot that is moved to the right.
        color: Colour of the line, the legend's value and the label on the axis.
        width: Line width in pixels.
        type: How it is drawn.
        palette: The colours that `shades` points into; empty for a plot of one colour.
        shades: Index into `palette` per bar; as long as `values`.
    """

    key: str
    values: Series
    color: Color
    future: Series = field(default_factory=lambda: np.empty(0))
    width: float = 1.0
    type: PlotType = PlotType.LINE
    palette: tuple[Color, ...] = ()
    shades: NDArray[np.intp] | None = None

    @property
    def last(self) -> float:
        """The value of the newest bar; NaN if there is none."""
        return float(self.values[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal line at a fixed value."""

    key: str
    value: float
    color: Color
    width: float = 1.0
    style: LineStyle = LineStyle.DASHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A tinted area between two plots or two levels, named by their keys.

    Attributes:
        key: Chart-IMG's name of the fill.
        upper: Key of one edge.
        lower: Key of the other edge.
        color: Colour where `upper` is above `lower`.
        color_below: Colour where `upper` is below `lower`; None for the same colour.
    """

    key: str
    upper: str
    lower: str
    color: Color
    color_below: Color | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileStyle:
    """A volume profile's rows and how they are drawn.

    Attributes:
        profile: The rows; None when there was no volume.
        mode: `Up/Down`, `Total` or `Delta`.
        outside: Colours of rising and falling volume outside the value area.
        inside: The same within it.
        outside_width: Length of the longest row outside the value area, in percent of the pane's width.
        inside_width: The same within it.
        outside_from_right: Whether rows outside the value area grow from the right edge.
        inside_from_right: The same within it.
        control: The line at the point of control; None if it is hidden.
    """

    profile: VolumeProfile | None
    mode: str
    outside: tuple[Color, Color]
    inside: tuple[Color, Color]
    outside_width: float
    inside_width: float
    outside_from_right: bool
    inside_from_right: bool
    control: Level | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One computed study.

    Attributes:
        name: Chart-IMG's name.
        title: The legend's text: a short name and the inputs.
        inputs: All inputs with the values used.
        place: Where it is drawn.
        numbers: How its values are written.
        plots: The visible plots, in drawing order.
        levels: The visible levels.
        fills: The visible fills.
        profile: A volume profile; None for other studies.
        settled_from: Index of the first bar from which the values no longer depend on the start of the file;
            the number of bars if they always do.
        faint_until: Index of the first bar that is drawn in full strength.
    """

    name: str
    title: str
    inputs: dict[str, int | float | bool | str]
    place: Place
    numbers: Numbers
    plots: tuple[Plot, ...] = ()
    levels: tuple[Level, ...] = ()
    fills: tuple[Fill, ...] = ()
    profile: ProfileStyle | None = None
    settled_from: int = 0
    faint_until: int = 0
