"""What a study is once computed: named plots, levels and fills, ready to be placed and drawn.

It knows values and colours, not pixels. Plot keys are Chart-IMG's (`Plot`, `Upper`, `%K`), so a template's
`override` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Series
    from worker_chart_export.charts.local.primitives.colors import Color
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile


class Place(Enum):
    """Where a study is drawn."""

    PRICE = "over the price, on its scale"
    FLOOR = "over the price, at the foot of its pane, on an own scale"
    PANE = "in an own pane below"


class PlotKind(Enum):
    """How a plot's values become a picture."""

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
