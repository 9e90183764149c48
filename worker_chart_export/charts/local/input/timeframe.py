"""Time frames as the different writers spell them, and what two of them have in common.

The run says `1d`, Chart-IMG `1D`, a candle file `15`, a template `15m`. `M` is a month and `m` a minute, so
case is never changed for a comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATTERN = re.compile(r"(\d{1,4})([mhHdDwWMyY]?)")
_MINUTES = {"m": 1, "": 1, "h": 60, "H": 60}
_UNITS = {"d": "D", "D": "D", "w": "W", "W": "W", "M": "M", "y": "Y", "Y": "Y"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeframe:
    """The length of one bar.

    Attributes:
        count: How many units.
        unit: `m` minutes, `D` days, `W` weeks, `M` months, `Y` years.
    """

    count: int
    unit: str

    @property
    def is_intraday(self) -> bool:
        """Whether bars have a time of day."""
        return self.unit == "m"

    @property
    def label(self) -> str:
        """As a legend shows it: `1D`, `4h`, `15m`."""
        if self.is_intraday and self.count % 60 == 0:
            return f"{self.count // 60}h"
        return f"{self.count}{self.unit}"


def parse_timeframe(text: str) -> Timeframe | None:
    """Read `1d`, `1D`, `4h`, `15`, `15m`, `1M` ...; None if it is none of these."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        return None
    count, unit = int(match[1]), match[2]
    if unit in _MINUTES:
        return Timeframe(count=count * _MINUTES[unit], unit="m")
    return Timeframe(count=count, unit=_UNITS[unit])


def same_timeframe(one: str, other: str) -> bool:
    """Whether both texts mean the same bar length."""
    parsed = parse_timeframe(one)
    return one == other if parsed is None else parsed == parse_timeframe(other)
