"""A pipeline on the embedded Firestore and Storage, and reads of its results."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.support.fakes import (
    BUCKET,
    RUN_ID,
    STEP_ID,
    ScriptedProvider,
    chart_step,
    ohlcv_step,
    run_document,
    template_document,
)
from worker_chart_export.execution.chart_maker import ChartMaker
from worker_chart_export.execution.pipeline import PipelineLimits, StepPipeline
from worker_chart_export.inputs.template import TemplateStore
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.lease import LEASES, Lease, LeaseTerms
from worker_chart_export.ledger.step_ledger import StepLedger
from worker_chart_export.outputs.artifact_store import ArtifactStore
from worker_chart_export.timing import SystemClock, rfc3339

if TYPE_CHECKING:
    from google.cloud import firestore
    from google.cloud.storage import Client as StorageClient

    from localcloud import LocalCloud
    from worker_chart_export.execution.outcome import Outcome
    from worker_chart_export.timing import Clock

NAMES = ("ctpl_a", "ctpl_b", "ctpl_c", "ctpl_d", "ctpl_e")
MANIFEST_NAME = f"charts/{RUN_ID}/{STEP_ID}/manifest.json"
MANIFEST_URI = f"gs://{BUCKET}/{MANIFEST_NAME}"
TERMS = LeaseTerms(lease_seconds=60, clock_skew_seconds=5)


class LeapingClock(SystemClock):
    """The machine's clock. Its monotonic time can leap ahead, as in a process that was frozen."""

    def __init__(self) -> None:
        self._leaped = 0.0

    def monotonic(self) -> float:
        """Return the monotonic time, leaps included."""
        return super().monotonic() + self._leaped

    def leap(self, seconds: float) -> None:
        """Leap ahead."""
        self._leaped += seconds


class Bench:
    """The parts of a worker, on a cloud of its own.

    Attributes:
        heartbeats: The heartbeats of the latest pipeline. They beat only when the test calls them.
    """

    def __init__(self, cloud: LocalCloud, documents: firestore.Client, objects: StorageClient) -> None:
        self.cloud = cloud
        self.documents = documents
        self.objects = objects
        self.provider = ScriptedProvider()
        self.heartbeats = Heartbeats(client=documents, terms=TERMS, clock=SystemClock())
        self.run_reference = documents.collection("flow_runs").document(RUN_ID)
        self.lease_reference = self.run_reference.collection(LEASES).document(STEP_ID)
        for name in NAMES:
            documents.collection("chart_templates").document(name).set(template_document())

    def pipeline(
        self,
        *,
        concurrency: int = 4,
        seconds: float = 30.0,
        max_png_bytes: int = 262144,
        clock: Clock | None = None,
        provider: ScriptedProvider | None = None,
    ) -> StepPipeline:
        """Build the pipeline of another worker, with these limits."""
        clock = clock or SystemClock()
        self.heartbeats = Heartbeats(client=self.documents, terms=TERMS, clock=clock)
        artifacts = ArtifactStore(client=self.objects, bucket=BUCKET)
        artifacts._probe._takes_objects = True  # a worker that has stored objects before makes no probe
        return StepPipeline(
            ledger=StepLedger(client=self.documents, clock=clock, terms=TERMS, heartbeats=self.heartbeats),
            charts=ChartMaker(
                templates=TemplateStore(client=self.documents, cache_seconds=60, clock=clock),
                provider=provider or self.provider,
                artifacts=artifacts,
                timezone="Etc/UTC",
                max_png_bytes=max_png_bytes,
            ),
            artifacts=artifacts,
            limits=PipelineLimits(request_concurrency=concurrency, step_timeout_seconds=seconds),
            clock=clock,
        )

    def put(self, *names: str, min_images: int | None = None, **step: Any) -> None:
        """Write the run. Its step requests the templates `names`."""
        inputs: dict[str, Any] = {"requests": [{"chartTemplateId": name} for name in names]}
        if min_images is not None:
            inputs["minImages"] = min_images
        self.run_reference.set(
            run_document({STEP_ID: chart_step(dependsOn=[], inputs=inputs) | step, "other": ohlcv_step()})
        )

    def put_lease(self, *, left_seconds: float = -10.0, **changes: Any) -> Lease:
        """Write the lease of a dead worker. It expired 10 s ago, unless changed."""
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "owner": "elsewhere:1:boot",
            "token": "its-token",
            "attempt": 1,
            "released": 0,
            "started_at": now - timedelta(seconds=100),
            "acquired_at": now - timedelta(seconds=100),
            "expires_at": now + timedelta(seconds=left_seconds),
            "message_id": "another",
        }
        lease = Lease(**fields | changes)
        self.lease_reference.set(lease.to_document())
        return lease

    def expire_lease(self) -> None:
        """Let the step's lease expire, so that any worker may take the step over."""
        self.lease_reference.update({"expiresAt": datetime.now(UTC) - timedelta(seconds=10)})

    def run(self, **limits: Any) -> Outcome:
        """Work the step as another worker."""
        pipeline = self.pipeline(**limits)
        return pipeline.run(RUN_ID, STEP_ID, scope=pipeline.new_scope())

    def step(self) -> dict[str, Any]:
        """Return the step as it is now."""
        document = self.run_reference.get().to_dict()
        assert document is not None
        step: dict[str, Any] = document["steps"][STEP_ID]
        return step

    def lease(self) -> Lease | None:
        """Return the step's lease as it is now."""
        document = self.lease_reference.get().to_dict()
        return None if document is None else Lease.parse(document)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest."""
        manifest: dict[str, Any] = json.loads(self.manifest_object()[0])
        return manifest

    def manifest_object(self) -> tuple[bytes, int]:
        """Return the manifest's bytes and their generation."""
        blob = self.objects.bucket(BUCKET).get_blob(MANIFEST_NAME)
        return blob.download_as_bytes(), blob.generation

    def template_version(self, template_id: str) -> str:
        """Return the time of the template's last change as the manifest has it."""
        return rfc3339(self.documents.document(f"chart_templates/{template_id}").get().update_time)

    def names(self) -> list[str]:
        """Return the names of all objects."""
        return sorted(blob.name for blob in self.objects.list_blobs(BUCKET))


def template_ids(manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the template ids of the manifest's items and of its failures."""
    return (
        [entry["chartTemplateId"] for entry in manifest["items"]],
        [entry["request"]["chartTemplateId"] for entry in manifest["failures"]],
    )
