"""`status` reads a run on the embedded and on the official Firestore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from daemon.cli.status.reader import RunReader
from daemon.reports.report import Hold
from tests.support.run_reports import OWNER, lease
from worker_chart_export.ledger.lease import LEASES
from worker_chart_export.timing import SystemClock


def test_run_and_leases_are_of_one_moment(deployment):
    """Run and leases are read at one moment of the server's time."""
    run_id, (first, second) = deployment.put_run(steps=2, status="RUNNING")
    now = datetime.now(UTC)
    held = lease(started_at=now, acquired_at=now, expires_at=now + timedelta(hours=1))
    deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{first}").set(held.to_document())
    reader = RunReader(
        documents=deployment.documents,
        open_objects=lambda: deployment.objects,
        bucket=deployment.bucket,
        run_id=run_id,
        clock=SystemClock(),
    )
    report = reader.read()
    assert abs(report.read_at - now) < timedelta(minutes=1)
    holding = {step.step_id: step.holding for step in report.chart_steps}
    assert (holding[first].hold, holding[first].owner) == (Hold.LIVE, OWNER)
    assert holding[second].hold is Hold.UNLEASED
