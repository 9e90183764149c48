"""List the runs of the database and the leases of all runs, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter
from google.cloud.firestore_v1.field_path import FieldPath

from worker_chart_export.backends.firestore import read_documents
from worker_chart_export.backends.firestore_pages import read_pages
from worker_chart_export.ledger.decisions import FLOW_RUNS
from worker_chart_export.ledger.lease import LEASES, OPTIONAL, Lease
from worker_chart_export.ledger.run_snapshot import lease_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

#: Runs are large. A page of leases reads one field of as many runs.
RUNS_A_PAGE = 100
LEASES_A_PAGE = 200
RUN_FIELDS = ("status", "createdAt", "flowKey", "scope.symbol", "steps")
LEASE_FIELDS = (*Lease.parse({}).to_document(), *sorted(OPTIONAL))
#: Times are stored as text, in any time zone. So texts and times can differ in order by up to a day.
TEXT_MARGIN = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """A run in a list.

    Attributes:
        run_id: The run.
        fields: `RUN_FIELDS` of its document. Not checked.
        read_at: The server's time of the read.
    """

    run_id: str
    fields: Mapping[str, Any]
    read_at: datetime


def run_pages(client: Any, *, created_since: datetime | None = None) -> Iterator[list[ListedRun]]:
    """Yield the runs in pages, the newest first by `createdAt`. Runs without that field are not found.

    Args:
        client: A Firestore client.
        created_since: The earliest `createdAt`, give or take a day.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    runs = client.collection(FLOW_RUNS).select(RUN_FIELDS)
    queries = [runs]
    if created_since is not None:  # a query by value finds only values of the same type
        text = f"{(created_since - TEXT_MARGIN).astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
        queries = [
            runs.where(filter=FieldFilter("createdAt", ">=", value)) for value in (text, created_since)
        ]
    for query in queries:
        pages = read_pages(
            client,
            query,
            order_by="createdAt",
            direction=firestore.Query.DESCENDING,
            page_size=RUNS_A_PAGE,
        )
        for page in pages:
            yield [
                ListedRun(
                    run_id=found.path.removeprefix(f"{FLOW_RUNS}/"),
                    fields=found.snapshot.fields or {},
                    read_at=found.snapshot.read_time,
                )
                for found in page
            ]


def read_leases(client: Any, steps: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Lease]:
    """Read the leases of these steps (run id, step id). Steps without a lease are left out.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    references = [lease_reference(client, run_id, step_id) for run_id, step_id in steps]
    found = {}
    for step, snapshot in zip(steps, read_documents(client, references), strict=True):
        if snapshot.fields is not None:
            found[step] = Lease.parse(snapshot.fields)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLease:
    """A lease in a list.

    Attributes:
        run_id: The run.
        step_id: The step.
        lease: The lease.
        step_status: The status of the step, as it is stored; None when there is no such step.
        read_at: The server's time of the read.
    """

    run_id: str
    step_id: str
    lease: Lease
    step_status: Any
    read_at: datetime


def lease_pages(client: Any) -> Iterator[list[ListedLease]]:
    """Yield the leases of all runs in pages, by their end, the earliest first.

    Raises:
        IndexMissing: The index of the query is missing.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    pages = read_pages(
        client,
        client.collection_group(LEASES).select(LEASE_FIELDS),
        order_by="expiresAt",
        direction=firestore.Query.ASCENDING,
        page_size=LEASES_A_PAGE,
    )
    for page in pages:
        leases = []
        for found in page:
            match found.path.split("/"):
                # Not a collection of the same name elsewhere.
                case [folder, run_id, _, step_id] if folder == FLOW_RUNS:
                    lease = ListedLease(
                        run_id=run_id,
                        step_id=step_id,
                        lease=Lease.parse(found.snapshot.fields or {}),
                        step_status=None,
                        read_at=found.snapshot.read_time,
                    )
                    leases.append(lease)
        yield _with_statuses(client, leases)


def _with_statuses(client: Any, leases: Sequence[ListedLease]) -> list[ListedLease]:
    """Read the statuses of the steps."""
    run_ids = sorted({lease.run_id for lease in leases})
    paths = {FieldPath("steps", lease.step_id, "status").to_api_repr() for lease in leases}
    references = [client.collection(FLOW_RUNS).document(run_id) for run_id in run_ids]
    snapshots = read_documents(client, references, field_paths=sorted(paths))
    runs = {run_id: snapshot.to_dict() or {} for run_id, snapshot in zip(run_ids, snapshots, strict=True)}
    return [
        replace(lease, step_status=_status_of(runs[lease.run_id].get("steps"), lease.step_id))
        for lease in leases
    ]


def _status_of(steps: object, step_id: str) -> Any:
    step = steps.get(step_id) if isinstance(steps, Mapping) else None
    return step.get("status") if isinstance(step, Mapping) else None
