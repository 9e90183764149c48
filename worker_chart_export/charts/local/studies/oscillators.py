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
from worker_chart_export.charts.local.studies.overlays import smoothing_line
from worker_chart_export.charts.local.studies.study import Fill, Level, Numbers, Place, Plot, PlotKind, Study

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
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


def macd_study(candles: Candles, inputs: Inputs) -> Study:
    """Compute `MACD`: in_0 fast, in_1 slow, in_2 signal, in_3 source.

    The histogram's colours: 0 above zero and growing, 1 above and shrinking, 2 below and rising, 3 below and
    falling.
    """
    fast, slow, smooth = (inputs.whole(name) for name in ("in_0", "in_1", "in_2"))
    name = inputs.text("in_3")
    line, signal, histogram = macd(source(candles, name), fast, slow, smooth)
    values = np.nan_to_num(histogram)
    rising = np.diff(values, prepend=values[:1]) >= 0
    shades = np.where(values >= 0, np.where(rising, 0, 1), np.where(rising, 2, 3)).tolist()
    columns = Plot(
        key="Histogram",
        values=histogram,
        color=HISTOGRAM[shades[-1]],
        kind=PlotKind.COLUMNS,
        palette=HISTOGRAM,
        shades=tuple(shades),
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
    """Compute `Relative Strength Index` of the close, with its limits at 70 and 30."""
    length = inputs.whole("length")
    values = rsi(candles.close, length)
    smoothing, smoothing_title = smoothing_line(values, inputs, YELLOW)
    levels, fills = _limits(70, 30, PURPLE)
    return Study(
        title=f"RSI {length}{smoothing_title}",
        place=Place.PANE,
        numbers=Numbers.PLAIN,
        plots=(Plot(key="Plot", values=values, color=PURPLE), *smoothing),
        levels=levels,
        fills=fills,
    )


def stochastic_rsi_study(candles: Candles, inputs: Inputs) -> Study:
    """Compute `Stochastic RSI`: in_0 RSI, in_1 range, in_2 %K, in_3 %D; limits at 80 and 20."""
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
    """Compute `Average Directional Index`: in_0 smoothing, in_1 length of the directional movement."""
    smoothing, length = inputs.whole("in_0"), inputs.whole("in_1")
    plot = Plot(key="ADX", values=adx(candles, smoothing, length), color=RED)
    return Study(title=f"ADX {smoothing} {length}", place=Place.PANE, numbers=Numbers.PLAIN, plots=(plot,))


def on_balance_volume_study(candles: Candles, inputs: Inputs) -> Study:
    """Compute `On Balance Volume`; its height depends on where the history begins."""
    values = on_balance_volume(candles)
    smoothing, smoothing_title = smoothing_line(values, inputs)
    return Study(
        title=f"OBV{smoothing_title}",
        place=Place.PANE,
        numbers=Numbers.COMPACT,
        plots=(Plot(key="Plot", values=values, color=BLUE), *smoothing),
    )
