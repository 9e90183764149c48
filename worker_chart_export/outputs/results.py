"""Read the results of steps from the charts bucket, for the status command."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.storage import read_object
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import ObjectRefused, shown
from worker_chart_export.outputs.artifact_store import GS_URI, ArtifactStore, StepFolder, call_for_manifest
from worker_chart_export.outputs.manifest import MAX_MANIFEST_BYTES, decode_manifest

if TYPE_CHECKING:
    from worker_chart_export.timing import Clock

#: A person waits for the result.
READ_TIMEOUT_SECONDS = 5.0


class StoredResults:
    """Reads manifests and lists charts. Shared by all threads.

    Args:
        client: A Cloud Storage client.
        clock: Its monotonic clock limits the time of each call.
    """

    def __init__(self, *, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    def manifest(self, uri: str) -> dict[str, Any]:
        """Read a manifest and validate it.

        Raises:
            ObjectRefused: The URI names no object that can be read.
            ManifestRefused: The object is no valid manifest.
            BackendUnavailable: Cloud Storage is unavailable.
            StepTimedOut: Cloud Storage is too slow.
        """
        match = GS_URI.fullmatch(uri)
        if match is None:
            raise ObjectRefused(f"Manifest: expected gs://bucket/object, got {shown(uri)}.")
        blob = self._client.bucket(match["bucket"]).blob(match["name"])
        content = call_for_manifest(
            lambda timeout: read_object(blob, max_bytes=MAX_MANIFEST_BYTES, timeout=timeout),
            uri=uri,
            refusal=ObjectRefused,
            scope=self._scope(),
        )
        return decode_manifest(content)

    def count_charts(self, bucket: str, run_id: str, step_id: str, started_at: datetime) -> int:
        """Count the charts of a step that are in the bucket.

        Args:
            bucket: The charts bucket.
            run_id: The run.
            step_id: The step.
            started_at: The time of the step's first claim.

        Raises:
            ObjectRefused: Cloud Storage refuses to list them.
            BackendUnavailable: Cloud Storage is unavailable.
            StepTimedOut: Cloud Storage is too slow.
        """
        store = ArtifactStore(client=self._client, bucket=bucket)
        folder = StepFolder(run_id, step_id)
        return len(store.stored_pngs(folder, started_at=started_at, scope=self._scope()))

    def charts_since(
        self, bucket: str, run_id: str, step_id: str, manifest_uri: str | None
    ) -> datetime | None:
        """Return the start of the attempts that stored a FAILED step's charts; None if there are none.

        The manifest has it. Without one it is the newest of the times in the names of the charts.

        Args:
            bucket: The charts bucket.
            run_id: The run.
            step_id: The step.
            manifest_uri: The manifest of the failure, if it has one.

        Raises:
            ObjectRefused: Cloud Storage refuses to read or list them.
            ManifestRefused: The manifest is no valid one.
            BackendUnavailable: Cloud Storage is unavailable.
            StepTimedOut: Cloud Storage is too slow.
        """
        if manifest_uri is not None:
            items = self.manifest(manifest_uri)["items"]
            return max((datetime.fromisoformat(item["generatedAt"]) for item in items), default=None)
        store = ArtifactStore(client=self._client, bucket=bucket)
        return store.newest_start(StepFolder(run_id, step_id), scope=self._scope())

    def _scope(self) -> CancelScope:
        return CancelScope(seconds=READ_TIMEOUT_SECONDS, clock=self._clock)
