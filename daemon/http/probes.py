"""The probes `/livez`, `/readyz` and `/metrics`, and the gauges of this process."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from daemon.http.server import Response
from daemon.lifecycle.liveness import OK
from worker_chart_export.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.http.server import Request, Responder
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport
    from daemon.settings import Settings
    from worker_chart_export.ledger.heartbeats import Heartbeats


def health_routes(
    *, liveness: Callable[[], HealthReport], readiness: Callable[[], HealthReport]
) -> dict[str, Responder]:
    """Return the paths of the probes and what answers them."""

    def metrics_response(request: Request) -> Response:
        content, content_type = metrics.exposition(request.accept)
        return Response(content_type=content_type, content=content)

    return {
        "/livez": lambda _request: _health_response(liveness(), otherwise="not alive"),
        "/readyz": lambda _request: _health_response(readiness(), otherwise="not ready"),
        "/metrics": metrics_response,
    }


def _health_response(report: HealthReport, *, otherwise: str) -> Response:
    """Answer 200, or 503 with the reason: then the process is restarted, or gets no more traffic.

    Warnings don't change the status.
    """
    body: dict[str, object]
    if report.reason is None:
        status, body = HTTPStatus.OK, {"status": "ok", "parts": report.parts}
    else:
        status = HTTPStatus.SERVICE_UNAVAILABLE
        body = {"status": otherwise, "reason": report.reason, "parts": report.parts}
    if report.warnings:
        body["warnings"] = report.warnings
    return Response(status=status, content_type="application/json", content=json.dumps(body).encode())


def register_gauges(
    *, settings: Settings, drain: Drain, heartbeats: Heartbeats, readiness: Callable[[], HealthReport]
) -> None:
    """Show the state of this daemon in the metrics from now on, in place of an earlier daemon's."""
    metrics.STEPS_CAPACITY.set(settings.worker_concurrency)
    metrics.STEPS_RUNNING.set_function(lambda: drain.steps_running)
    metrics.OLDEST_STEP_AGE.set_function(drain.oldest_step_seconds)
    metrics.LEASES_HELD.set_function(lambda: len(heartbeats.held()))
    metrics.LEASE_RENEWAL_AGE.set_function(heartbeats.renewal_age_seconds)
    metrics.READY.set_function(lambda: readiness().reason is None)
    metrics.STREAM_OPEN.set_function(lambda: readiness().parts["stream"] == OK)
    metrics.DRAIN_SECONDS.set_function(drain.draining_seconds)
    metrics.DRAIN_LIMIT.set(settings.drain_seconds)
