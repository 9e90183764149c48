"""Make longer bars of shorter ones, and leave out bars outside regular hours."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from worker_chart_export.errors import OhlcvUnavailable

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import tzinfo

    from worker_chart_export.charts.local.input.candles import Candles, Timeframe

#: Regular hours of the stock exchanges in New York, and the hours of trade before and after them.
_OPEN, _CLOSE = time(9, 30), time(16)
_FIRST, _LAST = time(4), time(20)


def resampled(candles: Candles, target: Timeframe, zone: tzinfo) -> Candles:
    """Return bars of the timeframe `target`, each made of the shorter bars in it.

    Bars of minutes and hours begin at the time of day at which most days begin. Weeks begin on Monday.
    Months, quarters, halves and years are those of the calendar. A longer bar has the date of its first bar.

    Args:
        candles: The bars of the file.
        target: The timeframe to draw.
        zone: Time zone that decides the day of bars shorter than a day.

    Raises:
        OhlcvUnavailable: The bars are longer than `target`, or it is no multiple of theirs.
    """
    own = candles.timeframe
    if own == target:
        return candles
    minutes, wanted = own.minutes, target.minutes
    if wanted < minutes or (target.is_intraday and wanted % minutes):
        raise OhlcvUnavailable(
            f"The candles are of {own.label!r}; bars of {target.label!r} can't be made of them.",
            timeframe=target.label,
        )
    groups = _groups(candles, target, zone)
    starts = np.flatnonzero([True, *(a != b for a, b in zip(groups[1:], groups, strict=False))])
    return replace(
        candles,
        dates=tuple(candles.dates[start] for start in starts.tolist()),
        open=candles.open[starts],
        high=np.maximum.reduceat(candles.high, starts),
        low=np.minimum.reduceat(candles.low, starts),
        close=candles.close[np.append(starts[1:], len(candles)) - 1],
        volume=np.add.reduceat(candles.volume, starts),
        timeframe=target,
    )


def _groups(candles: Candles, target: Timeframe, zone: tzinfo) -> list[Hashable]:
    """Return for each bar the longer bar that it belongs to."""
    own_days = not candles.timeframe.is_intraday
    local = [date if own_days else date.astimezone(zone) for date in candles.dates]
    if target.is_intraday:
        begin = _usual_begin(local)
        return [_slot(date, begin, target.count) for date in local]
    if target.unit == "D":
        numbers = {day: number for number, day in enumerate(sorted({date.date() for date in local}))}
        return [numbers[date.date()] // target.count for date in local]
    if target.unit == "W":
        weeks = [(date.date() - timedelta(days=date.weekday())).toordinal() // 7 for date in local]
        return [week // target.count for week in weeks]
    months = target.count * (12 if target.unit == "Y" else 1)
    return [(date.year * 12 + date.month - 1) // months for date in local]


def _usual_begin(local: list[datetime]) -> int:
    """Return the minute of the day at which most days begin."""
    first: dict[object, int] = {}
    for date in local:
        first.setdefault(date.date(), date.hour * 60 + date.minute)
    return Counter(first.values()).most_common(1)[0][0]


def _slot(date: datetime, begin: int, minutes: int) -> tuple[object, int]:
    return date.date(), (date.hour * 60 + date.minute - begin) // minutes


def regular_hours(candles: Candles) -> Candles:
    """Return the bars within regular hours.

    A file does not name its exchange. So bars are left out only if they look like those of a stock in New
    York with trade before and after regular hours: from 4:00 to 20:00 there, on no weekend, and not all
    within 9:30 to 16:00. All other bars are regular.
    """
    if not candles.timeframe.is_intraday:
        return candles
    local = [date.astimezone(ZoneInfo("America/New_York")) for date in candles.dates]
    looks_like_new_york = all(
        date.weekday() < 5 and _FIRST <= date.time() < _LAST  # noqa: PLR2004  # Saturday is 5
        for date in local
    )
    if not looks_like_new_york:
        return candles
    kept = np.flatnonzero([_OPEN <= date.time() < _CLOSE for date in local])
    return candles.at(kept) if 0 < len(kept) < len(candles) else candles
