"""The notifications of a real daemon process to systemd, on a notify socket of the test."""

from __future__ import annotations

import itertools
import signal
import time

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import health, ready
from tests.support.process.daemons import DaemonUnderTest
from tests.support.process.freezable_daemon import FREEZE, SILENT_SECONDS
from tests.support.process.notify_socket import NotifySocket

WATCHDOG_SECONDS = 2.0
#: The daemon sends at a quarter of the watchdog's time. On a busy machine it can be late.
SILENCE_SECONDS = 3.0


@pytest.fixture
def notifications(tmp_path):
    """Return the socket for the daemon's datagrams."""
    with NotifySocket(str(tmp_path / "notify")) as notify_socket:
        yield notify_socket


def under_systemd(deployment, notifications, *, module="daemon", fresh=False, **changed):
    """Return a daemon started as by systemd."""
    usec = str(int(WATCHDOG_SECONDS * 1e6))
    settings = deployment.settings(NOTIFY_SOCKET=notifications.address, WATCHDOG_USEC=usec, **changed)
    return DaemonUnderTest(settings, module=module, fresh=fresh)


def fed_often(notifications):
    """Return whether the watchdog was fed in time during this time."""
    times = notifications.times_of("WATCHDOG=1")
    return all(after - before < WATCHDOG_SECONDS for before, after in itertools.pairwise(times))


def test_ready_comes_once_the_stream_is_open_and_the_time_to_start_is_extended_until_then(
    deployment, notifications
):
    """READY is sent when the stream is open; until then the start time is extended."""
    deployment.cloud.pubsub.stop()
    with under_systemd(deployment, notifications, fresh=True) as daemon:
        notifications.wait_for("EXTEND_TIMEOUT_USEC=30000000", count=4)
        assert notifications.values_of("STATUS") == ["Starting: no stream is open"]
        assert notifications.values_of("READY") == notifications.values_of("WATCHDOG") == []
        deployment.cloud.pubsub.start()
        (at,) = notifications.wait_for("READY=1")
        daemon.wait_for_event("daemon_started")
        assert notifications.values_of("STATUS")[-1] == f"Pulling from {deployment.subscription}"
        notifications.wait_for("WATCHDOG=1", count=5)
        assert (
            max(notifications.times_of("EXTEND_TIMEOUT_USEC=30000000"))
            < at
            <= notifications.times_of("WATCHDOG=1")[0]
        )
        assert fed_often(notifications)
        assert notifications.values_of("READY") == ["1"]


def test_a_stop_is_reported_with_its_time_and_the_watchdog_is_fed_to_the_end(deployment, notifications):
    """STOPPING has the drain's time, the watchdog is fed to the end, and the status has the steps."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=3.0))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with under_systemd(deployment, notifications, DRAIN_SECONDS="20").started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("claim_attempt")
        daemon.signal(signal.SIGTERM)
        (at,) = notifications.wait_for("STOPPING=1")
        assert 20.5 < int(notifications.values_of("EXTEND_TIMEOUT_USEC")[-1]) / 1e6 <= 20 + 0.5 + 5
        assert notifications.values_of("STATUS")[-1] == "Draining, steps running: 1"
        assert daemon.wait() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert len([fed for fed in notifications.times_of("WATCHDOG=1") if fed > at]) >= 4
    assert fed_often(notifications)


def _is_paused(notifications):
    wanted = "Waiting: intake is paused: storage is unavailable: "
    return any(status.startswith(wanted) for status in notifications.values_of("STATUS"))


def test_an_unavailable_backend_does_not_stop_the_watchdog(deployment, notifications):
    """During an outage the watchdog is fed, and the status names the backend."""
    deployment.cloud.storage.faults.add(Fault(error=503))
    run_id, step_ids = deployment.put_run(steps=6, charts=1)
    with under_systemd(deployment, notifications, STEP_TIMEOUT_SECONDS="1").started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("intake_paused")
        notifications.wait_until(lambda: _is_paused(notifications), 30)
        before = len(notifications.times_of("WATCHDOG=1"))
        notifications.wait_for("WATCHDOG=1", count=before + 6)
        assert fed_often(notifications)
        assert ready(daemon)[0] == 503
        assert daemon.terminate() == 0


def test_a_frozen_loop_stops_the_watchdog(deployment, notifications):
    """A frozen loop stops the watchdog although all other threads run, and the health page names it."""
    with under_systemd(
        deployment, notifications, module="tests.support.process.freezable_daemon"
    ).started() as daemon:
        notifications.wait_for("WATCHDOG=1", count=2)
        daemon.signal(FREEZE)
        froze = time.monotonic()
        daemon.wait_until(lambda: is_given_up(daemon), "the end of the keep-alives", 20)
        fed = notifications.times_of("WATCHDOG=1")
        assert fed[-1] - froze < SILENT_SECONDS + WATCHDOG_SECONDS + 1  # the loop ticks once a second
        status, body = health(daemon, "livez")
        assert (status, body["reason"].partition(" for ")[0]) == (503, "loop main is silent")
        with pytest.raises(AssertionError, match="the last of"):
            notifications.wait_for("WATCHDOG=1", count=len(fed) + 1, timeout_seconds=SILENCE_SECONDS)


def is_given_up(daemon):
    """Return whether the log says that no more keep-alives are sent, and why."""
    text = "No more keep-alives for the service manager: loop main is silent"
    return any(line["message"].startswith(text) for line in daemon.named("liveness_lost"))


def test_a_socket_that_vanishes_harms_no_work(deployment, notifications, tmp_path):
    """A vanished socket is logged once and does not disturb the work."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    with under_systemd(deployment, notifications).started() as daemon:
        notifications.wait_for("READY=1")
        (tmp_path / "notify").unlink()
        daemon.wait_for_event("notify_failed")
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    (line,) = daemon.named("notify_failed")
    assert (line["severity"], "Could not send WATCHDOG=1" in line["message"]) == ("WARNING", True)
