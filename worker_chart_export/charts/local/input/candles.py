"""OHLCV JSON: raw bytes in, validated candles out.

The file has the shape that the market-data exporter writes: `{metadata, data}` or the bare data array. Each
bar is `{date, open, high, low, close, volume}`. The exporter writes 0 for a missing column: a price of zero
is bad data, and a missing volume is a volume of 0. Other forms that are accepted are counted, see `Bars`.

A bar's length is written in several ways: the run says `1d`, Chart-IMG `1D`, a candle file `15`, a template
`15m`. `M` is a month and `m` a minute, so comparisons never change the case.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worker_chart_export.charts.local.input.bars import FIELDS, Bars
from worker_chart_export.charts.local.input.json_reader import JsonReader
from worker_chart_export.errors import OhlcvUnavailable
from worker_chart_export.inflation import BrokenGzip, InflatedTooLarge, inflated, is_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: One number per bar; NaN where there is none.
Series: TypeAlias = NDArray[np.float64]

#: About 90,000 indented candles. No file of this system is larger; reading one would only cost memory.
MAX_FILE_BYTES = 16 * 2**20
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
#: A stop is noticed after at most so many bars, some milliseconds.
_CHECK_EVERY_BARS = 4096
_TIMEFRAME = re.compile(r"(\d{1,4})([mhHdDwWMyY]?)")
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
    def minutes(self) -> float:
        """The length in minutes; that of a mean month or year for those."""
        return (
            self.count * {"m": 1, "D": 1440, "W": 7 * 1440, "M": 30.44 * 1440, "Y": 365.25 * 1440}[self.unit]
        )

    @property
    def label(self) -> str:
        """The text in a legend: `1D`, `4h`, `15m`."""
        if self.is_intraday and self.count % 60 == 0:
            return f"{self.count // 60}h"
        return f"{self.count}{self.unit}"


def parse_timeframe(text: str) -> Timeframe | None:
    """Read `1d`, `1D`, `4h`, `15`, `15m`, `1M` ...; return None if it is none of these."""
    match = _TIMEFRAME.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        return None
    count, unit = int(match[1]), match[2]
    if unit in _MINUTES:
        return Timeframe(count=count * _MINUTES[unit], unit="m")
    return Timeframe(count=count, unit=_UNITS[unit])


def same_timeframe(one: str, other: str) -> bool:
    """Return whether both texts mean the same bar length."""
    parsed = parse_timeframe(one)
    return one == other if parsed is None else parsed == parse_timeframe(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candles:
    """Bars in order of time, oldest first; all columns have one length.

    Attributes:
        dates: Start of each bar in UTC. Bars of a day and longer have the day of their own offset, in UTC.
        open: First price of each bar; `high`, `low` and `close` accordingly. None is zero; some goods had
            prices below zero.
        volume: Traded volume, zero or more.
        timeframe: Length of the bars.
        from_the_start: Whether the first bar is the first of the symbol's whole history. Else the file is a
            part of it, and studies that depend on older bars are drawn fainter at first.
        notes: What was accepted although the file's form is not as documented, and how often.
    """

    dates: tuple[datetime, ...]
    open: Series
    high: Series
    low: Series
    close: Series
    volume: Series
    timeframe: Timeframe
    from_the_start: bool = False
    notes: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.dates)

    def day_of(self, when: datetime) -> datetime:
        """Return a time as it compares with `dates`: for bars of a day and longer its own offset decides."""
        return when if self.timeframe.is_intraday else when.replace(tzinfo=UTC)

    def since(self, first: int) -> Candles:
        """Return the bars from index `first` on."""
        return self._part(slice(first, None))

    def until(self, end: int) -> Candles:
        """Return the first `end` bars."""
        return self._part(slice(end))

    def at(self, indices: NDArray[np.intp]) -> Candles:
        """Return the bars at some indices."""
        columns = {name: getattr(self, name)[indices] for name in FIELDS}
        return replace(self, dates=tuple(self.dates[index] for index in indices.tolist()), **columns)

    def price(self, source: str) -> Series:
        """Return a price per bar: `open`, `high`, `low`, `close`, `hl2`, `hlc3` or `ohlc4`."""
        match source:
            case "hl2":
                return (self.high + self.low) / 2
            case "hlc3":
                return (self.high + self.low + self.close) / 3
            case "ohlc4":
                return (self.open + self.high + self.low + self.close) / 4
            case _:
                single: Series = getattr(self, source)
                return single

    def heikin_ashi(self) -> Candles:
        """Return the averaged bars of the style `heikinAshi`.

        Each bar closes at the mean of its four prices, and opens in the middle of the averaged bar before.
        """
        close = self.price("ohlc4")
        opens = [float(self.open[0] + self.close[0]) / 2]
        for before in close[:-1].tolist():
            opens.append((opens[-1] + before) / 2)
        open_ = np.array(opens)
        high, low = np.maximum.reduce([self.high, open_, close]), np.minimum.reduce([self.low, open_, close])
        return replace(self, open=open_, high=high, low=low, close=close)

    def _part(self, bars: slice) -> Candles:
        columns = {name: getattr(self, name)[bars] for name in ("dates", *FIELDS)}
        return replace(self, **columns)


def parse_candles(
    raw: bytes, *, symbol: str, timeframe: str, check: Callable[[], None] = lambda: None
) -> Candles:
    """Read and check one OHLCV JSON file.

    The memory that this needs besides the file and the result does not depend on what the file holds.

    Args:
        raw: The whole file.
        symbol: The symbol that the file must hold, if its metadata names one.
        timeframe: The length of the bars, if the file's metadata does not name it.
        check: Called now and then; raises to stop the work.

    Raises:
        OhlcvUnavailable: The file can't be read, is about something else, or a bar in it is wrong.
    """
    content, notes = _content(raw)
    try:
        metadata, bars = _read_file(JsonReader(content), check)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise OhlcvUnavailable(f"The candle file is not JSON: {reason}.") from error
    own = _check_subject(metadata, notes, symbol=symbol, timeframe=timeframe)
    if not len(bars):
        raise OhlcvUnavailable("The candle file holds no candles: expected at least one bar in `data`.")
    found = bars.finish(has_days=not own.is_intraday)
    for column in found.columns.values():
        # Charts on several threads may share the candles of one file.
        column.flags.writeable = False
    return Candles(
        dates=found.dates,
        **found.columns,
        timeframe=own,
        from_the_start=metadata.get("query_type") == "all",
        notes={**notes, **found.notes},
    )


def _content(raw: bytes) -> tuple[bytes, dict[str, int]]:
    """Return the JSON of a file, and notes about its form."""
    if len(raw) > MAX_FILE_BYTES:
        raise OhlcvUnavailable(
            f"The candle file has {len(raw):,} bytes; at most {MAX_FILE_BYTES:,} are read.", bytes=len(raw)
        )
    try:
        content = inflated(raw, max_bytes=MAX_FILE_BYTES)
    except InflatedTooLarge:
        raise OhlcvUnavailable(
            f"The candle file inflates to more than {MAX_FILE_BYTES:,} bytes, the most that are read."
        ) from None
    except BrokenGzip as error:
        raise OhlcvUnavailable(f"The candle file can't be read: {error}.") from error
    notes = {"gzip": 1} if is_gzip(raw) else {}
    if content.startswith(_BYTE_ORDER_MARKS):
        notes["byteOrderMark"] = 1
    return content, notes


def _check_subject(
    metadata: Mapping[str, Any], notes: dict[str, int], *, symbol: str, timeframe: str
) -> Timeframe:
    """Return the length of the bars. A file of another symbol is refused."""
    file_symbol, file_timeframe = metadata.get("symbol"), metadata.get("timeframe")
    if isinstance(file_symbol, str):
        found, expected = file_symbol.strip().upper(), symbol.strip().upper()
        if found != expected:
            if found.rpartition(":")[2] != expected:
                raise OhlcvUnavailable(f"The candle file is about {file_symbol[:60]!r}, expected {symbol!r}.")
            notes["exchangePrefix"] = 1
    own = parse_timeframe(file_timeframe if isinstance(file_timeframe, str) else timeframe)
    if own is None:
        raise OhlcvUnavailable(
            f"The candle file holds {str(file_timeframe)[:60]!r} bars, expected {timeframe!r}."
        )
    return own


def _read_file(reader: JsonReader, check: Callable[[], None]) -> tuple[Mapping[str, Any], Bars]:
    """Return the metadata (empty if there is none) and the bars.

    Raises:
        ValueError: The file is not JSON.
        OhlcvUnavailable: It is about something else, or a bar is wrong.
    """
    members: dict[str, Any] = {}
    match reader.peek():
        case "[":
            members["data"] = _read_bars(reader, check)
        case "{":
            for key in reader.members():
                is_data = key == "data" and reader.peek() == "["
                value = _read_bars(reader, check) if is_data else reader.value()
                if key in ("data", "metadata"):
                    members[key] = value
        case _:
            reader.value()
            raise OhlcvUnavailable(
                "The candle file is neither a JSON object with `data` nor an array of bars."
            )
    reader.end()
    metadata, bars = members.get("metadata"), members.get("data")
    if not isinstance(bars, Bars):
        raise OhlcvUnavailable("The candle file has no `data` array.")
    return metadata if isinstance(metadata, dict) else {}, bars


def _read_bars(reader: JsonReader, check: Callable[[], None]) -> Bars:
    bars = Bars()
    for _ in reader.items():
        if len(bars) % _CHECK_EVERY_BARS == 0:
            check()
        bars.add(reader.value())
    return bars
