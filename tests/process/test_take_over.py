"""Daemon processes that die, stop or freeze in the middle of a step, and others that take it over."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from localcloud.faults import Fault
from worker_chart_export.ledger.lease import LEASES

#: A take-over is a matter of seconds, and charts come one after the other.
SHORT = {
    "LEASE_SECONDS": "3",
    "CLOCK_SKEW_SECONDS": "1",
    "RESCUE_INTERVAL_SECONDS": "1",
    "REQUEST_CONCURRENCY": "1",
}
CHARTS = 3
WAIT_SECONDS = 30.0
#: How soon a step must be taken over that was given back, on a busy machine; its lease would last 600 s.
AT_ONCE_SECONDS = 20.0


class Hang:
    """The provider hangs in one of its calls until it is let go, or for ever."""

    def __init__(self, deployment, *, nth):
        self._scene, self._nth = deployment, nth
        faults = deployment.cloud.chart_img.faults
        self._fault = faults.add(Fault(delay_seconds=600, skip=nth - 1, times=1))

    def wait(self):
        """Until a daemon hangs there, and everything before is stored."""
        calls, faults = self._scene.cloud.chart_img.calls, self._scene.cloud.chart_img.faults
        assert calls.wait_for("advanced-chart", self._nth, timeout_seconds=30)
        assert faults.fired(self._fault) == 1


def _lease(deployment, run_id, step_id):
    return deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").get().to_dict()


def _leases_written(deployment):
    """Gives the leases that are written from now on, as their documents."""
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
    """How many charts the provider gave."""
    return deployment.cloud.chart_img.charts_per_key.as_dict()


def _in_the_middle(deployment, daemon):
    """A step of three charts whose daemon has stored the first and hangs in the second."""
    hang = Hang(deployment, nth=2)
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    deployment.publish_step(run_id, step_id)
    hang.wait()
    assert len(daemon.named("chart_stored")) <= 1
    assert len(deployment.object_names()) == 1
    return run_id, step_id


def _completed(daemon, *, attempt):
    """Wait until the daemon has ended the step, as this attempt; gives the seconds it took."""
    started = time.monotonic()
    (line,) = daemon.wait_for_event("step_completed")
    assert (line["attempt"], line["status"]) == (attempt, "SUCCEEDED")
    return time.monotonic() - started


def _wait_for_status(deployment, run_id, step_id, status):
    """Until the step has that status."""
    reached = threading.Event()
    step = deployment.documents.field_path("steps", step_id, "status")
    deadline = time.monotonic() + WAIT_SECONDS
    while deployment.documents.document(f"flow_runs/{run_id}").get([step]).get(step) != status:
        assert time.monotonic() < deadline
        reached.wait(0.1)


def _frozen(process):
    """Whether every thread of the process stands still."""
    states = [task.joinpath("stat").read_text() for task in Path(f"/proc/{process.pid}/task").iterdir()]
    return all(state.rpartition(") ")[2][0] == "T" for state in states)


def _result(deployment, run_id, step_id):
    """The step, and its objects with their generations."""
    blobs = deployment.objects.list_blobs(deployment.bucket)
    return deployment.step(run_id, step_id), {blob.name: blob.generation for blob in blobs}


def test_a_step_whose_daemon_was_killed_is_finished_by_another(deployment):
    """What was stored is not bought again; the second attempt ends it and leaves no lease."""
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
    assert sum(_paid(deployment).values()) == CHARTS  # the one it died in gave none
    assert _lease(deployment, run_id, step_id) is None
    assert second.named("lease_taken_over")[0]["formerAttempt"] == 1


def test_a_step_without_a_message_is_rescued(deployment):
    """Its message was acked, or lost: the lease alone leads to it."""
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


def test_a_step_whose_daemon_is_told_to_stop_is_given_back_and_taken_over_at_once(deployment):
    """Long before the lease would end: it is released, and the message goes back."""
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
    """Another has finished the step: its artifacts and its result stay as they are."""
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
    # The call that it froze in is logged when its connection ends; none was made after it.
    assert len(deployment.cloud.chart_img.requests) - asked <= 1
    assert deployment.cloud.chart_img.calls["advanced-chart"] == CHARTS + 1
    assert _lease(deployment, run_id, step_id) is None


def test_a_live_daemon_keeps_a_step_that_lasts_longer_than_its_lease(deployment):
    """Its heart-beats renew the lease: nobody takes the step over, by message or rescue."""
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
    """By the redelivery of its message or the rescue, whichever comes first."""
    deployment = official_deployment
    with deployment.daemon(**SHORT).started() as victim:
        run_id, step_id = _in_the_middle(deployment, victim)
        victim.kill()
    with deployment.daemon(**SHORT).started() as second:
        _completed(second, attempt=2)
        assert second.terminate() == 0
    assert sum(_paid(deployment).values()) == CHARTS
    assert _lease(deployment, run_id, step_id) is None
