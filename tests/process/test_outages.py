"""Failing backends while a daemon process works: no step is lost, nothing is paid for twice."""

from __future__ import annotations

import json
import time

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import ready
from tests.support.cloud.swallowing_proxy import SwallowingProxy
from tests.support.process.probing_daemon import PROBING


def test_a_full_stop_of_pubsub_is_survived(deployment):
    """After a full stop of Pub/Sub the stream opens again and the work continues."""
    with deployment.daemon().started() as daemon:
        deployment.cloud.pubsub.stop()
        deployment.cloud.pubsub.start()
        run_id, (step_id,) = deployment.put_run()
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed", timeout_seconds=60)
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_an_unavailable_firestore_defers_the_message(deployment):
    """During a Firestore outage the message is deferred without a thread, and the step is unchanged."""
    deployment.cloud.firestore.faults.add(
        Fault(method="BatchGetDocuments", match="flow_runs", error="PERMISSION_DENIED", times=1)
    )
    run_id, (step_id,) = deployment.put_run()
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        settled = daemon.wait_for_event("message_settled")[0]
        assert settled["disposition"] == "defer"
        assert 1 <= settled["delaySeconds"] <= 60
        daemon.wait_for_event("step_completed", timeout_seconds=settled["delaySeconds"] + 20)
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_a_finalize_whose_answer_is_lost_counts(deployment):
    """A finalize that was applied without a response is done and reported once."""
    run_id, (step_id,) = deployment.put_run()
    deployment.cloud.firestore.faults.add(
        Fault(method="Commit", match=run_id, error="UNAVAILABLE", after_effect=True, skip=1, times=1)
    )
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert daemon.named("finalize_refused") == []
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_an_upload_whose_answer_is_lost_is_no_failure(deployment):
    """An upload without a response is repeated, finds its object, and is paid for once."""
    deployment.cloud.storage.faults.add(Fault(method="objects.insert", error=503, after_effect=True, times=3))
    run_id, (step_id,) = deployment.put_run(charts=2)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert len(deployment.manifest(run_id, step_id)["items"]) == 2
    assert len(deployment.cloud.chart_img.requests) == 2


def test_an_unavailable_storage_releases_the_step_and_keeps_stored_charts(deployment):
    """During a Storage outage the step is released, and only unstored charts are paid for again."""
    run_id, (step_id,) = deployment.put_run(charts=2)
    second = deployment.step(run_id, step_id)["inputs"]["requests"][1]["chartTemplateId"]
    outage = deployment.cloud.storage.faults.add(Fault(method="objects.insert", match=second, error=503))
    with deployment.daemon(STEP_TIMEOUT_SECONDS="2").started() as daemon:
        deployment.publish_step(run_id, step_id)
        settled = daemon.wait_for_event("message_settled")[0]
        deployment.cloud.storage.faults.remove(outage)
        assert (settled["disposition"], settled["reason"]) == ("defer", "storage_unavailable")
        assert 1 <= settled["delaySeconds"] <= 60
        assert len(daemon.named("lease_released")) == 1
        (line,) = daemon.wait_for_event("step_completed", timeout_seconds=60)
        assert (line["status"], line["attempt"]) == ("SUCCEEDED", 2)
        assert daemon.terminate() == 0
    assert len(daemon.named("chart_reused")) == 1
    assert len(deployment.cloud.chart_img.requests) == 2 + 1
    assert len(deployment.manifest(run_id, step_id)["items"]) == 2


def test_a_firestore_connection_that_swallows_everything_is_replaced(deployment):
    """A connection that takes everything and answers nothing is replaced; the work continues."""
    with SwallowingProxy(deployment.environment["FIRESTORE_EMULATOR_HOST"]) as proxy:
        settings = {"FIRESTORE_EMULATOR_HOST": proxy.address, "RESCUE_INTERVAL_SECONDS": "86400"}
        with deployment.daemon(module=PROBING, **settings).started() as daemon:
            first, second = (deployment.put_run(charts=1) for _ in range(2))
            deployment.publish_step(first[0], first[1][0])
            daemon.wait_for_event("step_completed")
            proxy.swallow()
            deployment.publish_step(second[0], second[1][0])
            daemon.wait_for_event("step_completed", count=2, timeout_seconds=60)
            assert ready(daemon)[0] == 200
            assert daemon.terminate() == 0
    assert daemon.named("internal_error") == []


