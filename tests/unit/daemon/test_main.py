"""The daemon's life, without a process."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from daemon.composition import _readiness, build_daemon
from daemon.exit import ExitCode
from daemon.lifecycle.liveness import Liveness
from daemon.lifecycle.stoppable_wait import StoppableWait
from daemon.main import Daemon, run_daemon
from daemon.settings import Settings
from tests.support.fakes import scope_of
from tests.support.process.daemons import ROOT
from worker_chart_export.errors import BackendUnavailable


@pytest.fixture
def daemon():
    """Return a daemon that has not started."""
    return Daemon(
        Settings(
            google_cloud_project="demo-project",
            pubsub_subscription="charts-sub",
            charts_bucket="gs://charts-demo",
            charts_api_mode="local",
            drain_seconds=2,
        )
    )


class FakeSupervisor:
    """A stream that closes in time or not."""

    def __init__(self, *, is_open=True, closes=True):
        self.is_open = is_open
        self.closes = closes

    def cancel(self):
        """Close the stream."""
        self.is_open = False

    def wait_until_ended(self, seconds):
        """Return the result without waiting."""
        assert seconds >= 0
        return self.closes


def _worker(release_all=None):
    """Return the parts of a worker that the process's life needs."""

    def probe():
        """Pass the probe of both backends."""

    return SimpleNamespace(
        documents=None,
        ledger=SimpleNamespace(probe=probe, release_all=release_all, owner="host:1:boot"),
        artifacts=SimpleNamespace(probe=probe),
        pipeline=None,
        chart_img=None,
        warnings=lambda: (),
        clock=None,
    )


def _breaker(daemon):
    """Return the circuit breaker as a daemon connects it."""
    parts = build_daemon(
        daemon._settings, _worker(), drain=daemon._drain, liveness=Liveness(), waiter=StoppableWait()
    )
    return parts.breaker


def _parts(daemon, *, is_open=True):
    """Return the parts that readiness uses."""
    supervisor, breaker, worker = FakeSupervisor(is_open=is_open), _breaker(daemon), _worker()
    return SimpleNamespace(
        supervisor=supervisor,
        breaker=breaker,
        worker=worker,
        readiness=_readiness(worker, daemon._drain, breaker, supervisor),
    )


@pytest.fixture
def stop(daemon, log_lines):
    """Drain the daemon; return its exit code, the duration and the times for releasing leases."""

    def stopped(code=ExitCode.OK, *, supervisor=None):
        releases, started = [], time.monotonic()

        def release_all(*, within_seconds):
            assert [line["event"] for line in log_lines()] == ["drain_started"]
            releases.append(within_seconds)

        parts = SimpleNamespace(
            supervisor=supervisor or FakeSupervisor(),
            worker=_worker(release_all),
            fleet=SimpleNamespace(leave=lambda **_limits: None),
        )
        left = daemon._stop(code, "test", since=started, parts=parts)
        return left, time.monotonic() - started, releases

    return stopped


@pytest.mark.parametrize("code", [ExitCode.OK, ExitCode.REFUSED])
def test_a_drain_that_goes_well_keeps_the_exit_code(stop, code, log_lines):
    """A drain without running work keeps the exit code, takes no time and releases nothing."""
    left, seconds, releases = stop(code)
    assert (left, releases) == (code, [])
    assert seconds < 0.55
    assert [line["event"] for line in log_lines()] == ["drain_started", "daemon_stopped"]


def test_a_delivery_that_hangs_is_exit_code_4(daemon, stop, log_lines):
    """A hanging delivery ends the drain at its limit with exit code 4 and time to release leases."""
    with daemon._drain.delivery():
        left, seconds, (within_seconds,) = stop()
    assert left is ExitCode.DRAIN_TIMEOUT
    assert 1.5 < seconds < 2.5
    assert 0 <= within_seconds < 0.45
    assert log_lines()[-1]["exitCode"] == 4


def test_a_stream_that_does_not_close_is_exit_code_4(stop):
    """A stream that does not close gives exit code 4, because acks may be lost."""
    left, _, releases = stop(supervisor=FakeSupervisor(closes=False))
    assert left is ExitCode.DRAIN_TIMEOUT
    assert len(releases) == 1


