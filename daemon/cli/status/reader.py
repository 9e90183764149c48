"""Read the state of a run: the run and its leases each time, the bucket as rarely as possible."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from daemon.lifecycle.signals import STOP_SIGNALS
from daemon.lifecycle.stoppable_wait import StoppableWait
from daemon.reports.assemble import BucketFacts, manifest_uri, run_report, step_status
from worker_chart_export.errors import WorkerError
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease import NEVER
from worker_chart_export.ledger.run_snapshot import read_run_with_all_leases
from worker_chart_export.outputs.results import StoredResults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.reports.report import RunReport
    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.lease import Lease
    from worker_chart_export.timing import Clock

T = TypeVar("T")

#: After this time, charts of RUNNING steps are counted again, and failed reads are tried again.
AGAIN_AFTER_SECONDS = 5.0
#: With parallel reads, a bucket that does not answer costs one time-out, unless the run has many steps.
PARALLEL_READS = 16
#: How often a stop signal and the end of a read are checked.
POLL_SECONDS = 0.05
NO_BUCKET = "set CHARTS_BUCKET to count them"

#: What to read from the bucket: a key for the cache, and the read itself.
Lookup = tuple[tuple[str, ...], Callable[[StoredResults], BucketFacts]]


class RunReader:
    """Reads the state of one run, repeatedly.

    Args:
        documents: A Firestore client.
        open_objects: Opens a Cloud Storage client; called when the first read of the bucket is needed.
        bucket: The name of the charts bucket, or None. Charts of RUNNING steps are counted there.
        run_id: The run.
        clock: The clock for the cache of bucket reads.
        unleased_grace_seconds: `UNLEASED_GRACE_SECONDS`, if it is known; it is shown to people.
    """

    def __init__(
        self,
        *,
        documents: Any,
        open_objects: Callable[[], Any],
        bucket: str | None,
        run_id: str,
        clock: Clock,
        unleased_grace_seconds: float | None = None,
    ) -> None:
        self._documents = documents
        self._open_objects = open_objects
        self._bucket = bucket
        self.run_id = run_id
        self._clock = clock
        self._unleased_grace_seconds = unleased_grace_seconds
        self._opening = threading.Lock()
        self._results: StoredResults | None = None
        #: Key -> what was read, and until when (monotonic clock) it is valid.
        self._cache: dict[tuple[str, ...], tuple[BucketFacts, float]] = {}

    def read(self) -> RunReport | None:
        """Read the run as it is now; None if it does not exist.

        If the bucket or a manifest can't be read, the report says so.

        Raises:
            RunInvalid: The document can't be read as a flow run.
            BackendUnavailable: Firestore does not answer.
            BackendRefused: Firestore refuses.
        """
        snapshot = read_run_with_all_leases(self._documents, self.run_id, self._clock)
        if snapshot.run is None:
            return None
        leases = {name: stored.lease for name, stored in snapshot.leases.items() if stored is not None}
        return run_report(
            snapshot.run,
            leases,
            self._bucket_facts(snapshot.run, leases),
            read_at=snapshot.read_time or self._clock.now(),
            bucket=self._bucket,
            unleased_grace_seconds=self._unleased_grace_seconds,
        )

    def _bucket_facts(self, run: FlowRun, leases: Mapping[str, Lease]) -> dict[str, BucketFacts]:
        """Return what the bucket holds for each step, from the cache where it is still valid."""
        lookups = {
            step_id: lookup
            for step_id in run.chart_step_ids()
            if (lookup := self._lookup(step_id, run.document["steps"][step_id], leases.get(step_id)))
        }
        now = self._clock.monotonic()
        due = {key: read for key, read in lookups.values() if self._cache.get(key, (None, 0.0))[1] <= now}
        if due:
            with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="storage") as pool:
                found = list(pool.map(self._read_bucket, due.values()))
            soon = self._clock.monotonic() + AGAIN_AFTER_SECONDS
            for key, facts in zip(due, found, strict=True):
                # A manifest does not change any more: it is written last, and the step is final.
                self._cache[key] = facts, soon if facts.manifest is None else inf
        return {step_id: self._cache[key][0] for step_id, (key, _) in lookups.items()}

    def _lookup(self, step_id: str, raw: Mapping[str, Any], lease: Lease | None) -> Lookup | None:
        """Return what to read from the bucket for this step, if anything."""
        status, uri = step_status(raw), manifest_uri(raw)
        if status in {StepStatus.SUCCEEDED, StepStatus.FAILED} and uri is not None:
            key = (step_id, uri, str(raw.get("finishedAt")))
            return key, lambda results: BucketFacts(manifest=results.manifest(uri))
        if status != StepStatus.RUNNING or lease is None or lease.started_at == NEVER:
            return None
        bucket, started_at = self._bucket, lease.started_at

        def count(results: StoredResults) -> BucketFacts:
            if bucket is None:
                return BucketFacts(problem=NO_BUCKET)
            return BucketFacts(stored=results.count_charts(bucket, self.run_id, step_id, started_at))

        return (step_id, started_at.isoformat()), count

    def _read_bucket(self, read: Callable[[StoredResults], BucketFacts]) -> BucketFacts:
        try:
            with self._opening:
                if self._results is None:
                    self._results = StoredResults(client=self._open_objects(), clock=self._clock)
            return read(self._results)
        except WorkerError as error:
            return BucketFacts(problem=str(error))


def until_stopped(read: Callable[[], T], *, every_seconds: float) -> Iterator[T]:
    """Call `read` repeatedly, and yield its results until a stop signal arrives. Errors of `read` are raised.

    The stop signals must be blocked in all threads: this function waits for them. If a read is in progress
    when a signal arrives, it is abandoned in its thread, which does not keep the process alive.
    """
    threads = StoppableWait()
    while True:
        reading = threads.start(read, name="read-run")
        while not reading.done():
            if signal.sigtimedwait(STOP_SIGNALS, POLL_SECONDS) is not None:
                return
        yield reading.result()
        if signal.sigtimedwait(STOP_SIGNALS, every_seconds) is not None:
            return
