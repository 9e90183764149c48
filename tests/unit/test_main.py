"""The daemon's life: the parts of it that need no process."""

from __future__ import annotations

import time
from concurrent.futures import Future

import pytest
from google.api_core import exceptions as google_errors

from daemon.exit_codes import ExitCode
from daemon.main import Daemon, run_daemon
from daemon.settings import Settings


@pytest.fixture
def daemon():
    """One that has not started."""
    return Daemon(
        Settings(
            google_cloud_project="demo-project",
            pubsub_subscription="charts-sub",
            charts_bucket="gs://charts-demo",
            charts_api_mode="local",
            drain_seconds=1,
        )
    )


def _ended(error=None):
    future = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


@pytest.mark.parametrize(
    ("stream", "closed"),
    [
        (None, True),
        (_ended(), True),
        (_ended(google_errors.NotFound("x")), True),
        (_ended(RuntimeError("x")), True),
        (Future(), False),
    ],
    ids=["none", "closed", "refused", "broken", "open"],
)
def test_a_stream_counts_as_closed_however_it_ended(daemon, stream, closed):
    """A drain that went well is exit code 0, also when the stream broke meanwhile."""
    daemon._stream = stream
    assert daemon._stream_closed(time.monotonic()) is closed


@pytest.mark.parametrize(
    ("stream", "reason"),
    [(None, "no stream is open"), (_ended(), "no stream is open"), (Future(), None)],
    ids=["none", "ended", "open"],
)
def test_a_daemon_is_ready_while_its_stream_is_open(daemon, stream, reason):
    """Not before and not after."""
    daemon._stream = stream
    assert daemon._why_not_ready() == reason


def test_a_draining_daemon_is_not_ready(daemon):
    """Though its stream is open."""
    daemon._stream = Future()
    daemon._drain.start()
    assert daemon._why_not_ready() == "draining"


@pytest.mark.parametrize("stream", [None, _ended()], ids=["none", "ended"])
def test_a_delivery_that_hangs_is_exit_code_4_though_no_stream_is_open(daemon, stream, log_lines):
    """The drain waits for deliveries, not only for the stream, and no longer than it may (1 s here)."""
    daemon._stream = stream
    started = time.monotonic()
    with daemon._drain.delivery():
        assert daemon._stop(ExitCode.OK, "test", since=started) is ExitCode.DRAIN_TIMEOUT
    assert 0.9 < time.monotonic() - started < 3
    assert log_lines()[-1]["exitCode"] == 4


def test_wrong_settings_are_one_line_each_and_exit_code_2(monkeypatch, log_lines, capsys):
    """Systemd does not try again."""
    assert log_lines() == []
    monkeypatch.setenv("WORKER_CONCURRENCY", "many")
    assert run_daemon() is ExitCode.BAD_SETTINGS
    named = [
        line.partition('"message": "')[2].partition(":")[0] for line in capsys.readouterr().out.splitlines()
    ]
    assert {"GOOGLE_CLOUD_PROJECT", "PUBSUB_SUBSCRIPTION", "CHARTS_BUCKET", "WORKER_CONCURRENCY"} <= set(
        named
    )