def test_a_step_is_stopped_while_there_is_time_to_release_it(daemon, stop):
    """A step is stopped while there is time to release it, and not at the very end."""
    scope, stopped = scope_of(), threading.Event()
    scope.on_stop(lambda _error: stopped.set())
    running = threading.Event()

    def work():
        with daemon._drain.running(scope):
            running.set()
            stopped.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    running.wait(10)
    left, seconds, releases = stop()
    thread.join()
    assert (left, releases) == (ExitCode.OK, [])
    assert 0.55 < seconds < 1.6


def test_a_drain_releases_threads_that_wait_at_the_open_breaker(daemon, stop):
    """A drain wakes threads at the open circuit breaker, and their messages are nacked."""
    breaker = _breaker(daemon)
    for _ in range(5):
        breaker.record_failure(BackendUnavailable("firestore", "x"))
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    came = threading.Event()

    def wait():
        with daemon._drain.delivery():
            came.set()
            answer.put(breaker.wait_until_closed())

    thread = threading.Thread(target=wait)
    thread.start()
    came.wait(10)
    left, seconds, _ = stop()
    thread.join()
    assert (left, answer.get(timeout=10)) == (ExitCode.OK, "shutdown")
    assert seconds < 0.55


@pytest.mark.parametrize(
    ("is_open", "reason"),
    [(None, "no stream is open"), (False, "no stream is open"), (True, None)],
    ids=["none", "ended", "open"],
)
def test_a_daemon_is_ready_while_its_stream_is_open(daemon, is_open, reason):
    """A daemon is ready while its stream is open, not before and not after."""
    if is_open is not None:
        daemon._parts = _parts(daemon, is_open=is_open)
    assert daemon._readiness().reason == reason


def test_a_daemon_whose_intake_is_paused_is_not_ready(daemon):
    """A daemon with paused intake is not ready and names the backends."""
    daemon._parts = _parts(daemon)
    assert daemon._readiness().reason is None
    for _ in range(5):
        daemon._parts.breaker.record_failure(BackendUnavailable("firestore", "x"))
        daemon._parts.breaker.record_failure(BackendUnavailable("storage", "x"))
    assert daemon._readiness().reason == (
        "intake is paused: firestore is unavailable: x; storage is unavailable: x"
    )


def test_a_draining_daemon_is_not_ready_but_alive(daemon, stop):
    """A draining daemon is not ready but alive, however long its loops are silent."""
    daemon._parts = _parts(daemon)
    daemon._liveness.expect("main", within_seconds=-1)
    assert daemon._liveness.why_dead() is not None
    stop()
    assert daemon._readiness().reason == "draining"
    assert daemon._liveness.why_dead() is None


def test_the_process_exits_at_its_time_limit():
    """The process exits at its time limit even when the main thread hangs."""
    script = (
        "import time; from daemon.lifecycle.signals import arm_exit_timer, forward_stop_signals; "
        "forward_stop_signals(print); arm_exit_timer(0.2); arm_exit_timer(60); time.sleep(60)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=50)
    assert done.returncode == 4
    assert time.monotonic() - started < 30


def test_a_misspelt_setting_is_logged_at_the_start(monkeypatch, log_lines, capsys):
    """A name that is nearly a setting is logged, also if other settings are wrong."""
    assert log_lines() == []
    monkeypatch.setenv("PUBSUB_SUBSCRIPTON", "charts")
    assert run_daemon() is ExitCode.BAD_SETTINGS
    lines = [line for line in capsys.readouterr().out.splitlines() if '"setting_misspelt"' in line]
    assert len(lines) == 1
    assert '"WARNING"' in lines[0]
    assert "did you mean PUBSUB_SUBSCRIPTION?" in lines[0]


def test_wrong_settings_are_one_line_each_and_exit_code_2(monkeypatch, log_lines, capsys):
    """Wrong settings give one line each and exit code 2, which systemd does not retry."""
    assert log_lines() == []
    monkeypatch.setenv("WORKER_CONCURRENCY", "many")
    assert run_daemon() is ExitCode.BAD_SETTINGS
    named = [
        line.partition('"message": "')[2].partition(":")[0] for line in capsys.readouterr().out.splitlines()
    ]
    assert {"GOOGLE_CLOUD_PROJECT", "PUBSUB_SUBSCRIPTION", "CHARTS_BUCKET", "WORKER_CONCURRENCY"} <= set(
        named
    )
