"""The exits of a daemon process, and the errors after which it continues.

Tests of errors at the start run new interpreters.
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
    """A missing subscription gives exit code 3 and a line with its name."""
    missing = f"projects/{official_deployment.project}/subscriptions/nobody-made-this"
    with official_deployment.daemon(fresh=True, PUBSUB_SUBSCRIPTION=missing) as daemon:
        assert daemon.wait(30) == 3
    assert daemon.named("daemon_started") == []
    assert any(missing in line["message"] or "NotFound" in line["message"] for line in daemon.events)
    assert daemon.other_output == []


@pytest.mark.official
def test_a_subscription_deleted_later_is_exit_3(official_deployment):
    """A subscription that is deleted later gives exit code 3."""
    with official_deployment.daemon().started() as daemon:
        official_deployment.subscriber.delete_subscription(subscription=official_deployment.subscription)
        assert daemon.wait(60) == 3
    assert daemon.other_output == []


def test_missing_credentials_are_exit_3():
    """Missing credentials without an emulator give exit code 3 and one line."""
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
    """An HTTP client that can't be built gives exit code 2, and no traceback shows the key."""
    proxy = {"HTTPS_PROXY": "foo://bar:1", "ALL_PROXY": "foo://bar:1"}
    elsewhere = "http://chart-img.invalid"  # no proxy is used for this machine itself
    with deployment.daemon(LOG_FORMAT=log_format, CHART_IMG_BASE_URL=elsewhere, **proxy) as daemon:
        assert daemon.wait(30) == 2
    output = f"{daemon.events}{daemon.other_output}"
    assert "HTTPS_PROXY" in output
    assert SECRET_KEY not in output


def test_a_traceback_on_the_console_shows_no_local_variables():
    """A traceback on the console has no local variables, because they may hold keys."""
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
    """All wrong settings are named in one run with exit code 2."""
    settings = {"CHARTS_BUCKET": "charts", "WORKER_CONCURRENCY": "many", "LOG_FORMAT": "xml"}
    with DaemonUnderTest(settings, fresh=True) as daemon:
        assert daemon.wait(30) == 2
    expected = "\n".join(line["message"] for line in daemon.events)
    for name in (
        "GOOGLE_CLOUD_PROJECT",
        "PUBSUB_SUBSCRIPTION",
        "CHARTS_BUCKET",
        "CHART_IMG_ACCOUNTS_JSON",
        "WORKER_CONCURRENCY",
        "LOG_FORMAT",
    ):
        assert name in expected
    assert daemon.other_output == []


def test_a_busy_health_port_is_exit_2(deployment):
    """A busy health port gives exit code 2, and the line names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with deployment.daemon(fresh=True, HEALTH_PORT=str(taken.getsockname()[1])) as daemon:
            assert daemon.wait(30) == 2
    assert "HEALTH_PORT" in daemon.events[-1]["message"]


def test_an_unavailable_pubsub_is_waited_for(deployment):
    """A daemon that starts without Pub/Sub keeps trying and works when it is available."""
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
    """A signal stops a daemon that waits for Pub/Sub."""
    deployment.cloud.pubsub.stop()
    with deployment.daemon() as daemon:
        daemon.wait_for_event("stream_ended")
        assert daemon.terminate(10) == 0
