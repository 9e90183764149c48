"""The chart provider that draws charts from the candles of the run."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from worker_chart_export.charts.base import ChartImage, ChartRequest
from worker_chart_export.charts.local.processes.pool import UnexpectedError
from worker_chart_export.charts.request_check import documented_keys
from worker_chart_export.errors import RenderFailed, RequestError, WorkerError
from worker_chart_export.memory import return_freed_memory
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sized

#: Of charts with more bars one is drawn at a time: 16 MiB of bars take up to 100 MiB.
_LARGE_BARS = 20_000

C = TypeVar("C", bound="Sized")


class Renderer(Protocol[C]):
    """Reads candle files and draws charts. All threads share one; its candles are what `draw` takes."""

    def load(self, raw: bytes, *, symbol: str, timeframe: str, check: Callable[[], None]) -> C:
        """Read a candle file. Its length is the number of bars. `check` raises to stop the work."""

    def draw(
        self,
        candles: C,
        payload: Mapping[str, Any],
        *,
        symbol: str,
        timeframe: str,
        check: Callable[[], None],
    ) -> tuple[bytes, Mapping[str, Any]]:
        """Return the PNG of a request body, and how it was made. `check` raises to stop the work."""


class LocalProvider(Generic[C]):
    """Draws charts here, without Chart-IMG. All threads share one.

    Args:
        renderer: Draws them, in this process or in others.
    """

    def __init__(self, renderer: Renderer[C]) -> None:
        self._renderer = renderer
        self._large_chart = threading.Lock()

    def known_failure(self, request: ChartRequest) -> RequestError | None:  # noqa: ARG002 - a provider's
        """Return None: to draw a chart costs nothing."""
        return None

    def chart(self, request: ChartRequest) -> ChartImage:
        """Draw the chart of `request`.

        Raises:
            OhlcvUnavailable: There are no usable candles.
            RenderFailed: The chart can't be drawn here as its template demands.
            WorkerError: The request's scope is cancelled or out of time.
        """
        request.scope.check()
        try:
            png, facts = self._draw(self._candles(request), request)
        except WorkerError:
            raise
        except Exception as error:
            log.error(Event.INTERNAL_ERROR, f"Drawing failed: {error!r:.300}", exc_info=error)
            kind = error.kind if isinstance(error, UnexpectedError) else type(error).__name__
            raise RenderFailed(f"Drawing failed: unexpected {kind}.") from error
        return ChartImage(png=png, provider="local", meta=facts)

    def _candles(self, request: ChartRequest) -> C:
        """Return the candles of the request's step, which are read and parsed once for all its charts."""
        load = partial(
            self._renderer.load,
            symbol=request.symbol,
            timeframe=request.timeframe,
            check=request.scope.check,
        )
        return request.candles.load(load)

    def _draw(self, candles: C, request: ChartRequest) -> tuple[bytes, Mapping[str, Any]]:
        with ExitStack() as held:
            if len(candles) > _LARGE_BARS:
                request.scope.acquire(self._large_chart)
                held.callback(self._large_chart.release)
                held.callback(return_freed_memory)
            return self._renderer.draw(
                candles,
                documented_keys(request.payload),
                symbol=request.symbol,
                timeframe=request.timeframe,
                check=request.scope.check,
            )
