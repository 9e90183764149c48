"""Numbers as text: prices with the decimals they need, volumes short, a real minus sign."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.studies.study import Numbers

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Series
    from worker_chart_export.charts.local.layout.scale import Scale

MINUS = "\N{MINUS SIGN}"
NOT_AVAILABLE = "n/a"
_MAX_DECIMALS = 16
_SIGNIFICANT = 6
#: Two decimals would hide a volume below this.
_SMALL = 0.01
_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def price_decimals(closes: Series) -> int:
    """Return the decimals that most of the last closes need.

    The result is at least 2. It is at most the number of decimals in 6 significant digits.
    """
    largest = float(np.abs(closes).max())
    high = min(_MAX_DECIMALS, max(2, _SIGNIFICANT - 1 - math.floor(math.log10(largest))))
    needed = sorted(len(f"{close:.{high}f}".rstrip("0").partition(".")[2]) for close in closes[-50:].tolist())
    return max(2, needed[len(needed) // 2])


def fixed(value: float, decimals: int) -> str:
    """Write `1,234.50`. Minus zero becomes zero, and NaN becomes `n/a`."""
    if math.isnan(value):
        return NOT_AVAILABLE
    text = f"{value:,.{decimals}f}"
    digits = text.lstrip("-")
    negative = text.startswith("-") and any(character in "123456789" for character in digits)
    return MINUS + digits if negative else digits


def signed(value: float, decimals: int) -> str:
    """Write as `fixed`, with a plus sign before zero and positive numbers."""
    text = fixed(value, decimals)
    return text if text.startswith(MINUS) or text == NOT_AVAILABLE else "+" + text


def compact(value: float, decimals: int = 2) -> str:
    """Write `3.31M` or `850.20K`; below a thousand without trailing zeros, `12` or `0.5`."""
    if math.isnan(value):
        return NOT_AVAILABLE
    size, suffix = _suffix(value)
    return fixed(value / size, decimals) + suffix if suffix else _trimmed(fixed(value, decimals))


def _suffix(value: float) -> tuple[float, str]:
    # 999,999 is 1M, not 1000K.
    return next(((size, text) for size, text in _SUFFIXES if abs(value) >= size * 0.999995), (1.0, ""))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the values of one scale.

    Attributes:
        numbers: The kind of numbers.
        decimals: Decimals; without effect on compact numbers.
        factor: What a value is multiplied with before it is written.
        shift: What is added then.
        suffix: Text after each number.
    """

    numbers: Numbers
    decimals: int = 2
    factor: float = 1.0
    shift: float = 0.0
    suffix: str = ""

    def converted(self, scale: Scale) -> Scale:
        """Return the scale of the numbers as they are written."""
        if self.factor == 1 and self.shift == 0:
            return scale
        return replace(
            scale, low=scale.low * self.factor + self.shift, high=scale.high * self.factor + self.shift
        )

    @property
    def unit(self) -> float:
        """The smallest difference of two written values; 0 if there is none."""
        return 0.0 if self.numbers is Numbers.COMPACT else 10.0**-self.decimals

    def value(self, value: float) -> str:
        """Write a value in a legend or a label."""
        if self.numbers is Numbers.COMPACT:
            return compact(value, 2 if abs(value) >= _SMALL else _SIGNIFICANT)
        return fixed(value * self.factor + self.shift, self.decimals) + self.suffix

    def tick(self, value: float, step: float) -> str:
        """Write a converted value on an axis whose ticks are `step` apart."""
        if self.numbers is not Numbers.COMPACT:
            return fixed(value, self.decimals) + self.suffix
        size, suffix = _suffix(value)
        return (_trimmed(fixed(value / size, _decimals_of(step / size))) if value else "0") + suffix


def _decimals_of(step: float) -> int:
    """Return the decimals in which multiples of a step are written exactly: 2 for 0.25."""
    lowest = max(0, -math.floor(math.log10(step) + 1e-9))
    exact = (
        n for n in range(lowest, lowest + 3) if abs(step * 10**n - round(step * 10**n)) < 1e-6 * step * 10**n
    )
    return min(_MAX_DECIMALS, next(exact, lowest))


def writer_for(numbers: Numbers, price: int, spread: float) -> Writer:
    """Return the writer of a scale with range `spread` in a chart whose prices have `price` decimals.

    A study's own pane may have a far smaller range than the price. Then it gets more decimals.
    """
    low = price if numbers is Numbers.PRICE else 2
    needed = math.ceil(2 - math.log10(spread)) if spread > 0 else low
    return Writer(numbers=numbers, decimals=min(_MAX_DECIMALS + 3, max(low, needed)))
