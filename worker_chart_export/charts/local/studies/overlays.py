"""Studies drawn over the price: averages, bands, stops, volume and its profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.primitives.colors import (
    BLUE,
    CONTROL,
    FALLING_VOLUME,
    GREEN,
    ORANGE,
    PROFILE_INSIDE,
    PROFILE_OUTSIDE,
    RISING_VOLUME,
    with_opacity,
)
from worker_chart_export.charts.local.studies.indicators import (
    bollinger,
    moving_average,
    parabolic_sar,
    source,
)
from worker_chart_export.charts.local.studies.study import (
    Fill,
    Numbers,
    Place,
    Plot,
    PlotKind,
    ProfileStyle,
    Study,
)
from worker_chart_export.charts.local.studies.volume_profile import volume_profile

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles, Series
    from worker_chart_export.charts.local.input.study_inputs import Inputs
    from worker_chart_export.charts.local.primitives.colors import Color


def _shifted(values: Series, offset: int) -> Series:
    """Return `values` moved right by `offset` bars, or left if it is negative."""
    result = np.full_like(values, np.nan)
    if abs(offset) >= len(values):
        return result
    if offset >= 0:
        result[offset:] = values[: len(values) - offset]
    else:
        result[:offset] = values[-offset:]
    return result


def smoothing_line(values: Series, inputs: Inputs, color: Color = ORANGE) -> tuple[tuple[Plot, ...], str]:
    """Return the smoothing line of a study, and what the study's title adds for it.

    It is drawn only if the template names one of its inputs.
    """
    if not inputs.given & {"smoothingLine", "smoothingLength"}:
        return (), ""
    method, length = inputs.text("smoothingLine"), inputs.whole("smoothingLength")
    line = moving_average(values, length, method)
    return (Plot(key="Smoothed MA", values=line, color=color),), f" {method} {length}"


def _price_study(title: str, *plots: Plot, fills: tuple[Fill, ...] = ()) -> Study:
    return Study(title=title, place=Place.PRICE, numbers=Numbers.PRICE, plots=plots, fills=fills)


def moving_average_study(candles: Candles, inputs: Inputs, *, method: str, title: str) -> Study:
    """Compute `Moving Average` and `Moving Average Exponential`."""
    length, offset, name = inputs.whole("length"), inputs.whole("offset"), inputs.text("source")
    values = _shifted(moving_average(source(candles, name), length, method), offset)
    smoothing, smoothing_title = smoothing_line(values, inputs)
    shift = f" {offset}" if offset else ""
    return _price_study(
        f"{title} {length} {name}{shift}{smoothing_title}",
        Plot(key="Plot", values=values, color=BLUE),
        *smoothing,
    )


def moving_average_weighted(candles: Candles, inputs: Inputs) -> Study:
    """Compute `Moving Average Weighted`: in_0 length, in_1 source, in_2 offset."""
    length, name, offset = inputs.whole("in_0"), inputs.text("in_1"), inputs.whole("in_2")
    values = _shifted(moving_average(source(candles, name), length, "Weighted"), offset)
    shift = f" {offset}" if offset else ""
    return _price_study(f"WMA {length} {name}{shift}", Plot(key="Plot", values=values, color=BLUE))


def moving_average_double(candles: Candles, inputs: Inputs) -> Study:
    """Compute `Moving Average Double`: two averages of the close by one method."""
    first, second, method = inputs.whole("firstPeriods"), inputs.whole("secondPeriods"), inputs.text("method")
    name = "MA Double" if method == "Simple" else f"MA Double {method}"
    return _price_study(
        f"{name} {first} {second}",
        Plot(key="Plot 1", values=moving_average(candles.close, first, method), color=ORANGE),
        Plot(key="Plot 2", values=moving_average(candles.close, second, method), color=BLUE),
    )


def moving_average_cross(candles: Candles, inputs: Inputs) -> Study:
    """Compute `MA Cross`: a short and a long simple average, with a cross where they meet."""
    short_length, long_length = inputs.whole("in_0"), inputs.whole("in_1")
    short = moving_average(candles.close, short_length, "Simple")
    long = moving_average(candles.close, long_length, "Simple")
    above = short > long
    met = np.concatenate(([False], (above[1:] != above[:-1]) & ~np.isnan(short[:-1] + long[:-1])))
    return _price_study(
        f"MA Cross {short_length} {long_length}",
        Plot(key="PlotShort", values=short, color=GREEN),
        Plot(key="PlotLong", values=long, color=ORANGE),
        Plot(key="Crosses", values=np.where(met, short, np.nan), color=BLUE, width=3, kind=PlotKind.CROSSES),
    )


def bollinger_bands(candles: Candles, inputs: Inputs) -> Study:
    """Compute `Bollinger Bands`: in_0 length, in_1 deviations."""
    length, factor = inputs.whole("in_0"), inputs.number("in_1")
    median, upper, lower = bollinger(candles.close, length, factor)
    return _price_study(
        f"BB {length} {factor:g}",
        Plot(key="Median", values=median, color=ORANGE),
        Plot(key="Upper", values=upper, color=BLUE),
        Plot(key="Lower", values=lower, color=BLUE),
        fills=(Fill(key="Plots Background", upper="Upper", lower="Lower", color=with_opacity(BLUE, 0.1)),),
    )


def parabolic_stop(candles: Candles, inputs: Inputs) -> Study:
    """Compute `Parabolic SAR`: in_0 start, in_1 increment, in_2 maximum."""
    start, increment, maximum = (inputs.number(name) for name in ("in_0", "in_1", "in_2"))
    values = parabolic_sar(candles, start=start, increment=increment, maximum=maximum)
    plot = Plot(key="Plot", values=values, color=BLUE, kind=PlotKind.CROSSES)
    return _price_study(f"SAR {start:g} {increment:g} {maximum:g}", plot)


def volume(candles: Candles, inputs: Inputs) -> Study:  # noqa: ARG001  # every study takes both
    """Compute `Volume`: columns at the lower edge of the price pane."""
    rising = candles.close >= candles.open
    plot = Plot(
        key="Volume",
        values=candles.volume,
        color=RISING_VOLUME if rising[-1] else FALLING_VOLUME,
        kind=PlotKind.COLUMNS,
        palette=(FALLING_VOLUME, RISING_VOLUME),
        shades=tuple(rising.astype(int).tolist()),
    )
    return Study(title="Vol", place=Place.FLOOR, numbers=Numbers.COMPACT, plots=(plot,))


def visible_volume_profile(candles: Candles, inputs: Inputs) -> Study:
    """Compute `Volume Profile Visible Range`; `candles` are the bars shown."""
    rows, mode, percent = inputs.whole("rows"), inputs.text("volume"), inputs.whole("vaVolume")
    style = ProfileStyle(
        profile=volume_profile(candles, rows=rows, area_percent=percent),
        mode=mode,
        outside=PROFILE_OUTSIDE,
        inside=PROFILE_INSIDE,
        control=CONTROL,
    )
    title = f"VPVR {rows} {mode} {percent}"
    return Study(title=title, place=Place.PRICE, numbers=Numbers.PRICE, profile=style)
