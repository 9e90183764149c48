"""`CHARTS_FALLBACK`: another provider for the charts that no Chart-IMG account is left for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.base import FALLBACK_FROM, ChartImage
from worker_chart_export.errors import ChartApiLimitExceeded, RequestError
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from worker_chart_export.charts.base import ChartProvider, ChartRequest


class FallbackProvider:
    """Get charts from the first provider, or from the second when the first has no account left.

    Args:
        first: The preferred provider.
        second: Its substitute.
    """

    def __init__(self, *, first: ChartProvider, second: ChartProvider) -> None:
        self._first = first
        self._second = second

    def known_failure(self, request: ChartRequest) -> RequestError | None:
        """Return the failure of the first provider, unless the second is asked after it."""
        failure = self._first.known_failure(request)
        return None if isinstance(failure, ChartApiLimitExceeded) else failure

    def chart(self, request: ChartRequest) -> ChartImage:
        """Make the chart. The `meta` of a chart of the second provider has `fallbackFrom`.

        Raises:
            RequestError: The error of the first provider. If the second fails too, its code and message
                stand in the details.
            WorkerError: The error of either provider.
        """
        try:
            return self._first.chart(request)
        except ChartApiLimitExceeded as limit:
            try:
                image = self._second.chart(request)
            except RequestError as error:
                raise ChartApiLimitExceeded(
                    limit.message, **limit.details, fallbackCode=error.code, fallbackMessage=error.message
                ) from error
            metrics.CHART_FALLBACKS.inc()
            log.warning(
                Event.CHART_FALLBACK,
                f"Made {request.template_id} with {image.provider}: {limit.message}",
                chartTemplateId=request.template_id,
                provider=image.provider,
            )
        meta = {**image.meta, FALLBACK_FROM: "chart-img"}
        return ChartImage(png=image.png, provider=image.provider, meta=meta)
