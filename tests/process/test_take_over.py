"""Daemon processes die, stop or freeze during a step, and others take it over."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from pathlib import Path

import pytest

from localcloud.faults import Fault
from tests.support.process.commands import run_command
from worker_chart_export.ledger.lease import LEASES

#: Short leases, so that a take-over needs only seconds; charts are made one by one.
SHORT = {
    "LEASE_SECONDS": "3",
    "CLOCK_SKEW_SECONDS": "1",
    "RESCUE_INTERVAL_SECONDS": "1",
    "REQUEST_CONCURRENCY": "1",
}
CHARTS = 3
WAIT_SECONDS = 30.0
#: The time for the take-over of a released step on a busy machine. Its lease would last 600 s.
AT_ONCE_SECONDS = 20.0


class Hang:
    """A provider call that hangs until it is released, or always."""

    def __init__(self, deployment, *, nth):
        self._deployment, self._nth = deployment, nth
        faults = deployment.cloud.chart_img.faults
        self._fault = faults.add(Fault(delay_seconds=600, skip=nth - 1, times=1))

    def wait(self):
        """Wait until a daemon hangs there and everything before is stored."""
        calls, faults = self._deployment.cloud.chart_img.calls, self._deployment.cloud.chart_img.faults
        assert calls.wait_for("advanced-chart", self._nth, timeout_seconds=30)
        assert faults.fired(self._fault) == 1


def _lease(deployment, run_id, step_id):
    return deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").get().to_dict()


def _leases_written(deployment):
    """Return the lease documents that are written from now on."""
    written = []

    def note(request):
        for write in request.writes:
            if LEASES in write.update.name:
                fields = write.update.fields
                written.append(
                    {"released": fields["released"].integer_value, "token": fields["token"].string_value}
                )

    deployment.cloud.firestore.faults.add(Fault(method="Commit", match=LEASES, before=note))
    return written


def _paid(deployment):
    """Return the number of charts that the provider returned."""
    return deployment.cloud.chart_img.charts_per_key.as_dict()


def _in_the_middle(deployment, daemon):
    """Start a step of three charts; its daemon has stored the first and hangs in the second."""
    hang = Hang(deployment, nth=2)
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    deployment.publish_step(run_id, step_id)
    hang.wait()
    assert len(daemon.named("chart_stored")) <= 1
    assert len(deployment.object_names()) == 1
    return run_id, step_id


def _completed(daemon, *, attempt):
    """Wait until the daemon has ended the step with this attempt; return the seconds."""
    started = time.monotonic()
    (line,) = daemon.wait_for_event("step_completed")
    assert (line["attempt"], line["status"]) == (attempt, "SUCCEEDED")
    return time.monotonic() - started


def _wait_for_status(deployment, run_id, step_id, status):
    """Wait until the step has that status."""
    reached = threading.Event()
    step = deployment.documents.field_path("steps", step_id, "status")
    deadline = time.monotonic() + WAIT_SECONDS
    while deployment.documents.document(f"flow_runs/{run_id}").get([step]).get(step) != status:
        assert time.monotonic() < deadline
        reached.wait(0.1)


def _frozen(process):
    """Return whether every thread of the process is stopped."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended since it was listed
            if task.joinpath("stat").read_text().rpartition(") ")[2][0] != "T":
                return False
    return True


def _result(deployment, run_id, step_id):
    """Return the step, and its objects with their generations."""
    blobs = deployment.objects.list_blobs(deployment.bucket)
    return deployment.step(run_id, step_id), {blob.name: blob.generation for blob in blobs}


def test_a_step_whose_daemon_was_killed_is_finished_by_another(deployment):
    """A killed daemon's stored charts are reused; the second attempt ends the step without a lease."""
    with deployment.daemon(**SHORT).started() as victim:
        run_id, step_id = _in_the_middle(deployment, victim)
        victim.kill()
    assert _lease(deployment, run_id, step_id)["attempt"] == 1
    with deployment.daemon(**SHORT).started() as second:
        _completed(second, attempt=2)
        (reused,) = second.named("chart_reused")
        assert reused["provider"] == "chart-img"
        assert second.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert len(deployment.manifest(run_id, step_id)["items"]) == CHARTS
    assert sum(_paid(deployment).values()) == CHARTS  # the call during which it died returned no chart
    assert _lease(deployment, run_id, step_id) is None
    assert second.named("lease_taken_over")[0]["formerAttempt"] == 1
    # Neither a lease nor a daemon is left, but the result says who made it.
    shown = json.loads(
        run_command("status", run_id, "--output", "json", environment=deployment.settings()).stdout
    )
    (step,) = (step for step in shown["steps"] if step["stepId"] == step_id)
    assert (step["attempt"], step["owner"]) == (2, second.named("step_completed")[0]["owner"])


