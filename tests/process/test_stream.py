"""A silent stream, idle or dead, is opened again, and no message is lost or worked twice."""

from __future__ import annotations

import time

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN
from localcloud.faults import Fault
from tests.support.cloud.resources import health
from tests.support.process.probing_daemon import PROBING

OK = {"status": "ok"}
#: The messages that fail in a row until intake pauses, and those that arrive meanwhile.
FAILING, WAITING = FAILURES_TO_OPEN, 3


def publish(deployment, run_id, step_ids):
    """Publish one message for each."""
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)


def wait_for_messages(daemon, count):
    """Wait until this number of messages was delivered, each any number of times."""
    daemon.wait_until(
        lambda: len({line["messageId"] for line in daemon.named("message_received")}) >= count,
        f"{count} messages",
        30,
    )


def completed(daemon):
    """Return the steps that were worked so far."""
    return {line["stepId"] for line in daemon.named("step_completed")}


def test_a_silent_stream_is_opened_again(deployment):
    """A silent stream is opened again; the daemon stays alive and works later messages once."""
    with deployment.daemon(STREAM_IDLE_SECONDS="2").started() as daemon:
        reopened = daemon.wait_for_event("stream_reopened", count=2)
        assert {line["reason"] for line in reopened} == {"idle"}
        assert (health(daemon, "livez"), health(daemon, "readyz")) == ((200, OK), (200, OK))
        run_id, step_ids = deployment.put_run(steps=8, charts=1)
        publish(deployment, run_id, step_ids)
        daemon.wait_for_event("step_completed", count=8)
        daemon.wait_for_event("stream_reopened", count=3)
        assert daemon.terminate() == 0
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert len(daemon.named("message_received")) == 8
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 0
    assert daemon.named("stream_ended") == []
    assert daemon.other_output == []


def test_dead_streams_are_abandoned(deployment):
    """Streams that look open but deliver nothing are abandoned; the third one delivers the message."""
    dead = deployment.cloud.pubsub.faults.add(Fault(method="StreamingPull", delay_seconds=60, times=2))
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    with deployment.daemon(STREAM_IDLE_SECONDS="2").started() as daemon:
        daemon.wait_for_event("step_completed")
        assert deployment.cloud.pubsub.faults.fired(dead) == 2
        assert [line["reason"] for line in daemon.named("stream_reopened")] == ["idle", "idle"]
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert daemon.other_output == []


def test_a_stream_whose_step_takes_long_is_left_alone(deployment):
    """A stream with a running delivery is not silent."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=4.0))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon(STREAM_IDLE_SECONDS="2").started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.named("stream_reopened") == []
        daemon.wait_for_event("stream_reopened")
        assert daemon.terminate() == 0
    assert len(deployment.cloud.chart_img.requests) == 1


def test_an_outage_of_firestore_pauses_the_intake_and_uses_up_no_delivery(deployment):
    """Messages that arrive while intake is paused wait and are worked when it resumes."""
    outage = deployment.cloud.firestore.faults.add(
        Fault(method="BatchGetDocuments", match="flow_runs", error="DEADLINE_EXCEEDED")
    )
    run_id, step_ids = deployment.put_run(steps=FAILING + WAITING, charts=1)
    with deployment.daemon(module=PROBING, STREAM_IDLE_SECONDS="2").started() as daemon:
        publish(deployment, run_id, step_ids[:FAILING])
        (paused,) = daemon.wait_for_event("intake_paused", timeout_seconds=60)
        assert (paused["backend"], paused["failures"]) == ("firestore", 5)
        reason = "intake is paused: firestore is unavailable: DeadlineExceeded: injected fault"
        assert health(daemon, "readyz") == (503, {"status": "not ready", "reason": reason})
        assert health(daemon, "livez") == (200, OK)
        daemon.wait_for_event("message_settled", count=FAILING)
        publish(deployment, run_id, step_ids[FAILING:])
        wait_for_messages(daemon, FAILING + WAITING)
        idle_ended = time.monotonic() + 2.0  # the pause is longer than a stream may be idle
        daemon.wait_until(lambda: time.monotonic() > idle_ended, "a pause of 2 s", 10)
        deployment.cloud.firestore.faults.remove(outage)
        (resumed,) = daemon.wait_for_event("intake_resumed", timeout_seconds=40)
        daemon.wait_until(lambda: completed(daemon) >= set(step_ids[FAILING:]), "the steps that waited", 30)
        assert daemon.terminate() == 0
    assert resumed["pausedSeconds"] > 2
    paused_for = daemon.events[daemon.events.index(paused) : daemon.events.index(resumed)]
    assert [line for line in paused_for if line["event"] == "stream_reopened"] == []
    for line in daemon.named("step_completed"):
        if line["stepId"] in step_ids[FAILING:]:
            assert [got["messageId"] for got in daemon.named("message_received")].count(
                line["messageId"]
            ) == 1
    assert daemon.other_output == []


def test_a_stop_nacks_messages_that_wait_for_a_backend(deployment):
    """A stop nacks the messages that wait for a backend at once."""
    deployment.cloud.firestore.faults.add(
        Fault(method="BatchGetDocuments", match="flow_runs", error="DEADLINE_EXCEEDED")
    )
    run_id, step_ids = deployment.put_run(steps=FAILING + WAITING, charts=1)
    with deployment.daemon(DRAIN_SECONDS="60").started() as daemon:
        publish(deployment, run_id, step_ids[:FAILING])
        daemon.wait_for_event("intake_paused", timeout_seconds=60)
        daemon.wait_for_event("message_settled", count=FAILING)
        publish(deployment, run_id, step_ids[FAILING:])
        wait_for_messages(daemon, FAILING + WAITING)
        assert daemon.terminate(10) == 0
    settled = daemon.named("message_settled")
    assert len(settled) == len(daemon.named("message_received"))
    nacked = [line["disposition"] for line in settled if line["reason"] == "shutdown"]
    assert nacked == ["nack"] * len(nacked)
    assert len(nacked) >= WAITING
