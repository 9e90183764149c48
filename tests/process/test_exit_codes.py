"""What a daemon process says when it can't go on, and that it goes on when it can.

Those that end at the start are new interpreters.
"""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.support.cloud.resources import SECRET_KEY, ready
from tests.support.process.daemons import ROOT, DaemonUnderTest


@pytest.mark.official
def test_a_missing_subscription_is_exit_3(official_deployment):
    """Nobody can work a subscription that is not there; the line says which."""
    missing = f"projects/{official_deployment.project}/subscriptions/nobody-made-this"
    with official_deployment.daemon(fresh=True, PUBSUB_SUBSCRIPTION=missing) as daemon:
        assert daemon.wait(30) == 3
    assert daemon.named("daemon_started") == []
    assert any(missing in line["message"] or "NotFound" in line["message"] for line in daemon.events)
    assert daemon.other_output == []


@pytest.mark.official
def test_a_subscription_deleted_later_is_exit_3(official_deployment):
    """The stream's end is noticed, and is no reason to pull for ever."""
    with official_deployment.daemon().started() as daemon:
        official_deployment.subscriber.delete_subscription(subscription=official_deployment.subscription)
        assert daemon.wait(60) == 3
    assert daemon.other_output == []


def test_missing_credentials_are_exit_3():
    """Without an emulator and without credentials there is nothing to try; one line says so."""
    settings = {
        "GOOGLE_CLOUD_PROJECT": "p",
        "PUBSUB_SUBSCRIPTION": "charts",
        "CHARTS_BUCKET": "gs://charts",
        "CHARTS_API_MODE": "local",
        "HEALTH_PORT": "0",
        "NO_GCE_CHECK": "true",
        "HOME": "/nonexistent",
    }
    with DaemonUnderTest(settings, fresh=True) as daemon:
        assert daemon.wait(30) == 3
    assert "credentials" in daemon.events[-1]["message"]
    assert daemon.other_output == []


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_http_client_that_can_t_be_opened_is_exit_2_and_shows_no_key(deployment, log_format):
    """The key stands in a frame of the call that failed; no traceback may show it."""
    proxy = {"HTTPS_PROXY": "foo://bar:1", "ALL_PROXY": "foo://bar:1"}
    with deployment.daemon(LOG_FORMAT=log_format, **proxy) as daemon:
        assert daemon.wait(30) == 2
    output = f"{daemon.events}{daemon.other_output}"
    assert "HTTPS_PROXY" in output
    assert SECRET_KEY not in output


def test_a_traceback_on_the_console_shows_no_local_variables():
    """Keys stand in local variables."""
    script = """
from worker_chart_export.observability.logs import Event, configure, log

configure(level="INFO", log_format="console")
secret = "".join(["never", "to", "be", "seen"])
try:
    raise ValueError("a reason")
except ValueError as error:
    log.error(Event.INTERNAL_ERROR, "it failed", exc_info=error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ValueError: a reason" in done.stdout
    assert "nevertobeseen" not in done.stdout + done.stderr


def test_bad_settings_are_exit_2_and_all_named():
    """One run is enough to learn of every wrong setting."""
    settings = {"CHARTS_BUCKET": "charts", "WORKER_CONCURRENCY": "many", "LOG_FORMAT": "xml"}
    with DaemonUnderTest(settings, fresh=True) as daemon:
        assert daemon.wait(30) == 2
    words = "\n".join(line["message"] for line in daemon.events)
    for name in (
        "GOOGLE_CLOUD_PROJECT",
        "PUBSUB_SUBSCRIPTION",
        "CHARTS_BUCKET",
        "CHART_IMG_ACCOUNTS_JSON",
        "WORKER_CONCURRENCY",
        "LOG_FORMAT",
    ):
        assert name in words
    assert daemon.other_output == []


def test_a_busy_health_port_is_exit_2(deployment):
    """Two daemons can't share a port; the line names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with deployment.daemon(fresh=True, HEALTH_PORT=str(taken.getsockname()[1])) as daemon:
            assert daemon.wait(30) == 2
    assert "HEALTH_PORT" in daemon.events[-1]["message"]


def test_pubsub_that_is_merely_away_is_waited_for(deployment):
    """The daemon starts without its backend, keeps trying, and works once it is there."""
    deployment.cloud.pubsub.stop()
    with deployment.daemon() as daemon:
        daemon.wait_for_event("stream_ended")
        assert daemon.process.poll() is None
        deployment.cloud.pubsub.start()
        daemon.started()
        assert ready(daemon) == (200, {"status": "ok"})
        run_id, (step_id,) = deployment.put_run()
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_a_daemon_without_a_stream_can_be_stopped(deployment):
    """A signal ends the waiting for Pub/Sub too."""
    deployment.cloud.pubsub.stop()
    with deployment.daemon() as daemon:
        daemon.wait_for_event("stream_ended")
        assert daemon.terminate(10) == 0