def test_a_step_without_a_message_is_rescued(deployment):
    """A step whose message was acked or lost is rescued by its lease."""
    with deployment.daemon(**SHORT).started() as victim:
        run_id, step_id = _in_the_middle(deployment, victim)
        victim.kill()
    deployment.subscriber.delete_subscription(subscription=deployment.subscription)
    deployment.subscriber.create_subscription(
        name=deployment.subscription, topic=deployment.topic, ack_deadline_seconds=10
    )
    with deployment.daemon(**SHORT).started() as second:
        _completed(second, attempt=2)
        assert second.named("message_received") == []
        assert second.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert sum(_paid(deployment).values()) == CHARTS


def test_a_step_whose_daemon_is_stopped_is_released_and_taken_over_at_once(deployment):
    """A stopped daemon releases its step and nacks its message, so another takes it over at once."""
    terms = {**SHORT, "LEASE_SECONDS": "600", "RESCUE_INTERVAL_SECONDS": "600"}
    with deployment.daemon(**terms, DRAIN_SECONDS="4").started() as first:
        run_id, step_id = _in_the_middle(deployment, first)
        with deployment.daemon(**terms).started() as second:
            released = _leases_written(deployment)
            assert first.terminate() == 0
            assert [(lease["released"], lease["token"]) for lease in released[:1]] == [(1, "")]
            assert _completed(second, attempt=2) < AT_ONCE_SECONDS
            assert second.terminate() == 0
    assert [line["disposition"] for line in first.named("message_settled")] == ["nack"]
    assert len(first.named("lease_released")) == 1
    assert second.named("lease_taken_over")[0]["formerAttempt"] == 1
    assert len(second.named("chart_reused")) == 1
    assert sum(_paid(deployment).values()) == CHARTS
    assert _lease(deployment, run_id, step_id) is None


def test_a_daemon_frozen_past_its_lease_changes_nothing_and_pays_for_nothing_when_it_wakes(deployment):
    """A daemon that wakes after another finished its step changes nothing and pays for nothing."""
    with deployment.daemon(**SHORT).started() as sleeper:
        run_id, step_id = _in_the_middle(deployment, sleeper)
        sleeper.signal(signal.SIGSTOP)
        sleeper.wait_until(lambda: _frozen(sleeper.process), "a process that stands still", 10)
        with deployment.daemon(**SHORT).started() as winner:
            _completed(winner, attempt=2)
            before, asked = _result(deployment, run_id, step_id), len(deployment.cloud.chart_img.requests)
            sleeper.signal(signal.SIGCONT)
            sleeper.wait_for_event("lease_lost")
            sleeper.wait_for_event("message_settled")
            assert winner.terminate() == 0
        assert sleeper.terminate() == 0
        assert [line["reason"] for line in sleeper.named("finalize_refused")] == ["lease_lost"]
        assert sleeper.named("step_completed") == []
    assert _result(deployment, run_id, step_id) == before
    # The call during which it froze is logged when its connection ends. No call follows it.
    assert len(deployment.cloud.chart_img.requests) - asked <= 1
    assert deployment.cloud.chart_img.calls["advanced-chart"] == CHARTS + 1
    assert _lease(deployment, run_id, step_id) is None


def test_a_live_daemon_keeps_a_step_that_lasts_longer_than_its_lease(deployment):
    """Heartbeats renew the lease of a long step, and no other daemon takes it over."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=3.0, times=CHARTS))
    with deployment.daemon(**SHORT).started() as holder, deployment.daemon(**SHORT).started() as other:
        run_id, (step_id,) = deployment.put_run(charts=CHARTS)
        deployment.publish_step(run_id, step_id)
        both = [holder, other]
        assert deployment.cloud.chart_img.calls.wait_for("advanced-chart", CHARTS, timeout_seconds=30)
        _wait_for_status(deployment, run_id, step_id, "SUCCEEDED")
        assert [daemon.terminate() for daemon in both] == [0, 0]
    assert [line for daemon in both for line in daemon.named("lease_taken_over")] == []
    assert sum(_paid(deployment).values()) == CHARTS
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


@pytest.mark.official
def test_a_killed_daemon_s_step_is_finished_on_the_official_emulators_too(official_deployment):
    """On the official emulators a redelivery or the rescue ends a killed daemon's step."""
    deployment = official_deployment
    with deployment.daemon(**SHORT).started() as victim:
        run_id, step_id = _in_the_middle(deployment, victim)
        victim.kill()
    with deployment.daemon(**SHORT).started() as second:
        _completed(second, attempt=2)
        assert second.terminate() == 0
    assert sum(_paid(deployment).values()) == CHARTS
    assert _lease(deployment, run_id, step_id) is None
