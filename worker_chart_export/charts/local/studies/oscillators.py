"""Studies drawn in a pane of their own: momentum, trend strength, on-balance volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.primitives.colors import (
    BLUE,
    GREY,
    HISTOGRAM,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    with_opacity,
)
from worker_chart_export.charts.local.studies.indicators import (
    adx,
    macd,
    on_balance_volume,
    rsi,
    source,
    stochastic_rsi,
)
from worker_chart_export.charts.local.studies.overlays import smoothing_plots, smoothing_title
from worker_chart_export.charts.local.studies.study import Fill, Level, Numbers, Place, Plot, PlotKind, Study

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs
    from worker_chart_export.charts.local.primitives.colors import Color


def _limits(upper: float, lower: float, tint: Color) -> tuple[tuple[Level, Level], tuple[Fill]]:
    levels = (
        Level(key="UpperLimit", value=upper, color=GREY),
        Level(key="LowerLimit", value=lower, color=GREY),
    )
    fill = Fill(
        key="Hlines Background", upper="UpperLimit", lower="LowerLimit", color=with_opacity(tint, 0.1)
    )
    return levels, (fill,)


def _histogram_shades(values: Series) -> tuple[int, ...]:
    """0 above zero and growing, 1 above and shrinking, 2 below and rising, 3 below and falling."""
    before = np.concatenate((values[:1], values[:-1]))
    growing, positive = np.nan_to_num(values) >= np.nan_to_num(before), np.nan_to_num(values) >= 0
    shades = np.where(positive, np.where(growing, 0, 1), np.where(growing, 2, 3))
    return tuple(shades.tolist())


def macd_study(candles: Candles, inputs: Inputs) -> Study:
    """`MACD`: in_0 fast, in_1 slow, in_2 signal, in_3 source."""
    fast, slow, smooth = (inputs.whole(name) for name in ("in_0", "in_1", "in_2"))
    name = inputs.text("in_3")
    line, signal, histogram = macd(source(candles, name), fast, slow, smooth)
    shades = _histogram_shades(histogram)
    columns = Plot(
        key="Histogram",
        values=histogram,
        color=HISTOGRAM[shades[-1]],
        kind=PlotKind.COLUMNS,
        palette=HISTOGRAM,
        shades=shades,
    )
    return Study(
        title=f"MACD {fast} {slow} {smooth} {name}",
        place=Place.PANE,
        numbers=Numbers.PRICE,
        plots=(
            columns,
            Plot(key="MACD", values=line, color=BLUE),
            Plot(key="Signal", values=signal, color=ORANGE),
        ),
    )


def relative_strength_index(candles: Candles, inputs: Inputs) -> Study:
    """`Relative Strength Index` of the close, with its limits at 70 and 30."""
    length = inputs.whole("length")
    values = rsi(candles.close, length)
    smooth = tuple(
        Plot(key=plot.key, values=plot.values, color=YELLOW) for plot in smoothing_plots(values, inputs)
    )
    levels, fills = _limits(70, 30, PURPLE)
    return Study(
        title=f"RSI {length}{smoothing_title(inputs)}",
        place=Place.PANE,
        numbers=Numbers.PLAIN,
        plots=(Plot(key="Plot", values=values, color=PURPLE), *smooth),
        levels=levels,
        fills=fills,
    )


def stochastic_rsi_study(candles: Candles, inputs: Inputs) -> Study:
    """`Stochastic RSI`: in_0 RSI, in_1 range, in_2 %K, in_3 %D; limits at 80 and 20."""
    first, second, third, fourth = (inputs.whole(f"in_{place}") for place in range(4))
    k, d = stochastic_rsi(candles.close, (first, second, third, fourth))
    levels, fills = _limits(80, 20, BLUE)
    return Study(
        title=f"Stoch RSI {first} {second} {third} {fourth}",
        place=Place.PANE,
        numbers=Numbers.PLAIN,
        plots=(Plot(key="%K", values=k, color=BLUE), Plot(key="%D", values=d, color=ORANGE)),
        levels=levels,
        fills=fills,
    )


def average_directional_index(candles: Candles, inputs: Inputs) -> Study:
    """`Average Directional Index`: in_0 smoothing, in_1 length of the directional movement."""
    smoothing, length = inputs.whole("in_0"), inputs.whole("in_1")
    plot = Plot(key="ADX", values=adx(candles, smoothing, length), color=RED)
    return Study(title=f"ADX {smoothing} {length}", place=Place.PANE, numbers=Numbers.PLAIN, plots=(plot,))


def on_balance_volume_study(candles: Candles, inputs: Inputs) -> Study:
    """`On Balance Volume`; its height depends on where the history begins."""
    values = on_balance_volume(candles)
    plots = (Plot(key="Plot", values=values, color=BLUE), *smoothing_plots(values, inputs))
    title = f"OBV{smoothing_title(inputs)}"
    return Study(title=title, place=Place.PANE, numbers=Numbers.COMPACT, plots=plots)
