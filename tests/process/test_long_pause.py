"""A pause of ten longest leases with five delivery attempts: nothing is dead-lettered, all gets done."""

from __future__ import annotations

import time

import httpx
import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.pubsub_v1.types import DeadLetterPolicy, Subscription

from localcloud.faults import Fault
from tests.support.cloud.resources import ready
from tests.support.process.hasty_daemon import HASTY, MAX_LEASE_SECONDS, SPANS

STEPS = 6  # as many as threads: the official emulator sends the rest to the closed stream again
MAX_DELIVERY_ATTEMPTS = 5


def _use_dead_letters(deployment):
    policy = DeadLetterPolicy(
        dead_letter_topic=deployment.quarantine_topic, max_delivery_attempts=MAX_DELIVERY_ATTEMPTS
    )
    deployment.subscriber.update_subscription(
        subscription=Subscription(name=deployment.subscription, dead_letter_policy=policy),
        update_mask={"paths": ["dead_letter_policy"]},
    )


def _dead_letters(deployment):
    try:
        answer = deployment.subscriber.pull(
            subscription=deployment.quarantine, max_messages=100, retry=None, timeout=5
        )
    except DeadlineExceeded:
        return []
    return [received.message for received in answer.received_messages]


def _streams_opened(daemon):
    port = daemon.named("daemon_started")[0]["healthPort"]
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    (count,) = [line.split()[-1] for line in lines if 'streams_opened_total{reason="paused"}' in line]
    return float(count)


def _work_through_a_long_pause(deployment):
    _use_dead_letters(deployment)
    run_id, step_ids = deployment.put_run(steps=STEPS, charts=1)
    outage = deployment.cloud.storage.faults.add(Fault(method="objects.insert", error=503))
    settings = {**SPANS, "WORKER_CONCURRENCY": str(STEPS), "QUARANTINE_TOPIC": None}
    with deployment.daemon(module=HASTY, **settings).started() as daemon:
        daemon.wait_for_event("intake_paused")
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        time.sleep(10 * MAX_LEASE_SECONDS)  # the pause itself
        assert ready(daemon)[1]["reason"].startswith("intake is paused: storage is unavailable")
        assert daemon.named("claim_attempt") == []
        deployment.cloud.storage.faults.remove(outage)
        daemon.wait_for_event("step_completed", count=STEPS, timeout_seconds=60)
        attempts = [line["deliveryAttempt"] for line in daemon.named("message_received")]
        assert max(attempts) < MAX_DELIVERY_ATTEMPTS - 1
        assert _streams_opened(daemon) == 1
        assert ready(daemon)[0] == 200
        assert daemon.terminate() == 0
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert _dead_letters(deployment) == []
    reasons = [line["reason"] for line in daemon.named("message_settled")]
    assert reasons.count("paused") == STEPS  # each is given back once


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_long_pause_uses_up_no_deliveries(deployment):
    """On the embedded cloud."""
    _work_through_a_long_pause(deployment)


@pytest.mark.long
@pytest.mark.official
@pytest.mark.timeout(240)
def test_a_long_pause_uses_up_no_deliveries_of_the_official_emulator(official_deployment):
    """On the official emulators."""
    _work_through_a_long_pause(official_deployment)
