"""OHLCV JSON: raw bytes in, validated candles out.

The shape is the market-data exporter's: `{metadata, data}` or the bare data array, each bar
`{date, open, high, low, close, volume}`. The exporter writes 0 for a missing column, so a zero price means
bad data, while a missing volume is a volume of 0. Every fault is one `OhlcvUnavailable` that names the bar.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worker_chart_export.charts.local.input.timeframe import same_timeframe
from worker_chart_export.errors import OhlcvUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: One number per bar; NaN where there is none.
Series: TypeAlias = NDArray[np.float64]

#: About 90,000 indented candles. A larger file is none of this system's, and would only cost memory.
MAX_FILE_BYTES = 16 * 2**20
#: How far, relative to the price, open and close may leave the bar's range: binary rounding, no more.
_ROUNDING = 1e-9
_NUMBER_TYPES = frozenset({float, int})
#: What can be a price and what a volume; beyond that the numbers are noise, and axes can't show them.
_PRICES = (1e-12, 1e12)
_VOLUMES = (0.0, 1e18)
_PRICE_FIELDS = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candles:
    """Bars in order of time, oldest first; all columns have one length.

    Attributes:
        dates: Start of each bar, timezone-aware.
        open: First price of each bar; `high`, `low` and `close` accordingly. All are above zero.
        volume: Traded volume, zero or more.
    """

    dates: tuple[datetime, ...]
    open: Series
    high: Series
    low: Series
    close: Series
    volume: Series

    def __len__(self) -> int:
        return len(self.dates)

    def since(self, first: int) -> Candles:
        """The bars from index `first` on."""
        return Candles(
            dates=self.dates[first:],
            open=self.open[first:],
            high=self.high[first:],
            low=self.low[first:],
            close=self.close[first:],
            volume=self.volume[first:],
        )


def parse_candles(raw: bytes, *, symbol: str, timeframe: str) -> Candles:
    """Read and check one OHLCV JSON file.

    Args:
        raw: The whole file.
        symbol: What the file must be about, if its metadata says so.
        timeframe: The bar length it must hold, if its metadata says so.

    Raises:
        OhlcvUnavailable: The file can't be read, is about something else, or a bar in it is wrong.
    """
    document = _decode(raw)
    metadata, rows = _split(document)
    _check_metadata(metadata, symbol=symbol, timeframe=timeframe)
    if not rows:
        raise OhlcvUnavailable("The candle file holds no candles: expected at least one bar in `data`.")
    return _assemble(rows)


def _decode(raw: bytes) -> Any:
    if len(raw) > MAX_FILE_BYTES:
        raise OhlcvUnavailable(
            f"The candle file has {len(raw):,} bytes; at most {MAX_FILE_BYTES:,} are read.", bytes=len(raw)
        )
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise OhlcvUnavailable(f"The candle file is not JSON: {reason}.") from error


def _split(document: Any) -> tuple[Mapping[str, Any], Sequence[Any]]:
    if isinstance(document, list):
        return {}, document
    if not isinstance(document, dict):
        raise OhlcvUnavailable("The candle file is neither a JSON object with `data` nor an array of bars.")
    rows = document.get("data")
    if not isinstance(rows, list):
        raise OhlcvUnavailable("The candle file has no `data` array.")
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}, rows


def _check_metadata(metadata: Mapping[str, Any], *, symbol: str, timeframe: str) -> None:
    found_symbol, found_timeframe = metadata.get("symbol"), metadata.get("timeframe")
    if isinstance(found_symbol, str) and found_symbol.strip().upper() != symbol.strip().upper():
        raise OhlcvUnavailable(f"The candle file is about {found_symbol!r}, expected {symbol!r}.")
    if isinstance(found_timeframe, str) and not same_timeframe(found_timeframe, timeframe):
        raise OhlcvUnavailable(f"The candle file holds {found_timeframe!r} bars, expected {timeframe!r}.")


def _assemble(rows: Sequence[Any]) -> Candles:
    dates = tuple(_date(index, row) for index, row in enumerate(rows))
    _check_order(dates)
    columns = {field: _column(rows, field) for field in (*_PRICE_FIELDS, "volume")}
    candles = Candles(dates=dates, **columns)
    _check_ranges(candles, rows)
    return _without_rounding(candles)


def _date(index: int, row: Any) -> datetime:
    if not isinstance(row, dict):
        raise OhlcvUnavailable(f"Bar {index} of the candle file is no JSON object.", bar=index)
    text = row.get("date")
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]  # a TypeError is handled as well
    except (TypeError, ValueError) as error:
        visible = repr(text)[:60]
        raise OhlcvUnavailable(
            f"Bar {index} of the candle file has `date` {visible}, expected YYYY-MM-DDTHH:MM:SSZ.", bar=index
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _check_order(dates: Sequence[datetime]) -> None:
    for index in range(1, len(dates)):
        if dates[index] <= dates[index - 1]:
            word = "repeats" if dates[index] == dates[index - 1] else "is older than"
            raise OhlcvUnavailable(
                f"Bar {index} of the candle file ({dates[index].isoformat()}) {word} the bar before it, "
                "expected ascending dates.",
                bar=index,
            )


def _column(rows: Sequence[Mapping[str, Any]], field: str) -> Series:
    low, high = _VOLUMES if field == "volume" else _PRICES
    if field == "volume":
        values = [0.0 if row.get(field) is None else row[field] for row in rows]
    else:
        values = [row.get(field) for row in rows]
    for index, value in enumerate(values):
        # json makes exactly these two types; bool is another, and NaN compares false with everything.
        if type(value) not in _NUMBER_TYPES or not low <= value <= high:
            raise _bad_value(index, rows[index], field)
    return _constant(np.array(values, dtype=np.float64))


def _constant(values: Series) -> Series:
    """Charts on several threads may share the candles of one file."""
    values.flags.writeable = False
    return values


def _bad_value(index: int, row: Mapping[str, Any], field: str) -> OhlcvUnavailable:
    expected = "0 to 1e+18" if field == "volume" else "a price above zero (1e-12 to 1e+12)"
    found = "missing" if field not in row else repr(row[field])[:60]
    return OhlcvUnavailable(
        f"Bar {index} of the candle file ({row['date']}) has `{field}` {found}, expected {expected}.",
        bar=index,
        field=field,
    )


def _check_ranges(candles: Candles, rows: Sequence[Mapping[str, Any]]) -> None:
    slack = candles.close * _ROUNDING
    wrong = candles.high < candles.low
    for column in (candles.open, candles.close):
        wrong |= (column > candles.high + slack) | (column < candles.low - slack)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise _bad_range(index, rows[index])


def _bad_range(index: int, row: Mapping[str, Any]) -> OhlcvUnavailable:
    where = f"Bar {index} of the candle file ({row['date']})"
    if row["high"] < row["low"]:
        return OhlcvUnavailable(f"{where} has `high` {row['high']} below `low` {row['low']}.", bar=index)
    slack = row["close"] * _ROUNDING
    field = "close" if row["low"] - slack <= row["open"] <= row["high"] + slack else "open"
    return OhlcvUnavailable(
        f"{where} has `{field}` {row[field]} outside its range, expected {row['low']} to {row['high']}.",
        bar=index,
        field=field,
    )


def _without_rounding(candles: Candles) -> Candles:
    top, bottom = np.maximum(candles.open, candles.close), np.minimum(candles.open, candles.close)
    return Candles(
        dates=candles.dates,
        open=candles.open,
        high=_constant(np.maximum(candles.high, top)),
        low=_constant(np.minimum(candles.low, bottom)),
        close=candles.close,
        volume=candles.volume,
    )
