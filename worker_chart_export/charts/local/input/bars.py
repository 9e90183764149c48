"""The bars of a candle file, read one at a time.

Many programs write such files, so some forms are accepted that the documented one does not have. Each is
counted in `notes`. What is really wrong is one `OhlcvUnavailable` that names the bar and the field.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from worker_chart_export.errors import OhlcvUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.local.input.candles import Series

#: The keys of a bar, the documented one first.
_KEYS = {
    "date": ("date", "timestamp", "time", "t"),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "v"),
}
_PRICES = ("open", "high", "low", "close")
FIELDS = (*_PRICES, "volume")
#: Allowed sizes of prices, and allowed volumes. Axes can't show numbers beyond them.
_PRICE = (1e-12, 1e12)
_SIZES = {"open": _PRICE, "high": _PRICE, "low": _PRICE, "close": _PRICE, "volume": (0.0, 1e18)}
#: Candles of other years can't be, and some dates near them have no month or time zone before or after them.
_FIRST_YEAR, _LAST_YEAR = 1000, 9000
_DATE_FORM = f"YYYY-MM-DDTHH:MM:SSZ or epoch seconds, in the years {_FIRST_YEAR} to {_LAST_YEAR}"
_NUMBER_TYPES = frozenset({float, int})
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
#: Fewer digits may be a date, e.g. 20240220.
_EPOCH = re.compile(r"-?\d{9,14}(\.\d*)?", re.ASCII)
#: An epoch time is in milliseconds if one in the file is as large as the second number. If none is as large
#: as the first one, the numbers are something else, e.g. 20240220.
_MIN_EPOCH, _MIN_MILLISECONDS, _MAX_EPOCH = 1e8, 1e11, 1e14
#: How far open and close may lie outside the bar's range, as a part of the price: by binary rounding, and by
#: rounding of the range to its decimals, or to whole numbers.
_BINARY, _DECIMAL, _WHOLE = 1e-9, 5e-3, 1e-3

Moment: TypeAlias = "datetime | float"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBars:
    """All bars, oldest first.

    Attributes:
        dates: Their dates.
        columns: The numbers of each field.
        notes: How often each accepted form occurs that is not documented.
    """

    dates: tuple[datetime, ...]
    columns: Mapping[str, Series]
    notes: Mapping[str, int]


class Bars:
    """The checked bars of a file, column by column, in the order of the file."""

    def __init__(self) -> None:
        self._moments: list[Any] = []
        self._columns: dict[str, array[float]] = {field: array("d") for field in FIELDS}
        self._readers = [(field, *_SIZES[field], self._columns[field].append) for field in FIELDS]
        self._notes: Counter[str] = Counter()
        self._read = 0
        self._direction = 0
        self._repeated: OhlcvUnavailable | None = None
        self._other_day_order: OhlcvUnavailable | None = None
        self._unusual: set[str] = set()

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, row: Any) -> None:
        """Append a bar of the file, unless all its prices are null.

        Raises:
            OhlcvUnavailable: It is wrong.
        """
        index, self._read = self._read, self._read + 1
        if _is_null(row):
            self._notes["nullBars"] += 1
            return
        if not isinstance(row, dict):
            raise OhlcvUnavailable(f"Bar {index} of the candle file is not a JSON object.", bar=index)
        moment = self._moment(row, index)
        if self._moments:
            self._check_order(moment, row, index)
        numbers: list[float] = []
        for field, low, high, append in self._readers:
            value: Any = row.get(field)
            # json makes exactly these two types; bool is another, and NaN compares false with everything.
            if type(value) not in _NUMBER_TYPES or not low <= value <= high:
                value = self._unusual_number(row, field, index)
            numbers.append(value)
            append(value)
        self._check_range(row, numbers, index)
        self._moments.append(moment)
        if self._unusual:
            self._notes.update(self._unusual)
            self._unusual.clear()

    def finish(self, *, has_days: bool) -> ReadBars:
        """Return all bars, oldest first.

        Args:
            has_days: Whether bars are of a day or longer. Then the offset of a bar's date decides its day,
                and the dates have that day in UTC.

        Raises:
            OhlcvUnavailable: The dates are no epoch times, or the days have another order than the bars.
        """
        if has_days and self._other_day_order is not None:
            raise self._other_day_order
        moments: list[Any] = self._moments
        if moments and isinstance(moments[0], float):
            moments = self._from_epoch(moments)
        dates = [date if date.tzinfo is UTC else _in_utc(date, has_days=has_days) for date in moments]
        columns = {field: np.array(values) for field, values in self._columns.items()}
        if self._direction < 0:
            self._notes["newestFirst"] = len(dates)
            dates.reverse()
            columns = {field: values[::-1].copy() for field, values in columns.items()}
        if self._repeated is not None:
            self._notes["repeatedLastBar"] = 1
            del dates[-2]
            columns = {field: np.delete(values, -2) for field, values in columns.items()}
        columns["high"] = np.maximum.reduce([columns[field] for field in ("high", "open", "close")])
        columns["low"] = np.minimum.reduce([columns[field] for field in ("low", "open", "close")])
        if negative := int(np.count_nonzero(columns["low"] < 0)):
            self._notes["negativePrices"] = negative
        return ReadBars(dates=tuple(dates), columns=columns, notes=dict(self._notes))

    def _moment(self, row: Mapping[str, Any], index: int) -> Moment:
        """Return the date of a bar, or its epoch time: seconds or milliseconds."""
        key, value = ("date", row["date"]) if "date" in row else _find(row, "date")
        if key != "date":
            self._unusual.add("otherKeys")
        # Some of these texts are ISO dates too, without a hyphen: 1706120100000 is one of 1706.
        if isinstance(value, str) and value[4:5] != "-" and _EPOCH.fullmatch(value):
            self._unusual.add("numericStrings")
            value = float(value)
        moment: Moment | None = _epoch(value) if type(value) in _NUMBER_TYPES else _date(value)
        # All bars have dates or all have epoch times.
        if moment is None or (self._moments and type(self._moments[0]) is not type(moment)):
            raise _wrong_date(row, index)
        return moment

    def _check_order(self, moment: Any, row: Mapping[str, Any], index: int) -> None:
        """Check that bars have one order. The newest one may be there twice."""
        before = self._moments[-1]
        direction = (moment > before) - (moment < before)
        if direction == 0:
            error = _wrong_order(row, index, "repeats the bar before it")
            if self._direction < 0 or self._repeated is not None:
                raise error
            self._repeated = error
            return
        if direction > 0 and self._repeated is not None:
            raise self._repeated
        if self._direction == 0:
            self._direction = direction
        elif direction != self._direction:
            raise _wrong_order(
                row, index, f"is {'newer' if direction > 0 else 'older'} than the bar before it"
            )
        if self._other_day_order is None and isinstance(moment, datetime) and moment.tzinfo != before.tzinfo:
            day, day_before = moment.replace(tzinfo=None), before.replace(tzinfo=None)
            if (day > day_before) - (day < day_before) != direction:
                self._other_day_order = _wrong_order(row, index, "has a day out of order")

    def _unusual_number(self, row: Mapping[str, Any], field: str, index: int) -> float:
        """Return a number that has another key, is a text or below zero, or 0 for a missing volume."""
        key, value = _find(row, field)
        if key != field:
            self._unusual.add("otherKeys")
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            self._unusual.add("numericStrings")
            value = float(value)
        elif value is None and field == "volume":
            value = 0.0
        low, high = _SIZES[field]
        if (
            type(value) not in _NUMBER_TYPES
            or not low <= (value if field == "volume" else abs(value)) <= high
        ):
            raise _wrong_number(row, index, field)
        return float(value)

    def _check_range(self, row: Mapping[str, Any], numbers: list[float], index: int) -> None:
        open_, high, low, close, _ = numbers
        if low <= open_ <= high and low <= close <= high:
            return
        if high < low:
            where = _where(row, index)
            raise OhlcvUnavailable(f"{where} has `high` {high:.12g} below `low` {low:.12g}.", bar=index)
        for field, price in (("open", open_), ("close", close)):
            if max(price - high, low - price) > _allowed_beyond(price, high, low):
                raise OhlcvUnavailable(
                    f"{_where(row, index)} has `{_find(row, field)[0]}` {price:.12g} outside its range, "
                    f"expected {low:.12g} to {high:.12g}.",
                    bar=index,
                    field=field,
                )
        self._unusual.add("pricesBeyondRange")

    def _from_epoch(self, moments: list[float]) -> list[datetime]:
        largest = max(abs(moment) for moment in moments)
        milliseconds = largest >= _MIN_MILLISECONDS
        self._notes["epochMilliseconds" if milliseconds else "epochSeconds"] = len(moments)
        dates = []
        for index, moment in enumerate(moments):
            date = _from_epoch(moment / 1000 if milliseconds else moment)
            if date is None or largest < _MIN_EPOCH:
                raise _wrong_date({"date": int(moment) if moment.is_integer() else moment}, index)
            dates.append(date)
        return dates


def _find(row: Mapping[str, Any], field: str) -> tuple[str, Any]:
    """Return the key of a field in a bar and its value. A bar without it has the documented key and None."""
    for key in _KEYS[field]:
        if key in row:
            return key, row[key]
    return field, None


def _is_null(row: Any) -> bool:
    """Return whether a bar is null or has no prices: all are null or NaN, and there is no volume."""
    if not isinstance(row, dict):
        return row is None
    close = row.get("close")
    if close is not None and close == close:  # noqa: PLR0124  # false for NaN
        return False
    found = [_find(row, field) for field in _PRICES]
    if not all(key in row and _is_missing(value) for key, value in found):
        return False
    volume = _find(row, "volume")[1]
    return _is_missing(volume) or volume == 0


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _epoch(value: float) -> float | None:
    return float(value) if abs(value) < _MAX_EPOCH else None


def _date(value: Any) -> datetime | None:
    """Read an ISO 8601 date, without an offset as UTC; None if it is none or out of range."""
    try:
        date = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    if not _FIRST_YEAR <= date.year <= _LAST_YEAR:
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def _in_utc(date: datetime, *, has_days: bool) -> datetime:
    return date.replace(tzinfo=UTC) if has_days else date.astimezone(UTC)


def _from_epoch(seconds: float) -> datetime | None:
    try:
        date = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return date if _FIRST_YEAR <= date.year <= _LAST_YEAR else None


def _allowed_beyond(price: float, high: float, low: float) -> float:
    """Return how far a price may lie outside its bar's range: half of the last decimal of the range."""
    decimals = max(0, *(-int(Decimal(repr(end)).normalize().as_tuple().exponent) for end in (high, low)))
    rounding = min(0.5 * 10.0**-decimals, abs(price) * (_DECIMAL if decimals else _WHOLE))
    return max(rounding, abs(price) * _BINARY)


def _where(row: Mapping[str, Any], index: int) -> str:
    return f"Bar {index} of the candle file ({str(_find(row, 'date')[1])[:60]})"


def _wrong_date(row: Mapping[str, Any], index: int) -> OhlcvUnavailable:
    key, value = _find(row, "date")
    return OhlcvUnavailable(
        f"Bar {index} of the candle file has `{key}` {repr(value)[:60]}, expected {_DATE_FORM}.",
        bar=index,
        field=key,
    )


def _wrong_order(row: Mapping[str, Any], index: int, what: str) -> OhlcvUnavailable:
    return OhlcvUnavailable(
        f"{_where(row, index)} {what}, expected all dates ascending or all descending.", bar=index
    )


def _wrong_number(row: Mapping[str, Any], index: int, field: str) -> OhlcvUnavailable:
    expected = "0 to 1e+18" if field == "volume" else "a price that is not zero (1e-12 to 1e+12 in size)"
    key, value = _find(row, field)
    shown = repr(value)[:60] if key in row else "missing"
    return OhlcvUnavailable(
        f"{_where(row, index)} has `{key}` {shown}, expected {expected}.", bar=index, field=key
    )
