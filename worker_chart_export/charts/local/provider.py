"""The chart provider that draws charts from the candles of the run."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial

from worker_chart_export.charts.base import ChartImage, ChartRequest
from worker_chart_export.charts.local.input.candles import Candles, parse_candles
from worker_chart_export.charts.local.render import RenderedChart, render
from worker_chart_export.errors import RenderFailed, RequestError, WorkerError
from worker_chart_export.memory import return_freed_memory
from worker_chart_export.observability.logs import Event, log

#: Of charts with more bars one is drawn at a time: 16 MiB of bars take up to 100 MiB.
_LARGE_BARS = 20_000


class LocalProvider:
    """Draws charts in this process. All threads share one."""

    def __init__(self) -> None:
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
            drawn = self._draw(_load_candles(request), request)
        except WorkerError:
            raise
        except Exception as error:
            log.error(Event.INTERNAL_ERROR, f"Drawing failed: {error!r:.300}", exc_info=error)
            raise RenderFailed(f"Drawing failed: unexpected {type(error).__name__}.") from error
        return ChartImage(png=drawn.png, provider="local", meta=drawn.facts)

    def _draw(self, candles: Candles, request: ChartRequest) -> RenderedChart:
        with ExitStack() as held:
            if len(candles) > _LARGE_BARS:
                request.scope.acquire(self._large_chart)
                held.callback(self._large_chart.release)
                held.callback(return_freed_memory)
            return render(
                candles,
                request.payload,
                symbol=request.symbol,
                timeframe=request.timeframe,
                check=request.scope.check,
            )


def _load_candles(request: ChartRequest) -> Candles:
    """Return the candles of the request's step, which are read and parsed once for all its charts."""
    parse = partial(
        parse_candles, symbol=request.symbol, timeframe=request.timeframe, check=request.scope.check
    )
    return request.candles.load(parse)
