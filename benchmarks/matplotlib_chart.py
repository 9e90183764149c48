"""The chart of `ctpl_price_ma1226_vol_v1` by matplotlib, as like the worker's as may be."""

from __future__ import annotations

import io
import json
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What the worker draws of these candles.
SHOWN = 117
#: Periods and colours of its two averages.
AVERAGES = {12: "#ff6d00", 26: "#2196f3"}
RISING, FALLING = "#089981", "#f23645"
GROUND, GRID, EDGE, GREY, WHITE = "#161a26", "#232731", "#343947", "#b2b5be", "#e8ebf2"
#: 12 pixels at 100 dots an inch, in points.
FONT_SIZE = 8.6
PRICE_STEP = 2.5


class MatplotlibChart:
    """That chart by matplotlib at its best: all bodies, all wicks and all columns as one collection each.

    A figure of its own for every chart, as mplfinance has it, and the fastest deflate.

    Args:
        raw: The candles; they are read once, as the worker's are.

    Raises:
        RuntimeError: matplotlib is not installed.
    """

    def __init__(self, raw: bytes) -> None:
        try:
            from matplotlib.collections import LineCollection, PolyCollection  # noqa: PLC0415 - only this
            from matplotlib.figure import Figure  # noqa: PLC0415 - needs it
        except ImportError as error:
            raise RuntimeError(
                "matplotlib, which the worker is compared with, is missing: pip install matplotlib"
            ) from error
        self._figure, self._lines, self._polygons = Figure, LineCollection, PolyCollection
        bars = json.loads(raw)["data"]
        self._dates = [datetime.fromisoformat(bar["date"]) for bar in bars[-SHOWN:]]
        self._closes = np.array([bar["close"] for bar in bars])
        self._open, self._high, self._low, self._close, self._volume = (
            np.array([bar[name] for bar in bars[-SHOWN:]])
            for name in ("open", "high", "low", "close", "volume")
        )
        self._places = np.arange(SHOWN)

    def __call__(self) -> bytes:
        """A PNG."""
        figure = self._figure(figsize=(8, 6), dpi=100, facecolor=GROUND)
        pane = (0, 26 / 600, 736 / 800, 574 / 600)
        axes = figure.add_axes(pane, facecolor=GROUND)
        axes.set_xlim(-1, SHOWN + 5)
        self._candles(axes)
        averages = {colour: self._average(periods) for periods, colour in AVERAGES.items()}
        for colour, means in averages.items():
            axes.plot(self._places, means, color=colour, linewidth=0.8)
        self._columns(figure.add_axes(pane, sharex=axes))
        self._scales(axes)
        self._legend(axes, averages)
        self._latest(axes, averages)
        png = io.BytesIO()
        figure.savefig(png, format="png", pil_kwargs={"compress_level": 1})
        return png.getvalue()

    def _colours(self, opacity: float = 1.0) -> list[tuple[str, float]]:
        return [(RISING if rising else FALLING, opacity) for rising in self._close >= self._open]

    def _boxes(self, feet: Any, tops: Any) -> Any:
        """The corners of a box for each bar."""
        left, right = self._places - 0.35, self._places + 0.35
        return np.transpose([(left, feet), (left, tops), (right, tops), (right, feet)], (2, 0, 1))

    def _candles(self, axes: Any) -> None:
        colours = self._colours()
        wicks: Any = np.transpose([(self._places, self._low), (self._places, self._high)], (2, 0, 1))
        axes.add_collection(self._lines(wicks, colors=colours, linewidths=0.7), autolim=False)
        bodies = self._boxes(self._open, self._close)
        axes.add_collection(self._polygons(bodies, facecolors=colours, linewidths=0), autolim=False)

    def _average(self, periods: int) -> Any:
        closes = self._closes[-(SHOWN + periods - 1) :]
        return np.convolve(closes, np.full(periods, 1 / periods), "valid")

    def _columns(self, foot: Any) -> None:
        """The volume, in the lowest fifth of the pane."""
        columns = self._boxes(np.zeros(SHOWN), self._volume)
        foot.add_collection(
            self._polygons(columns, facecolors=self._colours(0.5), linewidths=0), autolim=False
        )
        foot.set_ylim(0, 5 * self._volume.max())
        foot.set_axis_off()

    def _scales(self, axes: Any) -> None:
        low, high = self._low.min(), self._high.max()
        bottom, top = low - 0.24 * (high - low), high + 0.16 * (high - low)
        prices = PRICE_STEP * np.arange(np.ceil(bottom / PRICE_STEP), top / PRICE_STEP)
        dates = _date_labels(self._dates)
        axes.set_ylim(bottom, top)
        axes.set_yticks(prices, [f"{price:.2f}" for price in prices])
        axes.set_xticks(list(dates), list(dates.values()))
        axes.yaxis.tick_right()
        axes.tick_params(colors=GREY, labelsize=FONT_SIZE, length=0, pad=7)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["left", "top"]].set_visible(False)
        axes.spines[["right", "bottom"]].set_color(EDGE)

    def _legend(self, axes: Any, averages: Mapping[str, Any]) -> None:
        bar = "  ".join(
            f"{name}{prices[-1]:.2f}"
            for name, prices in zip("OHLC", (self._open, self._high, self._low, self._close), strict=True)
        )
        change = self._close[-1] - self._close[-2]
        description = [
            (8, 12, "IBM · 1D", WHITE),
            (66, 12, f"{bar}  {change:+.2f} ({change / self._close[-2]:+.2%})", self._tint),
            (8, 29, "MA Double 12 26", GREY),
            (8, 46, "Vol", GREY),
            (34, 46, self._latest_volume, self._tint),
        ]
        description += [
            (118 + 46 * place, 29, f"{means[-1]:.2f}", colour)
            for place, (colour, means) in enumerate(averages.items())
        ]
        for left, row, text, colour in description:
            axes.figure.text(left / 800, 1 - row / 600, text, color=colour, fontsize=FONT_SIZE, va="center")

    def _latest(self, axes: Any, averages: Mapping[str, Any]) -> None:
        """The latest values on the price axis, and a line at the price."""
        axes.axhline(self._close[-1], color=self._tint, linewidth=0.7, linestyle=":")
        labels = [(self._close[-1], f"{self._close[-1]:.2f}", self._tint)]
        labels += [(means[-1], f"{means[-1]:.2f}", colour) for colour, means in averages.items()]
        bottom, top = axes.get_ylim()
        row = bottom + (top - bottom) * self._volume[-1] / (5 * self._volume.max())
        labels.append((row, self._latest_volume, self._tint))
        for value, text, colour in labels:
            filled = {"facecolor": colour, "linewidth": 0, "pad": 2.5}
            axes.text(SHOWN + 6.2, value, text, color=WHITE, fontsize=FONT_SIZE, va="center", bbox=filled)

    @property
    def _tint(self) -> str:
        return RISING if self._close[-1] >= self._open[-1] else FALLING

    @property
    def _latest_volume(self) -> str:
        return f"{self._volume[-1] / 1e6:.2f}M"


def _date_labels(dates: Sequence[datetime]) -> dict[int, str]:
    """Where a month begins its name, or the year; half way to the next one the day."""
    begins = [at + 1 for at, (day, after) in enumerate(pairwise(dates)) if day.month != after.month]
    labels = {at: f"{dates[at]:{'%Y' if dates[at].month == 1 else '%b'}}" for at in begins}
    return labels | {(at + after) // 2: str(dates[(at + after) // 2].day) for at, after in pairwise(begins)}
