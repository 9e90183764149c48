"""Sample terms, leases, offers, runs and reads for the tests of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.support.fakes import chart_step, run_of
from worker_chart_export.errors import StepError
from worker_chart_export.ledger.decisions import Observation
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.lease import Lease, LeaseOffer, LeaseTerms, StoredLease
from worker_chart_export.ledger.run_snapshot import RunSnapshot

if TYPE_CHECKING:
    from worker_chart_export.inputs.flow_run import FlowRun

S = "s"
TERMS = LeaseTerms(lease_seconds=120, clock_skew_seconds=5, max_attempts=3)
READ_TIME = datetime(2025, 12, 15, 12, 0, 0, tzinfo=UTC)
FINISHED = "2025-12-15T12:00:00.123456Z"
MANIFEST = "gs://b/charts/r/s/manifest.json"
ERROR = StepError("CHART_API_FAILED", "no")
OUTAGE = StepError("GCS_WRITE_FAILED", "storage is unavailable, for too long.")


def seconds(count: float) -> timedelta:
    """Return a duration."""
    return timedelta(seconds=count)


def offer_of(holder: str = "mine", *, terms: LeaseTerms = TERMS) -> LeaseOffer:
    """Return the offer of a claim."""
    return LeaseOffer(
        owner=f"host:1:{holder}", token=holder, message_id="m", finished_at=FINISHED, terms=terms
    )


def lease_of(holder: str = "mine", **changes: Any) -> Lease:
    """Return a lease in its second attempt that ends a minute after the read; `changes` replace fields."""
    fields: dict[str, Any] = {
        "owner": f"host:1:{holder}",
        "token": holder,
        "attempt": 2,
        "released": 0,
        "started_at": READ_TIME - seconds(600),
        "acquired_at": READ_TIME - seconds(60),
        "expires_at": READ_TIME + seconds(60),
        "message_id": "m",
    }
    return Lease(**(fields | changes))


def stored(lease: Lease | None = None, update_time: Any = "t1") -> StoredLease:
    """Return a lease as it is in Firestore."""
    return StoredLease(lease=lease or lease_of(), update_time=update_time)


def expired(by_seconds: float, holder: str = "theirs", **changes: Any) -> StoredLease:
    """Return a lease that ended `by_seconds` before the read."""
    return stored(lease_of(holder, expires_at=READ_TIME - seconds(by_seconds), **changes))


def run_with(status: str = "RUNNING", run_status: str = "RUNNING", **fields: Any) -> FlowRun:
    """Return a run with one chart step, `s`."""
    return run_of({S: chart_step(status=status, dependsOn=[], **fields)}, status=run_status)


def observation(run: FlowRun | None = None, lease: StoredLease | None = None, **changes: Any) -> Observation:
    """Return a fresh read of the run and the lease. By default the step is RUNNING."""
    fields: dict[str, Any] = {
        "run": run or run_with(),
        "lease": lease,
        "lease_is_known": True,
        "read_time": READ_TIME,
    }
    return Observation(**(fields | changes))


def claim(holder: str | None = "mine", *, step_id: str = S, terms: LeaseTerms = TERMS) -> ClaimIntent:
    """Return a claim; without a holder, a claim without a lease."""
    return ClaimIntent(step_id=step_id, offer=None if holder is None else offer_of(holder, terms=terms))


def success(holder: str | None = "mine", *, step_id: str = S) -> FinalizeIntent:
    """Return a finalize as SUCCEEDED."""
    return FinalizeIntent(step_id=step_id, finished_at=FINISHED, manifest_uri=MANIFEST, token=holder)


def failure(holder: str | None = "mine", *, step_id: str = S) -> FinalizeIntent:
    """Return a finalize as FAILED."""
    return FinalizeIntent(step_id=step_id, finished_at=FINISHED, error=ERROR, token=holder)


def release(
    holder: str = "mine", *, delay: float = 0.0, error: StepError | None = None, step_id: str = S
) -> ReleaseIntent:
    """Return a release."""
    return ReleaseIntent(
        step_id=step_id, token=holder, delay_seconds=delay, error=error, finished_at=FINISHED
    )


def snapshot_of(run: FlowRun | None, *, asked_at: float = 1000.0, **changes: Any) -> RunSnapshot:
    """Return a read of the run."""
    fields: dict[str, Any] = {
        "run": run,
        "update_time": None if run is None else "r1",
        "read_time": READ_TIME,
        "asked_at": asked_at,
        "leases": {},
    }
    return RunSnapshot(**(fields | changes))
