"""The chart provider that draws charts from the candles of the run."""

from __future__ import annotations

from worker_chart_export.charts.base import ChartImage, ChartRequest
from worker_chart_export.charts.local.render import render
from worker_chart_export.errors import RenderFailed, RequestError, WorkerError
from worker_chart_export.observability.logs import Event, log


class LocalProvider:
    """Draws charts in this process. It has no state, so all threads may share one."""

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
            drawn = render(
                request.read_candles(),
                request.payload,
                symbol=request.symbol,
                timeframe=request.timeframe,
                check=request.scope.check,
            )
        except WorkerError:
            raise
        except Exception as error:
            log.error(Event.INTERNAL_ERROR, f"Drawing failed: {error!r:.300}", exc_info=error)
            raise RenderFailed(f"Drawing failed: unexpected {type(error).__name__}.") from error
        return ChartImage(png=drawn.png, provider="local", meta=drawn.facts)
