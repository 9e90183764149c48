"""Runs whose document is nearly as large as Firestore allows: each step ends, and no chart is paid twice."""

from __future__ import annotations

import json

import pytest

from localcloud.faults import Fault

CHARTS = 3
#: A lease that ends soon, so that a step that is taken over again and again would be seen.
IMPATIENT = {"MAX_ATTEMPTS": "2", "LEASE_SECONDS": "10", "RESCUE_INTERVAL_SECONDS": "5"}


def _settled(daemon):
    """Wait for the message's last settlement."""

    def last():
        return [line for line in daemon.named("message_settled") if line["disposition"] != "defer"]

    daemon.wait_until(last, "the settlement of the message", 60)
    return last()


@pytest.mark.parametrize("charts_fail", [True, False], ids=["charts_fail", "charts_succeed"])
@pytest.mark.parametrize(
    ("free_bytes", "status", "calls"),
    [
        (0, "READY", 0),
        (1, "FAILED", 0),
        (2, "FAILED", CHARTS),
        (60, "FAILED", CHARTS),
        (200, "FAILED", CHARTS),
        (400, "SUCCEEDED", CHARTS),
    ],
)
def test_a_step_of_a_nearly_full_run_ends(deployment, free_bytes, status, calls, charts_fail):
    """A result that does not fit is stored in a shorter form; each chart is paid for at most once."""
    if charts_fail:
        deployment.cloud.chart_img.faults.add(Fault(answer="invalid_symbol"))
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    needed = deployment.documents.field_path("steps", step_id, "inputs", "minImages")
    deployment.documents.document(f"flow_runs/{run_id}").update({needed: 1})  # each chart is tried
    deployment.fill_run(run_id, free_bytes=free_bytes)
    with deployment.daemon(**IMPATIENT).started() as daemon:
        deployment.publish_step(run_id, step_id)
        (settled,) = _settled(daemon)
        assert daemon.terminate() == 0
    step = deployment.step(run_id, step_id)
    has_room_for_an_error = charts_fail and free_bytes >= 300
    expected = "FAILED" if has_room_for_an_error else status
    assert (step["status"], "error" in step) == (expected, has_room_for_an_error)
    assert len(deployment.cloud.chart_img.requests) == calls
    assert len(daemon.named("message_settled")) == 1
    if free_bytes == 0:
        assert settled["reason"] == "run_invalid"
        (rejected,) = deployment.quarantined(1)
        assert json.loads(rejected.data) == {"runId": run_id, "stepId": step_id}
    assert not deployment.documents.document(f"flow_runs/{run_id}/chart_export_leases/{step_id}").get().exists


def test_all_steps_of_a_full_run_end(deployment):
    """Steps of one nearly full run that are finalized together all end, though only some results fit."""
    run_id, step_ids = deployment.put_run(steps=6, charts=1)
    deployment.fill_run(run_id, free_bytes=700)
    with deployment.daemon(**IMPATIENT).started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("message_settled", count=len(step_ids), timeout_seconds=60)
        assert daemon.terminate() == 0
    statuses = [deployment.step(run_id, step_id)["status"] for step_id in step_ids]
    assert set(statuses) == {"SUCCEEDED", "FAILED"}
    assert len(deployment.cloud.chart_img.requests) <= len(step_ids)
