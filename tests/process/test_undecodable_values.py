"""Values that Google's client can't decode, in what a worker reads: only what needs them fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.vector import Vector

from daemon.handling.disposition import Ack, Reject
from tests.support.process.commands import run_command
from tests.support.process.in_process_worker import Workers


@pytest.fixture
def foreign(deployment):
    """Return a reference into another database, which the client refuses to decode."""
    client = firestore.Client(project=deployment.project, database="elsewhere")
    yield client.document("people/ann")
    client.close()


@pytest.fixture
def workers(deployment):
    """Create workers."""
    with Workers(deployment) as made:
        yield made


def _templates(deployment, run_id: str, step_id: str) -> list[str]:
    requests = deployment.step(run_id, step_id)["inputs"]["requests"]
    return [f"chart_templates/{request['chartTemplateId']}" for request in requests]


def test_values_that_are_not_needed_change_nothing(deployment, foreign):
    """A run, a template and a usage document with such values are worked on and shown."""
    documents = deployment.documents
    run_id, (first, second) = deployment.put_run(steps=2, charts=1)
    (template,) = _templates(deployment, run_id, first)
    documents.document(template).update({"owner": foreign, "embedding": Vector([1.0])})
    documents.document("chart_img_accounts_usage/first").set({"owner": foreign})
    documents.document(f"flow_runs/{run_id}").update(
        {
            "flowKey": foreign,
            "embedding": Vector([1.0, 2.0]),
            documents.field_path("steps", first, "inputs", "source"): foreign,
            documents.field_path("steps", second, "outputs", "links"): [{"author": foreign}],
        }
    )
    with deployment.daemon().started() as daemon:
        deployment.publish(json.dumps({"runId": run_id}).encode())
        (settled,) = daemon.wait_for_event("message_settled")
        assert daemon.terminate() == 0
    assert settled["disposition"] == "ack"
    assert [line["status"] for line in daemon.named("step_completed")] == ["SUCCEEDED"] * 2
    assert daemon.named("internal_error") == []
    for output in ("text", "json"):
        shown = run_command("status", run_id, "--output", output, environment=deployment.settings())
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.count("SUCCEEDED") >= 2
    shown = run_command("templates", "list", environment=deployment.settings())
    assert (shown.returncode, shown.stderr, template.split("/")[1] in shown.stdout) == (0, "", True)


@pytest.mark.parametrize("field", ["status", "dependsOn"])
def test_a_step_that_needs_such_a_value_is_invalid_alone(deployment, workers, foreign, field):
    """A step with such a status or dependency is rejected; the other step of the run is worked on."""
    run_id, (bad, good) = deployment.put_run(steps=2, charts=1)
    workers.set_step(run_id, bad, **{field: foreign if field == "status" else [foreign]})
    worker = workers.new()
    rejected = worker.handle(run_id, bad)
    assert isinstance(rejected, Reject)
    assert (rejected.reason, f"steps.{bad}.{field}" in rejected.detail) == ("run_invalid", True)
    assert "<reference_value projects/" in rejected.detail
    assert worker.handle(run_id, good) == Ack(reason="succeeded")
    shown = run_command("status", run_id, environment=deployment.settings())
    assert (shown.returncode, f"steps.{bad}.{field}" in shown.stdout) == (1, True)


def test_a_request_that_needs_such_a_value_fails_alone(deployment, workers, foreign):
    """A request whose template has such a value where it matters fails with `VALIDATION_FAILED`."""
    run_id, (step_id,) = deployment.put_run(charts=2)
    _, second = _templates(deployment, run_id, step_id)
    deployment.documents.document(second).update({"request.theme": foreign})
    inputs = deployment.step(run_id, step_id)["inputs"]
    workers.set_step(run_id, step_id, inputs={**inputs, "minImages": 1})
    assert workers.new().handle(run_id, step_id) == Ack(reason="succeeded")
    (failure,) = deployment.manifest(run_id, step_id)["failures"]
    assert failure["error"]["code"] == "VALIDATION_FAILED"
    assert second.split("/")[1] in failure["error"]["message"]


@pytest.mark.parametrize("value", ["requests", "an entry", "minImages"])
def test_a_step_whose_inputs_are_such_values_fails_without_a_call(deployment, workers, foreign, value):
    """Inputs that can't be decoded fail their step with `VALIDATION_FAILED` before anything is paid for."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    inputs = deployment.step(run_id, step_id)["inputs"]
    changed = {
        "requests": {**inputs, "requests": foreign},
        "an entry": {**inputs, "requests": [foreign]},
        "minImages": {**inputs, "minImages": Vector([1.0])},
    }
    workers.set_step(run_id, step_id, inputs=changed[value])
    worker = workers.new()
    assert worker.handle(run_id, step_id) == Ack(reason="failed")
    run = worker.worker.ledger.read(run_id).run
    assert run is not None
    assert run.document["steps"][step_id]["error"]["code"] == "VALIDATION_FAILED"
    assert deployment.cloud.chart_img.requests == []


def test_a_run_whose_status_is_such_a_value_is_invalid(deployment, workers, foreign):
    """A run whose own status can't be decoded is rejected, and `status` says why."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.documents.document(f"flow_runs/{run_id}").update({"status": foreign})
    rejected = workers.new().handle(run_id, step_id)
    assert isinstance(rejected, Reject)
    assert rejected.reason == "run_invalid"
    shown = run_command("status", run_id, environment=deployment.settings())
    assert (shown.returncode, "<reference_value" in shown.stderr) == (1, True)


def test_a_lease_with_such_values_holds_no_other_lease_from_the_rescue(deployment, workers, foreign):
    """The rescue finds and works on all steps, though a lease and its run have such values."""
    run_id, step_ids = deployment.put_run(steps=2, charts=1, status="RUNNING")
    for step_id in step_ids:
        workers.put_lease(run_id, step_id)
    workers.lease_reference(run_id, step_ids[0]).update({"owner": foreign, "note": foreign, "token": foreign})
    workers.new().rescue.search()
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}


def test_a_run_with_such_a_status_ends_the_heartbeats_of_no_other_run(deployment, workers, foreign):
    """A heartbeat renews the leases of other runs while a run of the process has such values."""
    worker = workers.new().worker
    (bad_id, (bad,)), (good_id, (good,)) = deployment.put_run(), deployment.put_run()
    claims = [worker.ledger.claim(bad_id, bad), worker.ledger.claim(good_id, good)]
    before = workers.lease(good_id, good)
    workers.set_step(bad_id, bad, status=foreign)
    deployment.documents.document(f"flow_runs/{good_id}").update({"status": foreign})
    workers.lease_reference(good_id, good).update({"expiresAt": datetime.now(UTC)})
    assert worker.heartbeats.beat()
    assert [claim.held.is_lost for claim in claims] == [True, False]
    after = workers.lease(good_id, good)
    assert before is not None
    assert after is not None
    assert after.expires_at >= before.expires_at


def test_a_count_that_is_such_a_value_counts_as_used_up(deployment, workers, foreign):
    """A usage document whose count can't be decoded allows no call: used up is better than overspent."""
    deployment.documents.document("chart_img_accounts_usage/first").set({"usageToday": foreign})
    run_id, (step_id,) = deployment.put_run(charts=1)
    assert workers.new().handle(run_id, step_id) == Ack(reason="failed")
    assert deployment.step(run_id, step_id)["error"]["code"] == "CHART_API_LIMIT_EXCEEDED"
    assert deployment.cloud.chart_img.requests == []
