"""The main job of a real daemon process on the official emulators."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from daemon.cli.demo.scenario import EVENT_UPDATED
from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.daemons import ROOT
from worker_chart_export.ledger.lease import LEASES

#: Bad messages, one per rule of the message formats, and the code of each.
BAD_MESSAGES = [
    (b"not json", {}, "body_not_json"),
    (b"\xff\xfe", {}, "body_not_json"),
    (b"[" * 30000, {}, "body_not_json"),
    (b"[1, 2]", {}, "body_not_object"),
    (b"{}", {}, "run_id_missing"),
    (b'{"runId": 7}', {}, "run_id_invalid"),
    (b'{"runId": "../../etc"}', {}, "run_id_invalid"),
    (b'{"runId": "__run__"}', {}, "run_id_invalid"),
    (b'{"runId": "r", "stepId": "a.b"}', {}, "step_id_invalid"),
    (b'{"runId": "r", "stepId": "' + b"x" * 257 + b'"}', {}, "step_id_invalid"),
    (b'{"runId": "' + b"x" * 70000 + b'"}', {}, "body_too_large"),
    (b"", {"ce-type": EVENT_UPDATED, "ce-id": "1"}, "subject_missing"),
]


@pytest.mark.official
def test_twenty_steps_published_three_times_and_twelve_bad_messages(official_deployment):
    """Each step is worked once, each chart paid for once, each bad message quarantined with its reason."""
    deployment = official_deployment
    run_id, step_ids = deployment.put_run(steps=20, charts=2)
    with deployment.daemon().started() as daemon:
        for _ in range(3):
            for step_id in step_ids:
                deployment.publish_step(run_id, step_id)
        for data, attributes, _reason in BAD_MESSAGES:
            deployment.publish(data, **attributes)
        daemon.wait_for_event("message_settled", count=60 + len(BAD_MESSAGES), timeout_seconds=60)
        assert daemon.process.poll() is None
        assert daemon.terminate() == 0

    steps = deployment.run(run_id)["steps"]
    assert [steps[step_id]["status"] for step_id in step_ids] == ["SUCCEEDED"] * 20
    assert deployment.documents.collection(f"flow_runs/{run_id}/{LEASES}").get() == []
    assert len(deployment.cloud.chart_img.requests) == 40
    assert len(deployment.object_names()) == 20 * 3
    assert all(stored.metageneration == 1 for stored in deployment.objects.list_blobs(deployment.bucket))
    calls = deployment.cloud.storage.calls
    assert calls["objects.insert"] - calls["objects.delete"] == 20 * 3  # a probe is deleted again

    quarantined = deployment.quarantined(len(BAD_MESSAGES))
    assert sorted(message.attributes["reason"] for message in quarantined) == sorted(
        reason for _data, _attributes, reason in BAD_MESSAGES
    )
    assert {message.data for message in quarantined} == {data for data, _attributes, _reason in BAD_MESSAGES}
    assert all(message.attributes["sourceMessageId"] for message in quarantined)
    assert {message.attributes["sourceSubscription"] for message in quarantined} == {deployment.subscription}

    assert {line["reason"] for line in daemon.named("step_noop")} <= {"duplicate", "final"}
    assert daemon.other_output == []
    assert all({"severity", "message", "time", "event"} <= line.keys() for line in daemon.events)
    assert SECRET_KEY not in json.dumps(daemon.events)


@pytest.mark.official
def test_only_the_closed_step_object_is_written(official_deployment):
    """A finished step has only fields of its schema; other outputs and steps stay."""
    deployment = official_deployment
    expires = {"expires_at": "2030-01-01T00:00:00Z"}
    error = {"code": "CHART_API_FAILED", "message": "an earlier attempt"}
    run_id, (step_id,) = deployment.put_run(outputs=expires, error=error)
    before = deployment.run(run_id)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("message_settled")
        assert daemon.terminate() == 0
    after = deployment.run(run_id)

    schema = json.loads((ROOT / "worker_chart_export/data/contracts/flow_run.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(after)) == []
    step = after["steps"].pop(step_id)
    manifest_uri = f"gs://{deployment.bucket}/charts/{run_id}/{step_id}/manifest.json"
    assert step["outputs"] == {**expires, "gcs_uri": manifest_uri, "outputsManifestGcsUri": manifest_uri}
    assert step["status"] == "SUCCEEDED"
    assert "error" not in step
    old = before["steps"].pop(step_id)
    untouched = set(old) - {"status", "outputs", "error"}
    assert {name: step[name] for name in untouched} == {name: old[name] for name in untouched}
    assert set(step) == set(old) - {"error"} | {"finishedAt"}
    assert after == before


def test_a_run_alone_is_worked_in_one_slot(deployment):
    """A Firestore event that names only the run works every eligible step in one slot."""
    run_id, step_ids = deployment.put_run(steps=3, charts=1)
    with deployment.daemon().started() as daemon:
        deployment.publish(
            b"\x0a\x00protobuf", **{"ce-type": EVENT_UPDATED, "ce-subject": f"documents/flow_runs/{run_id}"}
        )
        daemon.wait_for_event("message_settled")
        assert daemon.terminate() == 0
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert [line["stepId"] for line in daemon.named("step_completed")] == step_ids


def test_charts_are_drawn_here_from_candles(deployment):
    """In `local` mode charts are drawn from the candles of the OHLCV step, without a chart API."""
    candles = (ROOT / "worker_chart_export/data/samples/ohlcv/IBM_1d.json").read_bytes()
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(candles)
    run_id, (step_id,) = deployment.put_run(charts=5)
    with deployment.daemon(CHARTS_API_MODE="local", CHART_IMG_ACCOUNTS_JSON=None).started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("message_settled")
        assert daemon.terminate() == 0
    manifest = deployment.manifest(run_id, step_id)
    assert [item["meta"]["provider"] for item in manifest["items"]] == ["local"] * 5
    assert deployment.cloud.chart_img.requests == []
    assert (
        deployment.cloud.storage.calls["objects.download"] == 1 + 1
    )  # the candles once, this test's manifest


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"inputs": {"requests": []}}, "VALIDATION_FAILED", "inputs.requests"),
        ({"inputs": {"requests": [{"chartTemplateId": "a/b"}]}}, "VALIDATION_FAILED", "chartTemplateId"),
        ({"inputs": {"requests": [{"chartTemplateId": "none"}]}}, "VALIDATION_FAILED", "none"),
        (
            {"inputs": {"minImages": 2, "requests": [{"chartTemplateId": "ctpl_price_ma1226_vol_v1"}]}},
            "VALIDATION_FAILED",
            "inputs.minImages",
        ),
        ({"timeframe": "13q"}, "VALIDATION_FAILED", "timeframe"),
    ],
)
def test_a_step_with_invalid_inputs_fails_with_the_field(deployment, change, code, text):
    """A step with invalid inputs fails with the field, pays nothing, and its message is acked."""
    run_id, (step_id,) = deployment.put_run(**change)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        (settled,) = daemon.wait_for_event("message_settled")
    assert (settled["disposition"], settled["runId"], settled["stepId"]) == ("ack", run_id, step_id)
    step = deployment.step(run_id, step_id)
    assert step["status"] == "FAILED"
    assert step["error"]["code"] == code
    assert text in step["error"]["message"]
    assert deployment.cloud.chart_img.requests == []
