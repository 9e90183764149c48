"""The renderer processes of a real daemon crash, hang and outlive nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.charts.local_chart_samples import raw_candles
from tests.support.process.renderers import is_running, is_stopped, renderers_of, servers_of, wait_until

LOCAL = {"CHARTS_API_MODE": "local", "RENDER_PROCESSES": "2"}
STEPS = 8


@pytest.fixture
def drawn(deployment):
    """Return the deployment with candles in the bucket."""
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw_candles())
    return deployment


def _publish(deployment, **changes):
    run_id, step_ids = deployment.put_run(**changes)
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)
    return run_id, step_ids


def _stop_a_renderer(daemon):
    """Stop a renderer of the daemon, as if it looped in native code; return its process id."""
    renderer = renderers_of(daemon.process.pid)[0]
    os.kill(renderer, signal.SIGSTOP)
    wait_until(lambda: is_stopped(renderer), "stopped process")
    return renderer


def _one_stuck_step(deployment, daemon):
    """Work on a step whose renderer is stopped; return the step and the process."""
    run_id, (step_id,) = _publish(deployment)
    daemon.wait_for_event("step_completed")
    renderer = _stop_a_renderer(daemon)
    stuck = _publish(deployment, charts=1)
    daemon.wait_for_event("claim_attempt", count=2)
    return run_id, step_id, stuck, renderer


def test_a_crash_costs_one_chart_a_second_try(drawn):
    """A renderer gets SIGSEGV while eight steps run: all of them succeed, in the same daemon."""
    with drawn.daemon(**LOCAL).started() as daemon:
        pid = daemon.process.pid
        _publish(drawn, charts=2)
        daemon.wait_for_event("step_completed")
        renderer = _stop_a_renderer(daemon)
        run_id, step_ids = _publish(drawn, steps=STEPS, charts=2)
        if len(renderers_of(pid)) == 1:
            daemon.wait_until(lambda: len(renderers_of(pid)) > 1, "a second renderer", 20)
        # The other process draws all charts but one. A step waits for that.
        daemon.wait_for_event("chart_stored", count=2 + 2 * STEPS - 2, timeout_seconds=60)
        assert len(daemon.named("step_completed")) < 1 + STEPS
        os.kill(renderer, signal.SIGSEGV)
        os.kill(renderer, signal.SIGCONT)
        lines = daemon.wait_for_event("step_completed", count=1 + STEPS, timeout_seconds=60)
        assert {line["status"] for line in lines} == {"SUCCEEDED"}
        assert daemon.process.pid == pid
        (ended,) = daemon.named("renderer_ended")
        assert ended["message"] == "A renderer process was ended by SIGSEGV"
        assert (ended["attempt"], ended["severity"]) == (1, "WARNING")
        assert daemon.terminate() == 0
    assert {drawn.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert len(drawn.object_names()) == 3 * (1 + STEPS)


def test_no_process_is_started_before_the_first_chart_and_none_outlives_a_stop(drawn):
    """After SIGTERM the daemon ends in order, and its processes with it."""
    with drawn.daemon(**LOCAL).started() as daemon:
        assert servers_of(daemon.process.pid) == []
        _publish(drawn)
        daemon.wait_for_event("step_completed")
        pids = [*servers_of(daemon.process.pid), *renderers_of(daemon.process.pid)]
        assert len(pids) >= 2
        assert daemon.terminate() == 0
    wait_until(lambda: not any(is_running(pid) for pid in pids), "end of the processes", 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_no_process_outlives_a_daemon_that_crashes(drawn, number):
    """Not even one that hangs."""
    with drawn.daemon(**LOCAL).started() as daemon:
        _publish(drawn)
        daemon.wait_for_event("step_completed")
        _stop_a_renderer(daemon)
        pids = [*servers_of(daemon.process.pid), *renderers_of(daemon.process.pid)]
        daemon.signal(number)
        daemon.wait()
        wait_until(lambda: not any(is_running(pid) for pid in pids), "end of the processes", 5)


def test_a_drain_ends_a_renderer_that_hangs(drawn):
    """The daemon stops in time, with exit code 0, and releases the step."""
    with drawn.daemon(**LOCAL | {"RENDER_PROCESSES": "1"}, DRAIN_SECONDS="3").started() as daemon:
        _, _, (run_id, (step_id,)), renderer = _one_stuck_step(drawn, daemon)
        began = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - began < 3 + 1
        assert daemon.named("lease_released")
    assert not is_running(renderer)
    assert drawn.step(run_id, step_id)["status"] == "RUNNING"


def test_a_lost_lease_ends_the_drawing(drawn):
    """Within two seconds after the loss is noticed; other charts are drawn."""
    changes = {"RENDER_PROCESSES": "1", "LEASE_SECONDS": "3", "CLOCK_SKEW_SECONDS": "1"}
    with drawn.daemon(**LOCAL | changes).started() as daemon:
        _, _, (run_id, (step_id,)), renderer = _one_stuck_step(drawn, daemon)
        field = drawn.documents.field_path("steps", step_id, "status")
        drawn.documents.document(f"flow_runs/{run_id}").update({field: "CANCELLED"})
        began = time.monotonic()
        wait_until(lambda: not is_running(renderer), "end of the process", 10)
        assert time.monotonic() - began < 1 + 2  # the leases are looked at every second
        _publish(drawn)
        daemon.wait_for_event("step_completed", count=2)
        assert daemon.terminate() == 0


def test_the_start_of_processes_keeps_the_signal_mask(drawn):
    """All threads still block stop signals: only the thread that waits for them gets them."""
    stop_signals = (1 << (signal.SIGTERM - 1)) | (1 << (signal.SIGINT - 1))
    with drawn.daemon(**LOCAL).started() as daemon:
        _publish(drawn)
        daemon.wait_for_event("step_completed")
        masks = {}
        for status in Path(f"/proc/{daemon.process.pid}/task").glob("*/status"):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            masks[status.parent.name] = int(fields["SigBlk"], 16)
        open_threads = [thread for thread, mask in masks.items() if mask & stop_signals != stop_signals]
        assert len(open_threads) <= 1  # `sigwait` may show as not blocked
        assert daemon.terminate() == 0
