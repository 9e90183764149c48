"""The bars that a template asks for: a range by name or by dates, and shifts."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, timedelta
from typing import TYPE_CHECKING

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from worker_chart_export.charts.local.input.candles import Candles
    from worker_chart_export.charts.local.input.options import ChartOptions

_MONTHS = {"1M": 1, "3M": 3, "6M": 6, "1Y": 12, "5Y": 60}
_DAYS = {"1D": 1, "5D": 5}
_TO_DATE = ("DTD", "WTD", "MTD", "YTD")
NAMED_RANGES = ("ALL", *_DAYS, *_MONTHS, *_TO_DATE)


def asked_bars(candles: Candles, options: ChartOptions) -> tuple[Candles, int | None]:
    """Return the history up to the newest bar shown, and how many bars are shown.

    The number is None if the template names no range: then the width decides.

    Raises:
        RenderFailed: No bar is left.
    """
    end = len(candles)
    count: int | None = None
    if isinstance(options.when, tuple):
        begin, last = (candles.day_of(end) for end in options.when)
        shown = [n for n, when in enumerate(candles.dates) if begin <= when <= last]
        if not shown:
            raise RenderFailed("`range` holds none of the candles.", field="range")
        end, count = shown[-1] + 1, len(shown)
    elif options.when is not None:
        count = _named(candles, options.when, options)
    end -= options.shift_left
    if end <= 0:
        raise RenderFailed(
            f"`shiftLeft` {options.shift_left} is more than the {len(candles)} candles.", field="shiftLeft"
        )
    return candles.until(end), None if count is None else min(count, end)


def _named(candles: Candles, name: str, options: ChartOptions) -> int:
    """Return how many bars a named range has, counted back from the newest."""
    zone = options.zone if candles.timeframe.is_intraday else None
    days = [when.astimezone(zone).date() if zone else when.date() for when in candles.dates]
    last = days[-1]
    if name == "ALL":
        return len(candles)
    if name in _DAYS:
        first = sorted(set(days))[-_DAYS[name] :][0]
    elif name in _MONTHS:
        first = _months_before(last, _MONTHS[name])
    else:
        first = {
            "DTD": last,
            "WTD": last - timedelta(days=last.weekday()),
            "MTD": last.replace(day=1),
            "YTD": last.replace(month=1, day=1),
        }[name]
    # A bar of a week or a month belongs to a range that begins within it.
    return max(sum(day >= first for day in days), 1)


def _months_before(day: date, months: int) -> date:
    """Return the day so many months earlier, or the last one of a shorter month."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
