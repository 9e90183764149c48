"""Claims and finalizes on real Firestore servers: one winner for any ids and any number of claimers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ledger.samples import offer_of
from worker_chart_export.ledger.lease import HeldLease
from worker_chart_export.ledger.run_snapshot import read_lease
from worker_chart_export.orchestration import StepError, claim_step_transaction, finalize_step
from worker_chart_export.timing import SystemClock

FINISHED_AT = "2025-12-15T10:26:15.000001Z"


def test_many_claimers_of_one_run_win_each_step_once(deployment):
    """Eight threads that claim the same eight steps win eight claims in all."""
    run_id, step_ids = deployment.put_run(steps=8)
    start = threading.Barrier(8)

    def claim_all(offset):
        start.wait(10)
        order = step_ids[offset:] + step_ids[:offset]
        return [
            claim_step_transaction(client=deployment.documents, run_id=run_id, step_id=step_id).claimed
            for step_id in order
        ]

    with ThreadPoolExecutor(8) as threads:
        won = [claimed for claims in threads.map(claim_all, range(8)) for claimed in claims]
    assert won.count(True) == 8
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"RUNNING"}


@pytest.mark.parametrize(
    "step_id",
    ["charts:1d:a_v1", "with space", 'quote"d', "back\\slash", "ünïcode—✓", "50%", "#1", "1starts", "-"],
)
def test_any_legal_step_id_is_claimed_and_finalized_and_nothing_else_is_touched(deployment, step_id):
    """Field paths quote unusual ids, and the neighbouring step stays unchanged."""
    run_id, (neighbour,) = deployment.put_run()
    document = deployment.run(run_id)
    document["steps"][step_id] = {**document["steps"][neighbour], "outputs": {"keep": "yes"}}
    deployment.documents.document(f"flow_runs/{run_id}").set(document)

    assert claim_step_transaction(client=deployment.documents, run_id=run_id, step_id=step_id).claimed
    error = StepError(code="CHART_API_FAILED", message="no")
    result = finalize_step(
        client=deployment.documents,
        run_id=run_id,
        step_id=step_id,
        status="FAILED",
        finished_at=FINISHED_AT,
        error=error,
    )
    assert result.updated
    after = deployment.run(run_id)
    changed = {"status": "FAILED", "finishedAt": FINISHED_AT, "error": error.to_dict()}
    assert after["steps"].pop(step_id) == document["steps"].pop(step_id) | changed
    assert after == document


def test_a_second_finalize_changes_nothing(deployment):
    """The first result stays, also after a second finalize with the same finishing time."""
    run_id, (step_id,) = deployment.put_run()
    claim_step_transaction(client=deployment.documents, run_id=run_id, step_id=step_id)
    arguments = {
        "client": deployment.documents,
        "run_id": run_id,
        "step_id": step_id,
        "finished_at": FINISHED_AT,
    }
    first = finalize_step(**arguments, status="SUCCEEDED", outputs_manifest_gcs_uri="gs://b/first")
    second = finalize_step(**arguments, status="SUCCEEDED", outputs_manifest_gcs_uri="gs://b/second")
    assert (first.updated, second.updated) == (True, False)
    assert deployment.step(run_id, step_id)["outputs"]["gcs_uri"] == "gs://b/first"


def test_a_deleted_run_is_no_error(deployment):
    """Neither a claim nor a finalize creates a deleted run again."""
    run_id, (step_id,) = deployment.put_run()
    deployment.documents.document(f"flow_runs/{run_id}").delete()
    claim = claim_step_transaction(client=deployment.documents, run_id=run_id, step_id=step_id)
    assert (claim.claimed, claim.reason) == (False, "run_missing")
    finalized = finalize_step(
        client=deployment.documents,
        run_id=run_id,
        step_id=step_id,
        status="SUCCEEDED",
        finished_at=FINISHED_AT,
        outputs_manifest_gcs_uri="gs://b/m",
    )
    assert (finalized.updated, finalized.reason) == (False, "run_missing")
    assert not deployment.documents.document(f"flow_runs/{run_id}").get().exists


@pytest.mark.parametrize("is_taken", [False, True])
def test_the_same_calls_take_a_lease_which_fences_as_the_daemon_s_does(deployment, is_taken):
    """A claim writes a lease and its finalize deletes it, unless another owner has it by then."""
    run_id, (step_id,) = deployment.put_run()
    step = {"client": deployment.documents, "run_id": run_id, "step_id": step_id}
    assert claim_step_transaction(**step, lease=offer_of("mine")).claimed
    assert claim_step_transaction(**step, lease=offer_of("theirs")).reason == "step_running"
    stored, clock = read_lease(deployment.documents, run_id, step_id), SystemClock()
    assert stored is not None
    held = HeldLease(
        run_id=run_id, step_id=step_id, stored=stored, trusted_until=clock.monotonic() + 60, clock=clock
    )
    lease = deployment.documents.document(f"flow_runs/{run_id}/chart_export_leases/{step_id}")
    if is_taken:
        lease.update({"token": "theirs"})
    result = finalize_step(
        **step, status="SUCCEEDED", finished_at=FINISHED_AT, outputs_manifest_gcs_uri="gs://b/m", lease=held
    )
    assert (result.updated, result.reason) == ((False, "fenced") if is_taken else (True, None))
    assert lease.get().exists is is_taken
