"""A thread of the daemon hangs for ever: other daemons get its step, and the daemon is to be restarted."""

from __future__ import annotations

import time

import pytest

from tests.support.cloud.resources import health
from tests.support.process.hanging_daemon import HANGING, HANGING_RUN

#: The lease of a step is renewed for 3 + 1 + 1 s.
SHORT = {
    "STEP_TIMEOUT_SECONDS": "3",
    "DRAIN_SECONDS": "1",
    "LEASE_SECONDS": "3",
    "CLOCK_SKEW_SECONDS": "1",
    "RESCUE_INTERVAL_SECONDS": "1",
}
RENEWED_SECONDS = 5.0


@pytest.fixture
def hanging(deployment):
    """Return a daemon whose step hangs, and that step."""
    run_id, (step_id,) = deployment.put_run()
    # Its own rescue must not take the step over before the other daemon does.
    changed = {**SHORT, HANGING_RUN: run_id, "STREAM_IDLE_SECONDS": "1", "RESCUE_INTERVAL_SECONDS": "600"}
    with deployment.daemon(module=HANGING, **changed).started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("chart_stored", count=2)
        yield daemon, run_id, step_id


def _why_dead(daemon):
    """Wait until `/livez` fails; return the reason."""
    daemon.wait_until(lambda: health(daemon, "/livez")[0] != 200, "a process that is not alive", 20)
    return health(daemon, "/livez")[1]["reason"]


def test_another_daemon_finishes_the_step_of_a_thread_that_hangs(deployment, hanging):
    """The lease is renewed no more than the longest work takes; nothing is paid twice."""
    _, run_id, step_id = hanging
    began = time.monotonic()
    with deployment.daemon(**SHORT).started() as other:
        (line,) = other.wait_for_event("step_completed")
        assert (line["attempt"], line["status"]) == (2, "SUCCEEDED")
        assert time.monotonic() - began > RENEWED_SECONDS - 2
        assert len(other.named("chart_reused")) == 2
        assert other.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert sum(deployment.cloud.chart_img.charts_per_key.as_dict().values()) == 2


def test_a_daemon_with_a_thread_that_hangs_is_not_alive(hanging):
    """`/livez` fails once the oldest step is older than any step can be."""
    daemon, _, _ = hanging
    assert health(daemon, "/livez")[0] == 200
    reason = _why_dead(daemon)
    assert reason.startswith("steps: one has run for ")
    assert reason.endswith(" s, more than 5 s")


def test_a_delivery_that_hangs_does_not_stop_the_watch_over_a_quiet_stream(deployment, hanging):
    """The stream is opened again, and delivers."""
    daemon, _, _ = hanging
    (line,) = daemon.wait_for_event("stream_reopened")[:1]
    assert line["reason"] == "idle"
    run_id, (step_id,) = deployment.put_run()
    deployment.publish_step(run_id, step_id)
    (line,) = daemon.wait_for_event("step_completed")
    assert line["runId"] == run_id
