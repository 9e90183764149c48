"""The input and output of chart providers, and the check of every picture.

A provider turns one `ChartRequest` into one `ChartImage`, or raises a `RequestError`. It does not depend on
steps, runs or buckets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from worker_chart_export.errors import ChartApiFailed, ChartTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.concurrency.single_flight import LoadOnce
    from worker_chart_export.errors import RequestError

DEFAULT_WIDTH = 800
DEFAULT_HEIGHT = 600
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: The length and type of the first chunk.
PNG_IHDR_START = struct.pack(">I4s", 13, b"IHDR")
#: The last chunk of every PNG: no data, type IEND and its CRC.
PNG_IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRequest:
    """One chart to make.

    Attributes:
        template_id: The chart template's id, for names and messages.
        symbol: The run's `scope.symbol`, e.g. `IBM`.
        timeframe: The step's timeframe as the run has it, e.g. `1d`.
        payload: The Chart-IMG request body: symbol, interval, timezone, theme, studies, width, height ...
        candles: The step's OHLCV JSON. It is read and parsed once, for all charts of the step. `load` raises
            `OhlcvUnavailable` when there is none.
        scope: The time and the stop of the chart. It is checked before each paid call and ends each wait. It
            is also stopped when the step can't get enough charts any more.
        call_scope: The time and the stop of a call in progress. A call that is paid is not stopped only
            because its step can't get enough charts.
    """

    template_id: str
    symbol: str
    timeframe: str
    payload: Mapping[str, Any]
    candles: LoadOnce
    scope: CancelScope
    call_scope: CancelScope

    @property
    def width(self) -> int:
        """Width in pixels: the template's or Chart-IMG's default."""
        return int(self.payload.get("width", DEFAULT_WIDTH))

    @property
    def height(self) -> int:
        """Height in pixels: the template's or Chart-IMG's default."""
        return int(self.payload.get("height", DEFAULT_HEIGHT))


#: In the `meta` of a chart: the provider that was asked first, if another one made the chart.
FALLBACK_FROM = "fallbackFrom"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartImage:
    """One finished chart.

    Attributes:
        png: The whole PNG file.
        provider: `chart-img`, `local` or `mock`.
        meta: How it was made, JSON-serialisable. It goes into the manifest item's `meta`.
    """

    png: bytes
    provider: str
    meta: Mapping[str, Any]


class ChartProvider(Protocol):
    """A source of charts. All threads of the process share one."""

    def known_failure(self, request: ChartRequest) -> RequestError | None:
        """Return why the chart can't be made, if that is known without a paid call. Make no call."""

    def chart(self, request: ChartRequest) -> ChartImage:
        """Make the chart.

        Raises:
            RequestError: The request failed, retries included.
            BackendUnavailable: Firestore or Cloud Storage is unavailable.
            Interrupted: The step was stopped.
        """


def png_end(data: bytes | bytearray) -> int | None:
    """Return the offset after the end chunk of a PNG, or None when there is no end chunk.

    The chunks are followed from the first on (PNG specification, 5.3): a length, a type, the data, a CRC.
    """
    start = len(PNG_SIGNATURE)
    while start + len(PNG_IEND) <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + len(PNG_IEND) + length
        if kind == b"IEND":
            return end if data[start:end] == PNG_IEND else None
        start = end
    return None


def check_png(data: bytes, *, width: int, height: int, max_bytes: int) -> bytes:
    """Check that `data` is a complete PNG of `width` x `height` pixels with at most `max_bytes` bytes.

    Return it without what follows its end chunk. Decoders ignore such bytes; some servers add a line end.

    Raises:
        ChartApiFailed: It is not. The message says what is wrong.
        ChartTooLarge: It is larger than `max_bytes`.
    """
    is_png = data.startswith(PNG_SIGNATURE + PNG_IHDR_START)
    if not is_png or len(data) < len(PNG_SIGNATURE) + 25 + len(PNG_IEND):
        raise ChartApiFailed("The picture is not a PNG.", sizeBytes=len(data), startsWith=ascii(data[:16]))
    end = png_end(data)
    if end is None:
        raise ChartApiFailed("The PNG is cut off: it has no end chunk.", sizeBytes=len(data))
    size = struct.unpack(">II", data[16:24])
    if size != (width, height):
        raise ChartApiFailed(
            f"The PNG has {size[0]}x{size[1]} pixels instead of {width}x{height}.", sizeBytes=len(data)
        )
    if end > max_bytes:
        raise ChartTooLarge(f"The PNG has {end} bytes, readers accept at most {max_bytes}.", sizeBytes=end)
    return data[:end]
