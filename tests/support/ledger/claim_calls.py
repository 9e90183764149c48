"""A run in Firestore, with the two public calls of `orchestration`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.fakes import RUN_ID, STEP_ID, chart_step, run_document
from tests.support.ledger.samples import ERROR, FINISHED, MANIFEST
from worker_chart_export.orchestration import claim_step_transaction, finalize_step

if TYPE_CHECKING:
    from google.cloud import firestore

RUNNING = {STEP_ID: chart_step(status="RUNNING", dependsOn=[])}


class Book:
    """A run in Firestore, with the two calls under test bound to it."""

    def __init__(self, client: firestore.Client, run_id: str = RUN_ID) -> None:
        self.client = client
        self.run_id = run_id

    @property
    def reference(self):
        """Return the reference of the run."""
        return self.client.collection("flow_runs").document(self.run_id)

    def put(self, steps=None, **changes):
        """Write the run, replacing what was there."""
        self.reference.set(run_document(steps, **changes))
        return self

    def step(self, step_id=STEP_ID):
        """Return the step as it is now."""
        return self.reference.get().to_dict()["steps"][step_id]

    def claim(self, step_id=STEP_ID):
        """Claim the step."""
        return claim_step_transaction(client=self.client, run_id=self.run_id, step_id=step_id)

    def succeed(self, step_id=STEP_ID, finished_at=FINISHED, uri=MANIFEST):
        """Finalize the step as SUCCEEDED."""
        return finalize_step(
            client=self.client,
            run_id=self.run_id,
            step_id=step_id,
            status="SUCCEEDED",
            finished_at=finished_at,
            outputs_manifest_gcs_uri=uri,
        )

    def fail(self, step_id=STEP_ID):
        """Finalize the step as FAILED."""
        return finalize_step(
            client=self.client,
            run_id=self.run_id,
            step_id=step_id,
            status="FAILED",
            finished_at=FINISHED,
            error=ERROR,
        )
