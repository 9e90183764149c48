"""The scale between values and pixel rows, and the round values on an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Series
    from worker_chart_export.charts.local.primitives.marks import Box

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
#: A spread below this part of the value is binary rounding: all prices are equal.
FLAT = 1e-9
_ROUNDING = 1e-6
#: Smallest part of a pane's height for its values, however long the legend is.
_MIN_PART = 0.25
#: Rows so far outside the picture need not be exact, and aggdraw's fixed-point numbers would overflow.
_FAR = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A value axis.

    Attributes:
        low: Value at pixel row `bottom`; on a logarithmic scale above zero.
        high: Value at pixel row `top`.
        top: Pixel row of the highest value.
        bottom: Pixel row of the lowest value; above `top` on an inverted scale.
        logarithmic: Whether equal distances mean equal ratios.
    """

    low: float
    high: float
    top: float
    bottom: float
    logarithmic: bool = False

    @property
    def inverted(self) -> bool:
        """Whether low values are at the top."""
        return self.bottom < self.top

    def upside_down(self) -> Scale:
        """Return the scale with low values at the top."""
        return replace(self, top=self.bottom, bottom=self.top)

    def rows(self, values: Series) -> Series:
        """Return the pixel row of each value; NaN for NaN, and for negative values on a logarithmic scale."""
        with np.errstate(divide="ignore", invalid="ignore"):
            measured = np.log(values) if self.logarithmic else values
        low, high = self._ends()
        rows = self.bottom - (measured - low) / (high - low) * (self.bottom - self.top)
        return np.clip(rows, -_FAR, 2 * _FAR)

    def row(self, value: float) -> float:
        """Return the pixel row of one value."""
        if self.logarithmic:
            if value <= 0:
                return math.nan
            value = math.log(value)
        low, high = self._ends()
        row = self.bottom - (value - low) / (high - low) * (self.bottom - self.top)
        return min(max(row, -_FAR), 2 * _FAR) if not math.isnan(row) else row

    def value(self, row: float) -> float:
        """Return the value at a pixel row."""
        low, high = self._ends()
        measured = low + (self.bottom - row) / (self.bottom - self.top) * (high - low)
        return math.exp(measured) if self.logarithmic else measured

    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)


def span(arrays: list[Series], *, positive: bool = False, noise: float = 0.0) -> tuple[float, float]:
    """Return the lowest and the highest number in `arrays`, 0 and 1 if there is none.

    Equal numbers get some room around them.

    Args:
        arrays: The numbers; NaN is ignored.
        positive: Whether to ignore zero and negative numbers.
        noise: Numbers with at most this spread count as equal.
    """
    numbers = np.concatenate([array[np.isfinite(array)] for array in arrays]) if arrays else np.empty(0)
    if positive:
        numbers = numbers[numbers > 0]
    if not numbers.size:
        return (0.1, 1.0) if positive else (0.0, 1.0)
    low, high = float(numbers.min()), float(numbers.max())
    size = max(abs(low), abs(high))
    if high - low > max(size * FLAT, noise):
        return low, high
    room = max(size * 0.005, noise / FLAT * 0.005) or 1.0
    return low - room, high + room


def fitted(ends: tuple[float, float], box: Box, margins: tuple[float, float], *, logarithmic: bool) -> Scale:
    """Make a scale on which `ends` keep `margins` (pixels above and below) from the edges of `box`.

    Margins shrink, the lower one first, if they leave the values less than a quarter of the height.
    """
    free = (1 - _MIN_PART) * (box[3] - box[1])
    above = min(margins[0], free)
    below = min(margins[1], free - above)
    return Scale(
        low=ends[0],
        high=ends[1],
        top=box[1] + above,
        bottom=box[3] - 1 - below,
        logarithmic=logarithmic,
    )


def ticks(scale: Scale, box: Box, *, gap: float, unit: float) -> tuple[list[float], float]:
    """Choose round values inside `box`, at least `gap` pixels apart and multiples of `unit`.

    Returns:
        The values from low to high, and the smallest step between two of them.
    """
    # Values grow upwards, or downwards on an inverted scale.
    start, stop, up = (box[1], box[3], gap) if scale.inverted else (box[3], box[1], -gap)
    low, end = scale.value(start), scale.value(stop)
    distance = scale.value(start + up) - low
    values: list[float] = []
    smallest = math.inf
    while True:
        step = round_step(distance, unit)
        value = math.ceil(low / step - _ROUNDING) * step
        if scale.logarithmic and value <= 0:
            value = step
        if value >= end or (values and value <= values[-1]):
            return values, smallest
        values.append(value)
        smallest = min(smallest, step)
        low = scale.value(scale.row(value) + up)
        distance = low - value


def round_step(low: float, unit: float) -> float:
    """Return the smallest step that is at least `low` and a multiple of `unit`.

    Steps are 1, 2, 2.5 or 5 times a power of ten.
    """
    low = max(low, unit)
    power = 10.0 ** math.floor(math.log10(low))
    for factor in _STEPS:
        step = factor * power
        whole = not unit or abs(step / unit - round(step / unit)) < _ROUNDING
        if step >= low * (1 - 1e-9) and whole:
            return step
    return 10 * power