def test_a_missing_firestore_is_seen_soon_and_its_return_too(deployment):
    """At light load a missing Firestore is seen at the first failure, and its return within 15 s."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        deployment.cloud.firestore.stop()
        stopped = time.monotonic()
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("intake_paused")
        assert time.monotonic() - stopped < 15
        assert "onnection refused" in line["reason"]
        assert "onnection refused" in ready(daemon)[1]["reason"]
        # The pauses between attempts to connect would grow to two minutes.
        time.sleep(40)  # the time of the outage itself
        deployment.cloud.firestore.start()
        returned = time.monotonic()
        daemon.wait_for_event("intake_resumed")
        assert time.monotonic() - returned < 16
        assert daemon.terminate() == 0


def _answers_503(storage):
    storage.faults.add(Fault(error=503))


def _is_stopped(storage):
    storage.stop()


def _is_well(storage):
    storage.faults.clear()
    storage.start()


@pytest.mark.parametrize("outage", [_answers_503, _is_stopped])
def test_an_unavailable_storage_pauses_the_intake_until_it_is_back(deployment, outage):
    """A Storage outage pauses the intake; no step fails, and all finish afterwards."""
    outage(deployment.cloud.storage)
    run_id, step_ids = deployment.put_run(steps=6, charts=1)
    settings = {"STEP_TIMEOUT_SECONDS": "3", "RESCUE_INTERVAL_SECONDS": "1"}
    with deployment.daemon(module=PROBING, **settings).started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        assert daemon.wait_for_event("intake_paused")[0]["backend"] == "storage"
        status, body = ready(daemon)
        assert (status, body["status"]) == (503, "not ready")
        assert body["reason"].startswith("intake is paused: storage is unavailable: ")
        _is_well(deployment.cloud.storage)
        daemon.wait_for_event("intake_resumed", timeout_seconds=40)
        # A message may be deferred for a minute.
        daemon.wait_for_event("step_completed", count=6, timeout_seconds=80)
        assert ready(daemon)[0] == 200
        assert daemon.terminate() == 0
    assert daemon.named("internal_error") == []
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}


def _is_missing(_deployment):
    return {"CHARTS_BUCKET": "gs://nobody-made-this"}


def _forbids(deployment):
    deployment.cloud.storage.faults.add(Fault(method="objects.insert", error=403))
    return {}


def _knows_nobody(deployment):
    deployment.cloud.storage.faults.add(Fault(method="objects.insert", error=401))
    return {}


@pytest.mark.parametrize(
    ("break_bucket", "reason"),
    [
        (_is_missing, "gs://nobody-made-this takes no objects: there is no such bucket (404)"),
        (_forbids, "takes no objects: the account lacks a permission (403)"),
        (_knows_nobody, "takes no objects: InvalidOperation: Anonymous credentials cannot be refreshed."),
    ],
)
def test_a_worker_that_can_store_nothing_pays_nothing(deployment, break_bucket, reason):
    """A bucket that takes no object pauses the intake before anything is paid, until it takes objects."""
    settings = break_bucket(deployment)
    run_id, step_ids = deployment.put_run(steps=3, charts=3)
    with deployment.daemon(module=PROBING, **settings).started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        assert reason in daemon.wait_for_event("intake_paused")[0]["reason"]
        status, body = ready(daemon)
        assert status == 503
        assert reason in body["reason"]
        daemon.wait_for_event("message_received", count=3)
        deployment.cloud.storage.faults.clear()
        deployment.objects.bucket(settings.get("CHARTS_BUCKET", "")[5:] or "another").create()
        daemon.wait_for_event("step_completed", count=3, timeout_seconds=60)
        assert daemon.terminate() == 0
    assert daemon.named("chart_failed") == []
    assert len(deployment.cloud.chart_img.requests) == 9
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}


def test_a_bucket_that_is_lost_on_the_way_stops_paying_at_once(deployment):
    """Once an object was refused and the bucket takes none, no chart is paid for before it takes some."""
    run_id, (step_id,) = deployment.put_run(charts=5)
    calls = deployment.cloud.storage.calls
    before = calls["objects.insert"]
    with deployment.daemon(module=PROBING, REQUEST_CONCURRENCY="1").started() as daemon:
        assert calls.wait_for("objects.insert", before + 1, timeout_seconds=20)  # the look at the start
        lost = deployment.cloud.storage.faults.add(Fault(method="objects.insert", skip=1, error=403))
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("intake_paused")
        assert len(deployment.cloud.chart_img.requests) == 2
        assert len(daemon.wait_for_event("lease_released")) == 1
        deployment.cloud.storage.faults.remove(lost)
        (line,) = daemon.wait_for_event("step_completed", timeout_seconds=60)
        assert daemon.terminate() == 0
    assert (line["status"], line["items"]) == ("SUCCEEDED", 5)
    assert len(deployment.cloud.chart_img.requests) == 5 + 1


def test_the_refusal_of_one_object_fails_its_request(deployment):
    """A refusal of one object is the failure of that request; nothing is paused."""
    run_id, (step_id,) = deployment.put_run(charts=2)
    inputs = deployment.step(run_id, step_id)["inputs"]
    path = deployment.documents.field_path("steps", step_id, "inputs", "minImages")
    deployment.documents.document(f"flow_runs/{run_id}").update({path: 1})
    second = inputs["requests"][1]["chartTemplateId"]
    deployment.cloud.storage.faults.add(Fault(method="objects.insert", match=second, error=403))
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert (line["status"], line["items"], line["failures"]) == ("SUCCEEDED", 1, 1)
    (failure,) = deployment.manifest(run_id, step_id)["failures"]
    assert failure["error"]["code"] == "GCS_WRITE_FAILED"
    assert failure["error"]["details"]["httpStatus"] == 403
    assert daemon.named("intake_paused") == []


def test_templates_that_may_not_be_read_fail_the_step(deployment):
    """Templates that may still not be read when the time ends fail each chart; the step has a manifest."""
    deployment.cloud.firestore.faults.add(
        Fault(method="BatchGetDocuments", match="chart_templates", error="PERMISSION_DENIED")
    )
    run_id, (step_id,) = deployment.put_run()
    with deployment.daemon(STEP_TIMEOUT_SECONDS="1").started() as daemon:
        deployment.publish_step(run_id, step_id)
        assert daemon.wait_for_event("message_settled")[0]["disposition"] == "ack"
        assert daemon.terminate() == 0
    step = deployment.step(run_id, step_id)
    assert (step["status"], step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
    assert "PermissionDenied" in step["error"]["message"]
    assert len(deployment.manifest(run_id, step_id)["failures"]) == 2


def test_a_step_of_an_unknown_run_is_deferred_and_then_rejected(deployment):
    """A message of an unknown run is deferred, and rejected when its grace has ended."""
    with deployment.daemon(NOT_READY_GRACE_SECONDS="5").started() as daemon:
        deployment.publish(json.dumps({"runId": deployment.run_id(), "stepId": "s"}).encode())
        first = daemon.wait_for_event("message_settled")[0]
        assert (first["disposition"], first["delaySeconds"]) == ("defer", 10)
        daemon.wait_for_event("message_settled", count=2, timeout_seconds=25)
        assert daemon.terminate() == 0
    (message,) = deployment.quarantined(1)
    assert message.attributes["reason"] == "not_ready"
