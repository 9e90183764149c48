"""A daemon whose stream is silent: idle or dead, it is opened again, and no message is lost or done twice."""

from __future__ import annotations

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN
from localcloud.faults import Fault
from tests.support.cloud.resources import health
from tests.support.process.probing_daemon import PROBING

OK = {"status": "ok"}
#: So many messages fail in a row until the intake pauses; so many come while it does.
FAILING, WAITING = FAILURES_TO_OPEN, 3


def publish(deployment, run_id, step_ids):
    """A message for each."""
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)


def wait_for_messages(daemon, count):
    """Wait until so many messages have come, however often each."""
    daemon.wait_until(
        lambda: len({line["messageId"] for line in daemon.named("message_received")}) >= count,
        f"{count} messages",
        30,
    )


def completed(daemon):
    """The steps that were worked so far."""
    return {line["stepId"] for line in daemon.named("step_completed")}


def test_a_stream_on_which_nothing_comes_is_opened_again(deployment):
    """However often; the daemon is alive and ready, and works what comes later, once."""
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


def test_dead_streams_are_left_behind(deployment):
    """They look open and bring nothing, though there is a message; the third one brings it."""
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
    """Something is under way: that is not silence."""
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
    """Messages that come meanwhile wait at the gate, however long, and are worked when it opens."""
    away = deployment.cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="DEADLINE_EXCEEDED"))
    run_id, step_ids = deployment.put_run(steps=FAILING + WAITING, charts=1)
    with deployment.daemon(module=PROBING, STREAM_IDLE_SECONDS="2").started() as daemon:
        publish(deployment, run_id, step_ids[:FAILING])
        (paused,) = daemon.wait_for_event("intake_paused", timeout_seconds=60)
        assert (paused["backend"], paused["failures"]) == ("firestore", 5)
        reason = "intake is paused: firestore unavailable"
        assert health(daemon, "readyz") == (503, {"status": "not ready", "reason": reason})
        assert health(daemon, "livez") == (200, OK)
        daemon.wait_for_event("message_settled", count=FAILING)
        publish(deployment, run_id, step_ids[FAILING:])
        wait_for_messages(daemon, FAILING + WAITING)
        deployment.cloud.firestore.faults.remove(away)
        (resumed,) = daemon.wait_for_event("intake_resumed", timeout_seconds=40)
        daemon.wait_until(lambda: completed(daemon) >= set(step_ids[FAILING:]), "the steps that waited", 30)
        assert daemon.terminate() == 0
    assert resumed["pausedSeconds"] > 2  # longer than a stream may be idle
    paused_for = daemon.events[daemon.events.index(paused) : daemon.events.index(resumed)]
    assert [line for line in paused_for if line["event"] == "stream_reopened"] == []
    for line in daemon.named("step_completed"):
        if line["stepId"] in step_ids[FAILING:]:
            assert [got["messageId"] for got in daemon.named("message_received")].count(
                line["messageId"]
            ) == 1
    assert daemon.other_output == []


def test_a_stop_lets_go_the_messages_that_wait_for_a_backend(deployment):
    """They go back at once, for another worker, and hold no drain."""
    deployment.cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="DEADLINE_EXCEEDED"))
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
