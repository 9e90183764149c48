"""`CHARTS_FALLBACK`: another provider for the charts that no account is left for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.errors import ChartApiLimitExceeded, RequestError
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from worker_chart_export.charts.base import ChartProvider, ChartRequest


class FallbackProvider:
    """The first provider's chart, or the second's when the first has no account left.

    Args:
        first: The provider to use.
        second: Its substitute.
    """

    def __init__(self, *, first: ChartProvider, second: ChartProvider) -> None:
        self._first = first
        self._second = second

    def chart(self, request: ChartRequest) -> ChartImage:
        """The chart; one of the second provider says so in its `meta`.

        Raises:
            RequestError: As the first provider's; when the second has no chart either, the first's own error
                with the second's words.
            WorkerError: As both.
        """
        try:
            return self._first.chart(request)
        except ChartApiLimitExceeded as limit:
            return self._instead(request, limit)

    def _instead(self, request: ChartRequest, limit: ChartApiLimitExceeded) -> ChartImage:
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
        return ChartImage(
            png=image.png, provider=image.provider, meta={**image.meta, "fallbackFrom": "chart-img"}
        )
