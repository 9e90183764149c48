"""What a caller of the group commit asks for, what it goes by, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.concurrency.combining_queue import QueuedRequest
from worker_chart_export.ledger.decisions import ClaimResult
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.observation import Observation

if TYPE_CHECKING:
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease.held_lease import HeldLease
    from worker_chart_export.ledger.lease.lease import StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of an intent.

    Attributes:
        result: Its own result.
        lease: The step's lease as it stands; None when there is none.
        snapshot: The read whose time the lease was decided by.
    """

    result: Any
    lease: StoredLease | None
    snapshot: RunSnapshot


@dataclass(slots=True, kw_only=True, eq=False)
class CommitRequest(QueuedRequest):
    """One caller's intent on its way.

    Attributes:
        intent: What is wanted.
        snapshot: A read that is good enough to begin with.
        held: The lease it goes by.
        outcome_unknown: A commit for it got no clear answer.
        isolated: It shares no commit, because one that it shared could not be stored.
    """

    intent: Intent
    snapshot: RunSnapshot | None
    held: HeldLease | None
    outcome_unknown: bool = False
    isolated: bool = False

    @property
    def step_id(self) -> str:
        """The step it is about."""
        return self.intent.step_id

    @property
    def needs_lease(self) -> bool:
        """Whether its step's lease matters to it."""
        match self.intent:
            case ClaimIntent(offer=offer):
                return offer is not None
            case FinalizeIntent(token=token):
                return token is not None
            case ReleaseIntent():
                return True

    @property
    def won_a_step(self) -> bool:
        """Whether it took a lease."""
        if self.answer is None or self.answer.lease is None:
            return False
        return isinstance(self.answer.result, ClaimResult) and self.answer.result.claimed

    def observation(self, snapshot: RunSnapshot, *, is_fresh: bool) -> Observation:
        """What its decision goes by; `is_fresh` says that the snapshot was read for this very turn."""
        newest = self.newest(snapshot)
        lease, lease_is_known = self.known_lease(snapshot, is_fresh=is_fresh)
        return Observation(
            run=snapshot.run,
            lease=lease,
            lease_is_known=lease_is_known,
            run_is_fresh=is_fresh,
            read_time=newest.read_time,
            outcome_unknown=self.outcome_unknown,
        )

    def newest(self, snapshot: RunSnapshot) -> RunSnapshot:
        """The newer read of the two."""
        return max((snapshot, self.snapshot or snapshot), key=lambda read: read.asked_at)

    def known_lease(self, snapshot: RunSnapshot, *, is_fresh: bool) -> tuple[StoredLease | None, bool]:
        """The step's lease, and whether it is known at all. A stale one costs a lost race, no more."""
        if is_fresh and self.step_id in snapshot.leases:
            return snapshot.leases[self.step_id], True
        if self.held is not None:
            return self.held.stored, True
        if self.snapshot is not None and self.step_id in self.snapshot.leases:
            return self.snapshot.leases[self.step_id], True
        return None, False
