"""Find the expired leases of all runs for the rescue, and delete leases that are left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1.base_query import FieldFilter

from worker_chart_export.backends.errors import (
    COMMIT_TIMEOUT_SECONDS,
    READ_RETRY,
    READ_TIMEOUT_SECONDS,
    backend_errors,
)
from worker_chart_export.errors import IndexMissing
from worker_chart_export.ledger.decisions import FLOW_RUNS
from worker_chart_export.ledger.lease import LEASES
from worker_chart_export.ledger.run_snapshot import lease_reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from worker_chart_export.ledger.lease import StoredLease

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredLease:
    """The place of a lease that had expired when it was searched for. It may have changed since."""

    run_id: str
    step_id: str


def expired_leases(
    client: Any, *, before: datetime, page_size: int = PAGE_SIZE
) -> Iterator[list[ExpiredLease]]:
    """Yield pages of the leases that expired before this time, oldest first.

    Raises:
        IndexMissing: The index of the query is missing.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    query = (
        client.collection_group(LEASES)
        .where(filter=FieldFilter("expiresAt", "<", before))
        .order_by("expiresAt")
        .select(["expiresAt"])  # another field may hold a value that the client can't decode
        .limit(page_size)
    )
    page = _page(query)
    while page:
        found = []
        for snapshot in page:
            match snapshot.reference.path.split("/"):
                # Not a collection of the same name elsewhere.
                case [folder, run_id, _, step_id] if folder == FLOW_RUNS:
                    found.append(ExpiredLease(run_id=run_id, step_id=step_id))
        yield found
        if len(page) < page_size:
            return
        page = _page(query.start_after(page[-1]))


def _page(query: Any) -> list[Any]:
    with backend_errors("firestore"):
        try:
            return list(query.stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS))
        except google_errors.FailedPrecondition as error:
            raise IndexMissing(str(error.message)) from error


def delete_lease(client: Any, run_id: str, step_id: str, stored: StoredLease) -> bool:
    """Delete a lease, but not when it has changed since it was read. Return whether it was deleted.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    option = client.write_option(last_update_time=stored.update_time)
    with backend_errors("firestore"):
        try:
            lease_reference(client, run_id, step_id).delete(
                option=option, retry=None, timeout=COMMIT_TIMEOUT_SECONDS
            )
        except (google_errors.FailedPrecondition, google_errors.NotFound):
            return False
    return True
