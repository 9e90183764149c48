"""What every chart provider takes and gives.

A provider turns one `ChartRequest` into one `ChartImage` or raises a `RequestError`; it knows nothing of
steps, runs or buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.concurrency.cancel_scope import CancelScope

DEFAULT_WIDTH = 800
DEFAULT_HEIGHT = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRequest:
    """One chart to make.

    Attributes:
        template_id: The chart template's id, for names and messages.
        symbol: The run's `scope.symbol`, e.g. `IBM`.
        timeframe: The step's timeframe as written there, e.g. `1d`.
        payload: The Chart-IMG request body: symbol, interval, timezone, theme, studies, width, height ...
        read_candles: Gives the raw bytes of the step's OHLCV JSON, read once a step.
            Raises `OhlcvUnavailable` when there are none.
        budget: Asked before anything is paid for, and by whoever waits.
    """

    template_id: str
    symbol: str
    timeframe: str
    payload: Mapping[str, Any]
    read_candles: Callable[[], bytes]
    scope: CancelScope

    @property
    def width(self) -> int:
        """Width in pixels: the template's, else Chart-IMG's default."""
        return int(self.payload.get("width", DEFAULT_WIDTH))

    @property
    def height(self) -> int:
        """Height in pixels: the template's, else Chart-IMG's default."""
        return int(self.payload.get("height", DEFAULT_HEIGHT))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartImage:
    """One chart made.

    Attributes:
        png: The whole PNG file.
        provider: `chart-img`, `local` or `mock`.
        meta: More about how it was made, JSON-serialisable; goes into the manifest item's `meta`.
    """

    png: bytes
    provider: str
    meta: Mapping[str, Any]


class ChartProvider(Protocol):
    """One way to come by a chart. Implementations are shared by all threads of the process."""

    def chart(self, request: ChartRequest) -> ChartImage:
        """Make the chart.

        Raises:
            RequestError: This request has failed, retries included.
            BackendUnavailable: A backend of ours (not the provider's) is away.
            Interrupted: The step was told to stop.
        """
