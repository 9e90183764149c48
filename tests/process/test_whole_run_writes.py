"""An orchestrator that writes back whole runs: no finished step stays RUNNING, and none is paid for twice."""

from __future__ import annotations


def test_results_that_are_overwritten_come_back(deployment):
    """After an old copy of the run was written, its steps get their results again without a message."""
    run_id, step_ids = deployment.put_run(steps=8, charts=1)
    reference = deployment.documents.document(f"flow_runs/{run_id}")
    with deployment.daemon(RESCUE_INTERVAL_SECONDS="4").started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed", count=len(step_ids))
        stale = deployment.run(run_id)
        for step_id in step_ids:
            stale["steps"][step_id] |= {"status": "RUNNING", "outputs": {}}
            del stale["steps"][step_id]["finishedAt"]
        reference.set(stale)
        daemon.wait_for_event("step_completed", count=2 * len(step_ids), timeout_seconds=60)
        assert daemon.terminate() == 0
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert len(deployment.cloud.chart_img.requests) == len(step_ids)
