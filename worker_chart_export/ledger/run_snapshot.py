"""Read flow runs and their leases, with the update times that later writes name as preconditions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.errors import READ_RETRY
from worker_chart_export.backends.firestore import document_ids, read_documents
from worker_chart_export.inputs.flow_run import FlowRun, StepStatus
from worker_chart_export.ledger.decisions import FLOW_RUNS, patched
from worker_chart_export.ledger.lease import LEASES, Lease, StoredLease

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from google.api_core.retry import Retry

    from worker_chart_export.timing import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """A flow run as it was at one moment.

    Attributes:
        run: The run, or None when there is none.
        update_time: The precondition of a write to the run. None when there is no run.
        read_time: The server's time of the read. None after a commit of our own.
        asked_at: The time on the monotonic clock just before the read.
        leases: The leases that were read with the run, by step id. None for a step without a lease.
    """

    run: FlowRun | None
    update_time: Any
    read_time: datetime | None
    asked_at: float
    leases: Mapping[str, StoredLease | None]

    def server_time(self, monotonic: float) -> datetime | None:
        """Return the server's time at this time on the monotonic clock; None if the read brought no time.

        It is late by at most the duration of the read.
        """
        seconds = timedelta(seconds=monotonic - self.asked_at)
        return None if self.read_time is None else self.read_time + seconds

    def after(self, patch: Mapping[str, Any], update_time: Any) -> RunSnapshot:
        """Return the run as it is after our own commit of `patch`. It has no leases and no read time."""
        run = patched(self.run, patch) if self.run is not None else None
        return replace(self, run=run, update_time=update_time, read_time=None, leases={})


def read_run(
    client: Any,
    run_id: str,
    clock: Clock,
    *,
    leases_of: Collection[str] = (),
    retry: Retry | None = READ_RETRY,
) -> RunSnapshot:
    """Read the run and the leases of these steps, all at one moment.

    Args:
        client: A Firestore client.
        run_id: The run.
        clock: Its monotonic clock is used.
        leases_of: The steps.
        retry: The client's retries. None: the caller repeats the read.

    Raises:
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    asked_at = clock.monotonic()
    reference = client.collection(FLOW_RUNS).document(run_id)
    references = [reference]
    references += [reference.collection(LEASES).document(step_id) for step_id in leases_of]
    found, *found_leases = read_documents(client, references, retry=retry)
    leases = {}
    for step_id, lease in zip(leases_of, found_leases, strict=True):
        leases[step_id] = stored_lease(lease.fields, lease.update_time)
    return RunSnapshot(
        run=None if found.fields is None else FlowRun.parse(run_id, found.fields),
        update_time=found.update_time,
        read_time=found.read_time,
        asked_at=asked_at,
        leases=leases,
    )


def read_run_with_all_leases(client: Any, run_id: str, clock: Clock) -> RunSnapshot:
    """Read the run and all its leases at one moment. Its RUNNING chart steps without a lease have None.

    With two moments, a step that ends between them would be read as RUNNING without its lease. Errors as
    `read_run`.
    """
    names = set(document_ids(client.collection(FLOW_RUNS).document(run_id).collection(LEASES)))
    while True:
        snapshot = read_run(client, run_id, clock, leases_of=names)
        run = snapshot.run
        steps = [run.readable_step(name) for name in run.chart_step_ids()] if run else []
        running = {step.step_id for step in steps if step and step.status is StepStatus.RUNNING}
        if running <= names:
            return snapshot
        names |= running


def lease_reference(client: Any, run_id: str, step_id: str) -> Any:
    """Return the reference of a step's lease document."""
    return client.collection(FLOW_RUNS).document(run_id).collection(LEASES).document(step_id)


def read_lease(client: Any, run_id: str, step_id: str) -> StoredLease | None:
    """Read the lease of a step. Return None when there is none.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    (found,) = read_documents(client, [lease_reference(client, run_id, step_id)])
    return stored_lease(found.fields, found.update_time)


def stored_lease(document: Mapping[str, Any] | None, update_time: Any) -> StoredLease | None:
    """Return the lease in these fields of a document, or None when there is no document."""
    return None if document is None else StoredLease(lease=Lease.parse(document), update_time=update_time)
