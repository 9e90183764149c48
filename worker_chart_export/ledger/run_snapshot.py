"""A flow run as read, with what proves it: its `update_time`, and the server's time of the read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.errors import READ_RETRY, READ_TIMEOUT_SECONDS, backend_errors
from worker_chart_export.backends.firestore import document_of, is_minimal, read_document, read_documents
from worker_chart_export.inputs.flow_run import FlowRun, StepStatus
from worker_chart_export.ledger.decisions import FLOW_RUNS, patched
from worker_chart_export.ledger.lease import LEASES, Lease, StoredLease

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from worker_chart_export.timing import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """A flow run as it was at one moment.

    Attributes:
        run: The run, or None when there is none.
        update_time: What a write names as its precondition; None with a minimal client or a missing run.
        read_time: The server's time of the read; None with a minimal client, and after our own commit.
        asked_at: The monotonic clock just before the read.
        leases: The leases that were read with it, None for a step without one.
    """

    run: FlowRun | None
    update_time: Any
    read_time: datetime | None
    asked_at: float
    leases: Mapping[str, StoredLease | None]

    def after(self, patch: Mapping[str, Any], update_time: Any) -> RunSnapshot:
        """The run as it stands after our own commit; the time of the read before it is no time to go by."""
        run = patched(self.run, patch) if self.run is not None else None
        return replace(self, run=run, update_time=update_time, read_time=None, leases={})


def read_run(client: Any, run_id: str, clock: Clock) -> RunSnapshot:
    """The run as it is now.

    Raises:
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    return read_run_with_leases(client, run_id, (), clock)


def read_run_with_leases(client: Any, run_id: str, step_ids: Collection[str], clock: Clock) -> RunSnapshot:
    """The run and the leases of these steps, all of one moment; errors as `read_run`."""
    asked_at = clock.monotonic()
    if is_minimal(client):
        found = read_document(client, FLOW_RUNS, run_id)
        return RunSnapshot(
            run=_run(run_id, document_of(found)),
            update_time=getattr(found, "update_time", None),
            read_time=getattr(found, "read_time", None),
            asked_at=asked_at,
            leases=dict.fromkeys(step_ids),
        )
    run_reference = client.collection(FLOW_RUNS).document(run_id)
    folder = run_reference.collection(LEASES)
    of_run, *of_leases = read_documents(
        client, [run_reference, *(folder.document(step_id) for step_id in step_ids)]
    )
    return RunSnapshot(
        run=_run(run_id, of_run.fields),
        update_time=of_run.update_time,
        read_time=of_run.read_time,
        asked_at=asked_at,
        leases={
            step_id: _stored(found.fields, found.update_time)
            for step_id, found in zip(step_ids, of_leases, strict=True)
        },
    )


def read_run_with_all_leases(client: Any, run_id: str, clock: Clock) -> RunSnapshot:
    """The run with every lease beside it; its RUNNING chart steps without one have None.

    All of one moment, so that a step which ends just then is not seen without its lease; errors as
    `read_run`.
    """
    folder = client.collection(FLOW_RUNS).document(run_id).collection(LEASES)
    with backend_errors("firestore"):
        found = folder.stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)
        names = {snapshot.id for snapshot in found}
    snapshot = read_run_with_leases(client, run_id, names, clock)
    while new := _running_chart_steps(snapshot.run) - names:
        names |= new
        snapshot = read_run_with_leases(client, run_id, names, clock)
    return snapshot


def _running_chart_steps(run: FlowRun | None) -> set[str]:
    steps = (run.readable_step(name) for name in run.chart_step_ids()) if run else ()
    return {step.step_id for step in steps if step and step.status is StepStatus.RUNNING}


def lease_reference(client: Any, run_id: str, step_id: str) -> Any:
    """Where the lease of a step is."""
    return client.collection(FLOW_RUNS).document(run_id).collection(LEASES).document(step_id)


def read_lease(client: Any, run_id: str, step_id: str) -> StoredLease | None:
    """The lease of a step as it is now, or None; errors as `read_run`."""
    with backend_errors("firestore"):
        reference = lease_reference(client, run_id, step_id)
        return stored_lease(reference.get(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS))


def stored_lease(snapshot: Any) -> StoredLease | None:
    """The lease in a snapshot of its document, or None when there is none."""
    return _stored(document_of(snapshot), getattr(snapshot, "update_time", None))


def _stored(document: Mapping[str, Any] | None, update_time: Any) -> StoredLease | None:
    return None if document is None else StoredLease(lease=Lease.parse(document), update_time=update_time)


def _run(run_id: str, document: Mapping[str, Any] | None) -> FlowRun | None:
    return None if document is None else FlowRun.parse(run_id, document)
