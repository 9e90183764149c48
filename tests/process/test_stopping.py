"""Stopping a daemon process with real signals: finished work stays finished, and it always ends.

Where a signal or an exit code is the subject, the daemon is a new interpreter.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import health
from tests.support.process.daemons import ROOT, DaemonUnderTest, clean_environment

OK = {"status": "ok"}


def start_steps(deployment, daemon, *, count, latency_seconds):
    """Start `count` steps, each of which waits for a slow chart."""
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
    """SIGTERM lets eight steps finish with exit code 0, and no message is delivered again."""
    deployment = official_deployment
    with deployment.daemon(fresh=True, DRAIN_SECONDS="20").started() as daemon:
        run_id, step_ids = start_steps(deployment, daemon, count=8, latency_seconds=2.0)
        started = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - started < 20
        assert len(daemon.named("step_completed")) == 8
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}

    with deployment.daemon().started() as second:
        # A message with a lost ack would come back after the ack deadline of 10 s: so 15 s of silence.
        with pytest.raises(AssertionError, match="waited for 1 x message_received"):
            second.wait_for_event("message_received", timeout_seconds=15)
        assert second.terminate() == 0
    assert len(deployment.cloud.chart_img.requests) == 8


def test_sigint_drains_too(deployment):
    """SIGINT drains like SIGTERM."""
    with deployment.daemon(fresh=True).started() as daemon:
        start_steps(deployment, daemon, count=2, latency_seconds=1.0)
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 0
    assert len(daemon.named("step_completed")) == 2


def test_no_message_of_a_finished_step_is_left_after_the_drain(deployment):
    """All acks are sent before the process ends, so the subscription is empty."""
    with deployment.daemon().started() as daemon:
        start_steps(deployment, daemon, count=8, latency_seconds=1.0)
        assert daemon.terminate() == 0
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 0
    assert {line["disposition"] for line in daemon.named("message_settled")} == {"ack"}


def test_messages_that_never_started_go_back(deployment):
    """A stop releases messages that wait for a thread, and another daemon works them."""
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
    """A step that exceeds the drain is interrupted, and its message is nacked."""
    with deployment.daemon(DRAIN_SECONDS="5").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=60.0)
        started = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - started < 5
    assert [line["disposition"] for line in daemon.named("message_settled")] == ["nack"]


def test_without_firestore_a_stop_is_a_clean_one(deployment):
    """A lease that can't be released is given up before the time for settling messages ends."""
    with deployment.daemon(DRAIN_SECONDS="10").started() as daemon:
        start_steps(deployment, daemon, count=2, latency_seconds=60.0)
        deployment.cloud.firestore.faults.add(Fault(error="UNAVAILABLE"))
        assert daemon.terminate() == 0
    assert [line["disposition"] for line in daemon.named("message_settled")] == ["nack", "nack"]
    assert daemon.named("lease_released") == []


def test_a_hanging_read_does_not_hold_the_process(deployment):
    """A read that hangs before the claim ends with the drain's time and exit code 4."""
    hang = deployment.cloud.firestore.faults.add(
        Fault(method="BatchGetDocuments", match="flow_runs", delay_seconds=60)
    )
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


def test_a_pubsub_that_does_not_respond_does_not_hold_a_stop(deployment):
    """The drain's time starts with the signal, also when Pub/Sub does not respond."""
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
    """A second signal stops the process at once."""
    with deployment.daemon(fresh=True, DRAIN_SECONDS="60").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=60.0)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("drain_started")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 4
        assert time.monotonic() - started < 2


def test_two_signals_right_after_each_other_stop_at_once(deployment):
    """A second signal right after the first also stops the process at once."""
    with deployment.daemon(fresh=True, DRAIN_SECONDS="60").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=60.0)
        daemon.signal(signal.SIGINT)
        daemon.signal(signal.SIGTERM)
        started = time.monotonic()
        assert daemon.wait() == 4
        assert time.monotonic() - started < 2


@pytest.fixture
def stalled(deployment):
    """Return a daemon whose output nobody reads, and both ends of the full pipe."""
    reader, writer = os.pipe()
    os.write(writer, b"-" * fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096))
    settings = clean_environment(deployment.settings(DRAIN_SECONDS="5"))
    process = subprocess.Popen([sys.executable, "-m", "daemon"], cwd=ROOT, env=settings, stdout=writer)
    os.close(writer)
    yield process, reader
    process.kill()
    process.wait(10)
    os.close(reader)


def until_succeeded(deployment, run_id, step_ids):
    """Wait until the steps are done."""
    deadline = time.monotonic() + 40
    while {deployment.step(run_id, step_id)["status"] for step_id in step_ids} != {"SUCCEEDED"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_steps_are_done_while_nobody_reads_the_log(deployment, stalled):
    """Lines wait, hold neither a step nor a stop, and come in their order once they are read."""
    process, reader = stalled
    run_id, step_ids = deployment.put_run(steps=4)
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)
    until_succeeded(deployment, run_id, step_ids)
    process.send_signal(signal.SIGTERM)
    with open(reader, encoding="ascii", closefd=False) as pipe:
        lines = pipe.read().lstrip("-").splitlines()
    assert process.wait(20) == 0
    events = [json.loads(line)["event"] for line in lines]
    assert (events[0], events[-1], events.count("step_completed")) == ("daemon_started", "daemon_stopped", 4)


def test_a_pipe_without_a_reader_does_not_hold_a_stop(deployment, stalled):
    """The last lines wait for a second, and the exit code is that of the drain."""
    process, _ = stalled
    run_id, step_ids = deployment.put_run()
    deployment.publish_step(run_id, *step_ids)
    until_succeeded(deployment, run_id, step_ids)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - started < 1 + 3  # the delay of a busy machine


def test_a_daemon_that_drains_is_alive_and_not_ready(deployment):
    """While it drains a daemon is alive and not ready."""
    with deployment.daemon(DRAIN_SECONDS="20").started() as daemon:
        start_steps(deployment, daemon, count=1, latency_seconds=3.0)
        assert (health(daemon, "livez"), health(daemon, "readyz")) == ((200, OK), (200, OK))
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("drain_started")
        assert health(daemon, "livez") == (200, OK)
        assert health(daemon, "readyz") == (503, {"status": "not ready", "reason": "draining"})
        assert daemon.wait() == 0


def test_a_stop_during_the_search_for_credentials_is_a_clean_one(deployment):
    """A stop while the metadata server is silent ends the start at once."""
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
