"""What is not counted but looked at whenever somebody asks for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.lifecycle.liveness import OK
from worker_chart_export.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport
    from daemon.settings import Settings
    from worker_chart_export.ledger.heartbeats import HeartBeats


def register_gauges(
    *, settings: Settings, drain: Drain, heart_beats: HeartBeats, readiness: Callable[[], HealthReport]
) -> None:
    """Show these in the metrics from now on; what another daemon of this process showed ends."""
    metrics.STEPS_CAPACITY.set(settings.worker_concurrency)
    metrics.STEPS_RUNNING.set_function(lambda: drain.steps_running)
    metrics.OLDEST_STEP_AGE.set_function(drain.oldest_step_seconds)
    metrics.LEASES_HELD.set_function(lambda: len(heart_beats.held()))
    metrics.LEASE_RENEWAL_AGE.set_function(heart_beats.renewal_age_seconds)
    metrics.READY.set_function(lambda: readiness().reason is None)
    metrics.STREAM_OPEN.set_function(lambda: readiness().parts["stream"] == OK)
    metrics.DRAIN_SECONDS.set_function(drain.draining_seconds)
    metrics.DRAIN_LIMIT.set(settings.drain_seconds)
