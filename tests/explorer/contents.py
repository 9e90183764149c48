"""What the documents hold: runs and leases as the core reads them, made from the states of the model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.explorer.state import EMPTY, NOBODY, UNKNOWN
from tests.support.fakes import HandClock, chart_step, run_of
from worker_chart_export.errors import StepError
from worker_chart_export.ledger.lease import UNKNOWN_OWNER, Lease, LeaseTerms, StoredLease, unleased
from worker_chart_export.ledger.run_snapshot import RunSnapshot

if TYPE_CHECKING:
    from tests.explorer.state import LeaseDoc, State
    from worker_chart_export.inputs.flow_run import FlowRun

NOW = datetime(2025, 12, 15, 12, 0, 0, tzinfo=UTC)
TICK = timedelta(seconds=60)
#: A lease is trusted for one tick, has expired after two, and may be taken over after three.
TERMS = LeaseTerms(
    lease_seconds=120,
    clock_skew_seconds=60,
    max_attempts=2,
    unleased_grace_seconds=120,
    max_work_seconds=3600,
)
#: A message waits for its step for this long.
GRACE_SECONDS = 90.0
LIMIT = 2
OPERATOR = "ann@desk"
MINE, THEIRS, SOME = "mine", "theirs", "some"
MANIFEST = "gs://b/charts/r/s/manifest.json"
ERROR = StepError("CHART_API_FAILED", "no", details={"httpStatus": 500})
OUTAGE = StepError(
    "GCS_WRITE_FAILED", "storage is unavailable, for too long.", details={"backend": "storage"}
)
FIRST_START = NOW - timedelta(minutes=30)
TAKEN_AT, RETRIED_AT = NOW - timedelta(minutes=5), NOW - timedelta(minutes=4)
#: Where a lease that has expired is no longer told from one that has expired earlier.
EARLIEST, LATEST = NOW - 2 * TICK, NOW + 2 * TICK
CLOCK = HandClock()
#: The limit of growth, by how full the document is.
ROOM = (9, 2, 1, 0)


class Numbered:
    """Numbers for values, so that a state holds a number in their place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        """Return the number of a value."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


LEASES, RESULTS = Numbered(), Numbered()


def start_of(epoch: int) -> datetime:
    """Return the time that names the charts of a life of the step."""
    return FIRST_START + timedelta(seconds=epoch)


def epoch_of(content: int) -> int:
    """Return which life of the step the charts of this lease are named after."""
    return round((LEASES.values[content].started_at - FIRST_START).total_seconds())


def released(content: int) -> int:
    """Return how many claims ended in a release."""
    count: int = LEASES.values[content].released
    return count


def keep(lease: Lease) -> int:
    """Return the number of a lease's content. Its token and owner are kept apart; its times are rounded."""
    is_first = lease.started_at == lease.acquired_at
    lease = replace(
        lease,
        token=SOME if lease.token else "",
        owner="" if lease.owner != UNKNOWN_OWNER else UNKNOWN_OWNER,
        acquired_at=lease.started_at if is_first else TAKEN_AT,
        expires_at=min(LATEST, max(EARLIEST, lease.expires_at)),
        retried_at=lease.retried_at and RETRIED_AT,
    )
    return LEASES.number(lease)


@cache
def with_epoch(content: int, epoch: int) -> int:
    """Return a new lease as the first of this life of the step. A take-over keeps the start."""
    lease = LEASES.values[content]
    if lease.started_at != NOW:
        return content
    return keep(replace(lease, started_at=start_of(epoch), acquired_at=start_of(epoch)))


@cache
def later(content: int) -> int:
    """Return the lease as it is a tick later."""
    lease = LEASES.values[content]
    return keep(replace(lease, expires_at=lease.expires_at - TICK))


@cache
def lease_of(content: int, whose: str) -> StoredLease:
    """Return the lease with this content as a worker reads it."""
    lease = LEASES.values[content]
    owner = lease.owner or f"host:1:{whose}"
    return StoredLease(lease=replace(lease, token=lease.token and whose, owner=owner), update_time="lease")


def seen_by(lease: LeaseDoc | None, worker: int) -> tuple[int, str] | None:
    """Return a lease as a worker finds it: its content, and whether it has the worker's token."""
    return None if lease is None else (lease.content, MINE if lease.owner == worker else THEIRS)


def run_seen_by(state: State, worker: int) -> tuple[Any, ...]:
    """Return the run as a worker finds it."""
    steps = tuple((step.status, _mark(step.mark, worker)) for step in state.steps)
    return state.run, steps if state.run else ()


def _mark(mark: int, worker: int) -> str:
    return "" if mark == NOBODY else MINE if mark == worker else THEIRS


@cache
def run_from(run: tuple[Any, ...]) -> FlowRun | None:
    """Return the run that `run_seen_by` describes."""
    status, steps = run
    if not status:
        return None
    documents = {
        f"s{number}": chart_step(status=of_step, finishedAt=mark or None, dependsOn=[])
        for number, (of_step, mark) in enumerate(steps)
    }
    return run_of(documents, status=status)


def snapshot_of(
    run: tuple[Any, ...], step: int, lease: tuple[int, str] | None, *, with_leases: bool = True
) -> RunSnapshot:
    """Return what a read of the run, and perhaps of the step's lease, brings."""
    found = None if lease is None else lease_of(*lease)
    return RunSnapshot(
        run=run_from(run),
        update_time="run" if run[0] else None,
        read_time=NOW,
        asked_at=CLOCK.monotonic(),
        leases={f"s{step}": found} if with_leases else {},
    )


def renewed(content: int, age: int = 0) -> int:
    """Return the lease after a heartbeat whose read was `age` ticks ago."""
    lease = LEASES.values[content]
    return keep(replace(lease, expires_at=NOW - age * TICK + timedelta(seconds=TERMS.lease_seconds)))


def adopted() -> int:
    """Return the lease that is created for a step which some worker runs without one."""
    return keep(unleased(token=SOME, now=NOW, grace_seconds=TERMS.unleased_grace_seconds))


def released_often(times: int) -> int:
    """Return a lease that was released so often for an unavailable backend. It may be taken over."""
    return keep(
        Lease(
            owner="host:1:gone",
            token="",
            attempt=times,
            released=times,
            started_at=FIRST_START,
            acquired_at=TAKEN_AT,
            expires_at=EARLIEST,
            message_id="",
        )
    )


def owner_of(content: int, owner: int) -> int:
    """Return whose token a lease has that `owner` has written."""
    lease = LEASES.values[content]
    return UNKNOWN if lease.owner == UNKNOWN_OWNER else owner if lease.token else EMPTY
