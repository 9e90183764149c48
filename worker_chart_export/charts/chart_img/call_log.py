"""What is told of each call of Chart-IMG: one log line, one count, one word to the observers."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import notify_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_chart_export.charts.base import ChartRequest


@dataclass(slots=True)
class CallEnd:
    """How a call ended; the defaults are those of one that its step's end has broken off.

    Attributes:
        status: The HTTP status; 0 = none came.
        outcome: One of `metrics.ANSWERS`.
        words: The API's own, without the key; empty when all is well.
    """

    status: int = 0
    outcome: str = "stopped"
    words: str = ""


@contextmanager
def logged_call(account_id: str, request: ChartRequest, *, number: int) -> Iterator[CallEnd]:
    """Tell of the call in this block, the chart's so-and-so-many-th."""
    started, end = time.monotonic(), CallEnd()
    try:
        yield end
    finally:
        duration_ms = round((time.monotonic() - started) * 1000)
        metrics.CHART_IMG_CALLS.labels(account_id, end.outcome).inc()
        notify_call(
            accountId=account_id,
            callNumber=number,
            httpStatus=end.status,
            outcome=end.outcome,
            durationMs=duration_ms,
        )
        log.info(
            Event.CHART_API_CALL_FINISHED,
            f"Chart-IMG answered {end.status or 'nothing'} for {request.template_id}",
            chartTemplateId=request.template_id,
            accountId=account_id,
            callNumber=number,
            httpStatus=end.status,
            outcome=end.outcome,
            apiMessage=end.words or None,
            durationMs=duration_ms,
        )
