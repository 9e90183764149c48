"""List the leases of all runs that match a filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.reports.assemble import holding_of
from daemon.reports.report import Hold
from worker_chart_export.errors import visible
from worker_chart_export.ledger.lease import NEVER
from worker_chart_export.ledger.listing import lease_pages
from worker_chart_export.timing import rfc3339, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from daemon.reports.report import Holding
    from worker_chart_export.ledger.listing import ListedLease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """A lease in a list, and whether a worker holds the step."""

    listed: ListedLease
    holding: Holding

    @property
    def age(self) -> timedelta | None:
        """The time since the claim, by the server's clock."""
        acquired_at = self.listed.lease.acquired_at
        return None if acquired_at == NEVER else self.listed.read_at - acquired_at

    @property
    def reason(self) -> str:
        """What is noted about the lease: how long it lasts, who released it."""
        lease, left = self.listed.lease, self.holding.left_seconds
        texts = {
            Hold.LIVE: f"expires in {span(left or 0)} unless it is renewed",
            Hold.EXPIRED: "expired" if left is None else f"expired {span(-left)} ago",
            Hold.RELEASED: "released",
            Hold.RETRY: "the next claim of the step finds it",
            Hold.LEFT_OVER: f"has no effect: the step is {visible(self.listed.step_status or 'missing')}",
        }
        by = f" by {visible(lease.released_by)}" if lease.released_by else ""
        retried = f", retried by {visible(lease.retried_by)}" if lease.retried_by else ""
        return texts.get(self.holding.hold, "") + by + retried

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. Its names are stable. The token is not shown."""
        lease, age = self.listed.lease, self.age
        return {
            "runId": self.listed.run_id,
            "stepId": self.listed.step_id,
            "status": self.listed.step_status if isinstance(self.listed.step_status, str) else None,
            "lease": self.holding.hold.value,
            "owner": lease.owner,
            "attempt": lease.attempt,
            "released": lease.released,
            "startedAt": _time(lease.started_at),
            "acquiredAt": _time(lease.acquired_at),
            "expiresAt": _time(lease.expires_at),
            "messageId": lease.message_id or None,
            "retriedBy": lease.retried_by or None,
            "releasedBy": lease.released_by or None,
            "ageSeconds": None if age is None else round(age.total_seconds(), 3),
            "secondsLeft": self.holding.left_seconds,
            "reason": self.reason or None,
        }


def lease_row_pages(client: Any, *, owner: str | None, is_expired: bool) -> Iterator[list[LeaseRow]]:
    """Yield the leases that match, page by page: the one that ends first comes first.

    Args:
        client: A Firestore client.
        owner: The owner, or the first parts of it: `host` or `host:pid`. None: all.
        is_expired: Only leases that have ended.

    Raises:
        IndexMissing: The index of the query is missing.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    for page in lease_pages(client):
        rows: list[LeaseRow] = []
        for listed in page:
            if is_expired and listed.lease.expires_at > listed.read_at:
                yield rows
                return
            if owner is None or f"{listed.lease.owner}:".startswith(f"{owner}:"):
                status = str(listed.step_status)
                holding = holding_of(listed.lease, status, is_chart_step=True, now=listed.read_at)
                rows.append(LeaseRow(listed=listed, holding=holding))
        yield rows


def _time(moment: datetime) -> str | None:
    return None if moment == NEVER else rfc3339(moment)
