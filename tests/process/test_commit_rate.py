"""A large run while each Firestore document takes one commit a second, as in production."""

from __future__ import annotations

import time
from collections import Counter

from localcloud.faults import Fault

STEPS, MOST_SECONDS = 200, 60.0


def test_a_run_of_200_steps_ends_within_a_minute_at_one_commit_a_second(deployment):
    """Claims, quota counts and finalizes share few enough commits, and no step is lost or made twice."""
    run_id, step_ids = deployment.put_run(steps=STEPS, charts=1)
    with deployment.daemon(WORKER_CONCURRENCY="32").started() as daemon:
        deployment.cloud.firestore.faults.add(Fault(method="Commit", commits_per_second=1.0))
        began = time.monotonic()
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed", count=STEPS, timeout_seconds=120)
        seconds = time.monotonic() - began
    assert seconds <= MOST_SECONDS
    done = Counter((line["stepId"], line["status"]) for line in daemon.named("step_completed"))
    assert done == Counter({(step_id, "SUCCEEDED"): 1 for step_id in step_ids})
    assert deployment.cloud.chart_img.calls["advanced-chart"] == STEPS
