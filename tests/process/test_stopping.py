"""Stopping a daemon process with real signals: nothing finished is done again, and it always ends.

Where a signal or an exit code is the subject, the daemon is a new interpreter.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import health
from tests.support.process.daemons import ROOT, DaemonUnderTest, clean_environment

OK = {"status": "ok"}


def start_steps(deployment, daemon, *, count, latency_seconds):
    """Put `count` steps in flight, each waiting for a slow chart."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=latency_seconds))
    run_id, step_ids = deployment.put_run(steps=count, charts=1)
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)
    daemon.wait_until(
        lambda: sum(line["claimed"] for line in daemon.named("claim_attempt")) >= count, f"{count} claims", 20
    )
    return run_id, step_ids


@pytest.mark.official
def test_sigterm_lets_eight_steps_finish_and_loses_no_ack(official_deployment):
    """Exit 0 inside the drain's time; a daemon started afterwards is given none of the messages again."""
    deployment = official_deployment
    with deployment.daemon(fresh=True, DRAIN_SECONDS="20").started() as daemon:
        run_id, step_ids = start_steps(deployment, daemon, count=8, latency_seconds=2.0)
        started = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - started < 20
        assert len(daemon.named("step_completed")) == 8
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}

    with deployment.daemon().started() as second:
        # A message whose ack was lost would be back after the ack deadline, 10 s: so 15 s of silence.
        with pytest.raises(AssertionError, match="waited for 1 x message_received"):
            second.wait_for_event("message_received", timeout_seconds=15)
        assert second.terminate() == 0
    assert len(deployment.cloud.chart_img.requests) == 8


def test_sigint_drains_too(deployment):
    """Ctrl-C is as gentle as SIGTERM."""
    with deployment.daemon(fresh=True).started() as daemon:
        start_steps(deployment, daemon, count=2, latency_seconds=1.0)
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 0
    assert len(daemon.named("step_completed")) == 2


def test_no_message_of_a_finished_step_is_left_after_the_drain(deployment):
    """All acks are flushed before the process ends: the subscription holds nothing any more."""
    with deployment.daemon().started() as daemon:
        start_steps(deployment, daemon, count=8, latency_seconds=1.0)
        assert daemon.terminate() == 0
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 0
    assert {line["disposition"] for line in daemon.named("message_settled")} == {"ack"}


def test_messages_that_never_started_go_back(deployment):
    """What waits behind busy threads is not lost by a stop: another daemon works it."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=1.5, times=2))
    run_id, step_ids = deployment.put_run(steps=6, charts=1)
    with deployment.daemon(WORKER_CONCURRENCY="2").started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("claim_attempt", count=2)
        assert daemon.terminate() == 0
    assert len(daemon.named("step_completed")) == 2
    with deployment.daemon().started() as second:
        second.wait_for_event("step_completed", count=4)
        assert second.terminate() == 0
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert len(deployment.cloud.chart_img.requests) == 6


def test_a_step_that_does_not_finish_in_time_is_stopped(deployment):
    """The drain's time bounds the process: the step is interrupted, its message goes back."""
    with deployment.daemon(DRAIN_SECONDS="5").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=60.0)
        started = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - started < 5
    assert [line["disposition"] for line in daemon.named("message_settled")] == ["nack"]


def test_a_delivery_that_hears_no_stop_does_not_hold_the_process(deployment):
    """A read that hangs before the claim: no step to stop, so the drain's time ends it, with exit code 4."""
    hang = deployment.cloud.firestore.faults.add(Fault(method="BatchGetDocuments", delay_seconds=60))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon(fresh=True, DRAIN_SECONDS="2").started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_until(lambda: deployment.cloud.firestore.faults.fired(hang) == 1, "a read that hangs", 20)
        started = time.monotonic()
        assert daemon.terminate() == 4
        assert 1.5 < time.monotonic() - started < 2 + 2
    deployment.cloud.firestore.faults.remove(hang)
    (stopped,) = daemon.named("daemon_stopped")
    assert stopped["exitCode"] == 4
    assert daemon.named("message_settled") == []
    assert deployment.step(run_id, step_id)["status"] == "READY"
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 1


def test_a_black_hole_in_place_of_pubsub_does_not_hold_a_stop(deployment):
    """The drain's time starts with the signal, whatever the daemon is waiting for."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with deployment.daemon(PUBSUB_EMULATOR_HOST=address, DRAIN_SECONDS="3", LOG_LEVEL="DEBUG") as daemon:
            daemon.wait_for_event("stream_opening")
            started = time.monotonic()
            assert daemon.terminate() == 0
            assert time.monotonic() - started < 3


def test_a_second_signal_stops_at_once(deployment):
    """Whoever signals twice does not want to wait."""
    with deployment.daemon(fresh=True, DRAIN_SECONDS="60").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=60.0)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("drain_started")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 4
        assert time.monotonic() - started < 2


def test_two_signals_right_after_each_other_stop_at_once(deployment):
    """The second may come before the daemon has heard the first."""
    with deployment.daemon(fresh=True, DRAIN_SECONDS="60").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=60.0)
        daemon.signal(signal.SIGINT)
        daemon.signal(signal.SIGTERM)
        started = time.monotonic()
        assert daemon.wait() == 4
        assert time.monotonic() - started < 2


def hangs_in_a_pipe(pid):
    """Whether a thread of the process waits for somebody to read what it writes."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return any(task.joinpath("wchan").read_text().endswith("pipe_write") for task in tasks)


def test_a_pipe_that_nobody_reads_does_not_hold_a_stop(deployment):
    """Writing a log line may hang for ever; the process ends all the same, a little after its time."""
    reader, writer = os.pipe()
    os.write(writer, b"-" * fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096))
    settings = clean_environment(deployment.settings(DRAIN_SECONDS="2"))
    process = subprocess.Popen([sys.executable, "-m", "daemon"], cwd=ROOT, env=settings, stdout=writer)
    try:
        deadline = time.monotonic() + 30
        while not hangs_in_a_pipe(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert hangs_in_a_pipe(process.pid)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 4
        assert time.monotonic() - started < 2 + 3  # half a second late, and what a loaded machine adds
    finally:
        process.kill()
        process.wait(10)
        os.close(reader)
        os.close(writer)


def test_a_daemon_that_drains_is_alive_and_not_ready(deployment):
    """No restart, and no traffic."""
    with deployment.daemon(DRAIN_SECONDS="20").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=3.0)
        assert (health(daemon, "livez"), health(daemon, "readyz")) == ((200, OK), (200, OK))
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("drain_started")
        assert health(daemon, "livez") == (200, OK)
        assert health(daemon, "readyz") == (503, {"status": "not ready", "reason": "draining"})
        assert daemon.wait() == 0


def test_a_stop_while_credentials_are_sought_is_a_clean_one(deployment):
    """A metadata server that says nothing holds the start for many seconds; the stop does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = deployment.settings(STORAGE_EMULATOR_HOST=None, GCE_METADATA_HOST=address)
        with DaemonUnderTest(settings | {"GCE_METADATA_IP": address}, fresh=True) as daemon:
            silent.settimeout(20)
            with silent.accept()[0]:
                started = time.monotonic()
                assert daemon.terminate() == 0
    assert time.monotonic() - started < 3
    assert [line["exitCode"] for line in daemon.named("daemon_stopped")] == [0]
