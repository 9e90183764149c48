"""Which signals stop a daemon process, at which moments, and what it needs for a stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from localcloud.faults import Fault
from tests.support.process.crowded_daemon import CROWDED, MORE_THREADS, limit_threads
from tests.support.process.daemons import ROOT, clean_environment


@contextmanager
def inherited(number, action):
    """Let processes that are started inside inherit this action of a signal."""
    before = signal.signal(number, action)
    try:
        yield
    finally:
        signal.signal(number, before)


def start_slow_step(deployment, daemon, *, seconds):
    """Start a step that waits this long for its chart."""
    call = deployment.cloud.chart_img.faults.add(Fault(delay_seconds=seconds))
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    daemon.wait_until(lambda: deployment.cloud.chart_img.faults.fired(call) == 1, "a call", 20)
    return run_id, step_id


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_these_signals_drain_as_sigterm_does(deployment, number):
    """The closed terminal and Ctrl-C let running steps finish."""
    with inherited(signal.SIGHUP, signal.SIG_DFL):
        daemon = deployment.daemon(fresh=True)
    with daemon.started():
        run_id, step_id = start_slow_step(deployment, daemon, seconds=1.0)
        daemon.signal(number)
        assert daemon.wait() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert daemon.named("drain_started")[0]["message"] == f"Stopping: signal {number.name}"


def test_nohup_and_a_closed_pipe_stop_nothing(deployment):
    """A daemon under `nohup` ignores SIGHUP; SIGPIPE never ends one."""
    with inherited(signal.SIGHUP, signal.SIG_IGN):
        daemon = deployment.daemon(fresh=True)
    with daemon.started():
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGPIPE)
        run_id, (step_id,) = deployment.put_run()
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.named("drain_started") == []
        assert daemon.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_while_the_daemon_s_modules_load_is_a_clean_one(deployment, number):
    """From its first line on the daemon stops in order, with nothing but JSON in its output."""
    # Importing the daemon's first module sends the signal.
    first = (
        "import os; import daemon.__main__ as m; m.block_stop_signals(); os.kill(os.getpid(), {}); m.main()"
    )
    with inherited(signal.SIGHUP, signal.SIG_DFL):
        done = subprocess.run(
            [sys.executable, "-c", first.format(number.value)],
            cwd=ROOT,
            env=clean_environment(deployment.settings()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"daemon_stopped"' in done.stdout


def test_a_second_signal_releases_the_lease(deployment):
    """The process ends at once, and another daemon can take the step over at once."""
    with deployment.daemon(fresh=True, DRAIN_SECONDS="60").started() as daemon:
        run_id, step_id = start_slow_step(deployment, daemon, seconds=60.0)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("drain_started")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 4
        assert time.monotonic() - started < 2
    lease = deployment.documents.document(f"flow_runs/{run_id}/chart_export_leases/{step_id}").get().to_dict()
    assert (lease["token"], lease["released"]) == ("", 1)
    assert deployment.step(run_id, step_id)["status"] == "RUNNING"


def test_a_second_signal_ends_the_process_though_firestore_is_silent(deployment):
    """The release of the lease gets half a second, and no more."""
    with deployment.daemon(fresh=True, DRAIN_SECONDS="60").started() as daemon:
        start_slow_step(deployment, daemon, seconds=60.0)
        deployment.cloud.firestore.faults.add(Fault(delay_seconds=60))
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("drain_started")
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 4
        assert time.monotonic() - started < 2


def _wait_for_open_stream(deployment, daemon):
    """Wait for a message that needs no work: Google's client opens the call in a thread of its own."""
    deployment.publish(b"", **{"ce-type": "other"})
    daemon.wait_for_event("message_ignored")


@pytest.mark.parametrize("more", ["0", "2"])
def test_a_daemon_without_threads_left_works_and_stops(deployment, more):
    """Neither a step nor a stop needs a thread that does not exist from the start."""
    with deployment.daemon(module=CROWDED, **{MORE_THREADS: more}).started() as daemon:
        _wait_for_open_stream(deployment, daemon)
        limit_threads(daemon.process.pid)
        run_id, step_ids = deployment.put_run(steps=4, charts=4)
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("claim_attempt", count=4)
        assert daemon.terminate() == 0
    assert daemon.other_output == []
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 0


def test_an_idle_daemon_without_threads_left_stops_in_order(deployment):
    """The stream is closed by a thread that exists from the start."""
    with deployment.daemon(module=CROWDED, **{MORE_THREADS: "0"}).started() as daemon:
        _wait_for_open_stream(deployment, daemon)
        limit_threads(daemon.process.pid)
        assert daemon.terminate() == 0
    assert daemon.named("daemon_stopped")[0]["exitCode"] == 0
    assert daemon.other_output == []
