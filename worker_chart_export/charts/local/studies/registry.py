"""The register of studies: each family's module adds its formulas with `@study`.

A formula takes bars and inputs, and returns its plots by Chart-IMG's keys. Everything else comes from the
documented table: defaults, ranges, colours, plot types, levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.studies.study import Numbers, PlotType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotValues:
    """The values of a plot that has more than one number per bar.

    Attributes:
        values: One value per bar, NaN where there is none.
        shades: For plots with several colours: which of `<plot>.color.<n>` each bar has.
        offset: Bars to move the plot to the right, or to the left if negative.
    """

    values: Series
    shades: NDArray[np.intp] | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A fill between two plots.

    Attributes:
        upper: Key of one plot.
        lower: Key of the other plot.
        colors: The colours where `upper` is above and below `lower`. None for the colour of the table.
    """

    upper: str
    lower: str
    colors: tuple[Color, Color] | None = None


#: The plots of a study by Chart-IMG's keys; a volume profile has the key `graphics`.
Plots: TypeAlias = "Mapping[str, Series | PlotValues | VolumeProfile | None]"
Formula: TypeAlias = "Callable[[Candles, Inputs], Plots]"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """One study that can be drawn.

    Attributes:
        name: Chart-IMG's name.
        title: The short name in the legend.
        formula: Computes the plots.
        numbers: How values are written.
        fills: Fills between plots by Chart-IMG's keys. Fills between levels need no entry.
        levels: Fixed levels that TradingView draws and the table does not have.
        types: Plot types that the table does not have.
        visible_only: Whether it is computed from the bars shown, not from the whole history.
        cumulative: Whether only its shape has a meaning, because it sums from the first bar on.
    """

    name: str
    title: str
    formula: Formula
    numbers: Numbers
    fills: Mapping[str, Band] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    types: Mapping[str, PlotType] = field(default_factory=dict)
    visible_only: bool = False
    cumulative: bool = False


STUDIES: dict[str, StudyKind] = {}


def study(
    name: str,
    *,
    title: str,
    numbers: Numbers | None = None,
    fills: Mapping[str, Band] | None = None,
    levels: Mapping[str, float] | None = None,
    types: Mapping[str, PlotType] | None = None,
    visible_only: bool = False,
    cumulative: bool = False,
) -> Callable[[Formula], Formula]:
    """Add a formula to the register; for the arguments see `StudyKind`.

    By default the values of a study over the price have the decimals of the price, others have two.

    Raises:
        KeyError: The table has no study of that name.
    """
    entry = catalogue().studies[name]

    def register(formula: Formula) -> Formula:
        STUDIES[name] = StudyKind(
            name=name,
            title=title,
            formula=formula,
            numbers=numbers or (Numbers.PLAIN if entry.own_pane else Numbers.PRICE),
            fills=fills or {},
            levels=levels or {},
            types=types or {},
            visible_only=visible_only,
            cumulative=cumulative,
        )
        return formula

    return register
