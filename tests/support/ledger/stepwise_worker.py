"""A worker process in single steps, so that a test can interleave and stop it at any point."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.support.fakes import HandClock
from tests.support.ledger.memory_firestore import Commit
from tests.support.ledger.samples import ERROR, MANIFEST, OUTAGE, READ_TIME, TERMS, offer_of, seconds
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.ledger.commit.plan import CommitRequest, Resolution, plan_commit
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.step_ledger import StepLedger

if TYPE_CHECKING:
    from tests.support.ledger.memory_firestore import Landed, MemoryFirestore
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import HeldLease, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot

LOST_RACE = BackendUnavailable("firestore", "a race was lost")
_READS_KEPT = 4
_numbers = itertools.count(1)


class SkewedClock(HandClock):
    """The server's time plus an error in seconds, and a monotonic clock with another origin."""

    def __init__(self, store: MemoryFirestore, skew_seconds: float) -> None:
        super().__init__()
        self._store = store
        self._skew_seconds = skew_seconds

    def now(self) -> Any:
        """Return the time of the wall clock."""
        return self._store.now + seconds(self._skew_seconds)

    def monotonic(self) -> float:
        """Return the time of the monotonic clock."""
        return 5000 + 7 * self._skew_seconds + (self._store.now - READ_TIME).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Flight:
    """A commit that was planned and perhaps sent."""

    worker: StepwiseWorker
    commit: Commit
    requests: list[CommitRequest]
    snapshot: RunSnapshot


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A heartbeat that has read its lease."""

    held: HeldLease
    found: StoredLease
    read_time: Any
    asked_at: float


class StepwiseWorker:
    """One process. The test decides when its commits are written and when their answers arrive.

    Args:
        store: The server.
        skew_seconds: How wrong its wall clock is.
    """

    def __init__(self, store: MemoryFirestore, *, skew_seconds: float = 0.0) -> None:
        self.store = store
        self.clock = SkewedClock(store, skew_seconds)
        self.reads: list[RunSnapshot] = []
        self.waiting: list[CommitRequest] = []
        self.held: dict[str, HeldLease] = {}
        heartbeats = Heartbeats(client=None, terms=TERMS, clock=self.clock)
        self._ledger = StepLedger(client=None, clock=self.clock, terms=TERMS, heartbeats=heartbeats)

    def read(self) -> RunSnapshot:
        """Read the run and its leases, and keep the read."""
        snapshot = self.store.read(self.clock.monotonic())
        for step_id, held in self.held.items():
            found = snapshot.leases[step_id]
            if found is not None and found.lease.token == held.lease.token:
                held.stored = found
        self._keep(snapshot)
        return snapshot

    def kept(self, number: int | None) -> RunSnapshot | None:
        """Return one of the kept reads."""
        return self.reads[number % len(self.reads)] if number is not None and self.reads else None

    def _keep(self, snapshot: RunSnapshot) -> None:
        self.reads = [*self.reads, snapshot][-_READS_KEPT:]

    def want_claim(self, step_id: str, snapshot: RunSnapshot | None = None) -> None:
        """Queue a claim."""
        offer = offer_of(f"token-{next(_numbers)}")
        self._want(ClaimIntent(step_id=step_id, offer=offer), snapshot=snapshot)

    def want_end(self, step_id: str, how: str) -> None:
        """Queue a finalize or a release of a held step."""
        held = self.held[step_id]
        common: dict[str, Any] = {
            "step_id": step_id,
            "token": held.lease.token,
            "finished_at": f"mark-{next(_numbers)}",
        }
        if how in ("release", "outage"):
            del self.held[step_id]
            error, delay = (OUTAGE, 7.0) if how == "outage" else (None, 0.0)
            self._want(ReleaseIntent(error=error, delay_seconds=delay, **common), held=held)
        elif how == "succeed":
            self._want(FinalizeIntent(manifest_uri=MANIFEST, **common), held=held)
        else:
            self._want(FinalizeIntent(error=ERROR, **common), held=held)

    def _want(
        self, intent: Intent, *, held: HeldLease | None = None, snapshot: RunSnapshot | None = None
    ) -> None:
        self.waiting.append(CommitRequest(intent=intent, snapshot=snapshot, held=held))

    def plan(self, snapshot: RunSnapshot | None) -> Flight | None:
        """Plan one commit for all that waits, from an old read, or from a new one when that is not enough."""
        is_fresh = snapshot is None or any(request.last_error for request in self.waiting)
        snapshot = self.read() if is_fresh or snapshot is None else snapshot
        requests = sorted(self.waiting, key=lambda request: request.intent.rank)
        plan = plan_commit(requests, snapshot, is_fresh=is_fresh)
        if plan.needs_read:
            return self.plan(None)
        assert not plan.failed
        for request, resolution in plan.resolved.items():
            self._resolve(request, resolution.result, resolution.lease, snapshot)
        self.waiting = [
            request for request in requests if request not in plan.resolved and request not in plan.writing
        ]
        if not plan.writing:
            return None
        commit = Commit(plan=plan, run_guard=snapshot.update_time)
        return Flight(worker=self, commit=commit, requests=list(plan.writing), snapshot=snapshot)

    def hear(self, flight: Flight, landed: Landed | None, *, is_unknown: bool = False) -> None:
        """Receive the answer to a commit: written, a lost race, or an unknown outcome."""
        if landed is None:
            for request in flight.requests:
                request.last_error = LOST_RACE
                request.outcome_unknown |= is_unknown
            self.waiting += flight.requests
            return
        if patch := flight.commit.plan.run_patch:
            self._keep(flight.snapshot.after(patch, landed.run_version))
        for request, decision in flight.commit.plan.writing.items():
            lease = landed.leases.get(request.intent.step_id)
            self._resolve(request, decision.result, lease, flight.snapshot)

    def _resolve(
        self, request: CommitRequest, result: Any, lease: StoredLease | None, snapshot: RunSnapshot
    ) -> None:
        judge, step_id = self.store.judge, request.intent.step_id
        match request.intent:
            case ClaimIntent(offer=offer) if offer is not None and result.claimed:
                assert offer.token in {token for token, *_ in judge.claims}
                resolution = Resolution(result=result, lease=lease, snapshot=request.newest(snapshot))
                self.held[step_id] = self._ledger._hold("r", step_id, resolution)
            case ClaimIntent(offer=offer) if offer is not None:
                found = snapshot.leases.get(step_id)
                is_mine = found is not None and found.lease.token == offer.token
                assert not is_mine or not _is_running(snapshot, step_id)
                judge.reported_lost.add(offer.token)
            case FinalizeIntent(finished_at=mark):
                assert not result.updated or mark in judge.winner.values()
                assert result.updated or mark != judge.winner.get(judge.place(step_id))
                judge.reported_lost |= set() if result.updated else {mark}
                self._let_go(step_id, request.held)

    def _let_go(self, step_id: str, held: HeldLease | None) -> None:
        if self.held.get(step_id) is held:
            del self.held[step_id]

    def begin_beat(self, step_id: str) -> Beat | None:
        """Read the lease, as a heartbeat does."""
        held, asked_at, found = self.held[step_id], self.clock.monotonic(), self.store.leases.get(step_id)
        if held.is_lost or found is None or found.lease.token != held.lease.token:
            held.lose("it was taken")
            return None
        held.stored = replace(found, lease=held.lease)
        return Beat(held=held, found=found, read_time=self.store.now, asked_at=asked_at)

    def hear_beat(self, beat: Beat, renewed: StoredLease | None) -> None:
        """Receive the answer to a heartbeat: renewed or lost."""
        if renewed is None:
            beat.held.lose("it was just taken")
        else:
            beat.held.stored = renewed
            beat.held.trusted_until = beat.asked_at + TERMS.trusted_seconds


def _is_running(snapshot: RunSnapshot, step_id: str) -> bool:
    step = snapshot.run.step(step_id) if snapshot.run else None
    return step is not None and step.status == "RUNNING"
