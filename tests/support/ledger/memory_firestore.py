"""A run and its leases in memory, with Firestore's preconditions, and a judge that checks each commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.fakes import chart_step, run_of
from tests.support.ledger.samples import READ_TIME, TERMS, seconds
from worker_chart_export.ledger.decisions import patched
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.lease import StoredLease
from worker_chart_export.ledger.run_snapshot import RunSnapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.commit.plan import CommitPlan
    from worker_chart_export.ledger.decisions import Decision, LeaseWrite
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import Lease

FINAL = ("SUCCEEDED", "FAILED")


class PreconditionFailed(Exception):
    """A document has changed since it was read."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit that was planned, and the version of the run that it was planned from."""

    plan: CommitPlan
    run_guard: Any

    @property
    def decisions(self) -> list[tuple[Intent, Decision]]:
        """The decisions that are written, each with its intent."""
        return [(request.intent, decision) for request, decision in self.plan.writing.items()]


@dataclass(frozen=True, kw_only=True)
class Landed:
    """The versions after a commit."""

    run_version: int
    leases: Mapping[str, StoredLease | None]


class MemoryFirestore:
    """The server. The test sets its time. A write that changes nothing keeps the version."""

    def __init__(self, step_ids: Sequence[str]) -> None:
        self.now = READ_TIME
        self.run: FlowRun = run_of({name: chart_step(dependsOn=[]) for name in step_ids})
        self.run_version = 1
        self.leases: dict[str, StoredLease] = {}
        self.judge = Judge(self)
        self._last_version = 1

    def status(self, step_id: str) -> str:
        """Return the step's status."""
        return str(self.run.document["steps"][step_id]["status"])

    def read(self, asked_at: float) -> RunSnapshot:
        """Read the run and all its leases."""
        leases = {name: self.leases.get(name) for name in self.run.document["steps"]}
        return RunSnapshot(
            run=self.run,
            update_time=self.run_version,
            read_time=self.now,
            asked_at=asked_at,
            leases=leases,
        )

    def change_run(self, patch: Mapping[str, Any]) -> None:
        """Change the run as the orchestrator does: without a precondition, and without the leases."""
        after = patched(self.run, patch)
        if after.document != self.run.document:
            self.run, self.run_version = after, self._next_version()

    def commit(self, commit: Commit) -> Landed:
        """Write all of a commit or nothing.

        Raises:
            PreconditionFailed: Nothing was written.
        """
        writes = {intent.step_id: decision.lease_write for intent, decision in commit.decisions}
        patch = commit.plan.run_patch
        if patch and commit.run_guard != self.run_version:
            raise PreconditionFailed
        for step_id, write in writes.items():
            self._check(step_id, write)
        self.judge.landing(commit)
        self.change_run(patch)
        return Landed(
            run_version=self.run_version,
            leases={name: self._write(name, write) for name, write in writes.items() if write is not None},
        )

    def renew(self, step_id: str, lease: Lease, guard: Any) -> StoredLease:
        """Write a lease as a heartbeat does."""
        current = self.leases.get(step_id)
        if current is None or current.update_time != guard:
            raise PreconditionFailed
        return self._put(step_id, lease)

    def _check(self, step_id: str, write: LeaseWrite | None) -> None:
        if write is None or write.guard is None:
            return
        current = self.leases.get(step_id)
        if current is None or current.update_time != write.guard:
            raise PreconditionFailed

    def _write(self, step_id: str, write: LeaseWrite) -> StoredLease | None:
        if write.lease is None:
            self.leases.pop(step_id, None)
            return None
        return self._put(step_id, write.lease)

    def _put(self, step_id: str, lease: Lease) -> StoredLease:
        current = self.leases.get(step_id)
        if current is None or current.lease != lease:
            self.leases[step_id] = StoredLease(lease=lease, update_time=self._next_version())
        return self.leases[step_id]

    def _next_version(self) -> int:
        self._last_version += 1
        return self._last_version


@dataclass
class Judge:
    """Asserts what must hold for each commit, and for each result that a caller gets.

    Attributes:
        store: The server.
        period: How often each step was made READY again.
        winner: Whose result stands, by step and period.
        claims: Tokens whose claim landed, each with the attempt; one whose winner never heard of it may win
            the step again.
        reported_lost: Tokens and finishing times whose callers got the result that they lost.
    """

    store: MemoryFirestore
    period: dict[str, int] = field(default_factory=dict)
    winner: dict[tuple[str, int], str] = field(default_factory=dict)
    claims: set[tuple[str, tuple[str, int], int]] = field(default_factory=set)
    reported_lost: set[str] = field(default_factory=set)

    def place(self, step_id: str) -> tuple[str, int]:
        """Return the step with its current period."""
        return step_id, self.period.get(step_id, 0)

    def reset(self, step_id: str) -> None:
        """Begin a new period: the orchestrator has made the step READY, and the next claim is the first."""
        self.period[step_id] = self.period.get(step_id, 0) + 1

    def landing(self, commit: Commit) -> None:
        """Check a commit whose preconditions hold, just before it is written."""
        for intent, decision in commit.decisions:
            match intent:
                case ClaimIntent() if decision.result.claimed:
                    self._claim(intent, decision)
                case ClaimIntent():
                    self._taken_while_over(intent.step_id)
                    self._win(intent.step_id, "crash loop")
                case FinalizeIntent() if decision.run_patch is not None:
                    self._holds(intent.step_id, intent.token)
                    assert decision.lease_write is not None
                    assert decision.lease_write.lease is None
                    assert intent.finished_at not in self.reported_lost
                    self._win(intent.step_id, intent.finished_at)
                case ReleaseIntent() if decision.lease_write is not None:
                    self._holds(intent.step_id, intent.token)
                    if decision.run_patch is not None:
                        self._win(intent.step_id, intent.finished_at)

    def _holds(self, step_id: str, token: str | None) -> None:
        """Check that the lease was not taken over by another worker."""
        current = self.store.leases.get(step_id)
        assert current is not None
        assert current.lease.token == token

    def _win(self, step_id: str, mark: str) -> None:
        """Check that the step is RUNNING and has no result yet, and note this one."""
        assert self.store.status(step_id) == "RUNNING"
        assert self.place(step_id) not in self.winner
        self.winner[self.place(step_id)] = mark

    def _claim(self, intent: ClaimIntent, decision: Decision) -> None:
        assert decision.lease_write is not None
        lease = decision.lease_write.lease
        assert lease is not None
        assert lease.token not in self.reported_lost
        assert (lease.token, self.place(intent.step_id), lease.attempt) not in self.claims
        self.claims.add((lease.token, self.place(intent.step_id), lease.attempt))
        if self.store.status(intent.step_id) == "READY":
            assert (lease.attempt, lease.released, lease.started_at) == (1, 0, lease.acquired_at)
            return
        assert self.store.status(intent.step_id) == "RUNNING"
        earlier = self._taken_while_over(intent.step_id)
        assert earlier.attempt - earlier.released < TERMS.max_attempts
        assert lease.attempt == earlier.attempt + 1
        assert (lease.released, lease.started_at) == (earlier.released, earlier.started_at)

    def _taken_while_over(self, step_id: str) -> Lease:
        """Check that the lease has expired, and return it."""
        earlier = self.store.leases[step_id].lease
        skew = 0 if not earlier.token else TERMS.clock_skew_seconds
        assert earlier.expires_at + seconds(skew) <= self.store.now
        return earlier
