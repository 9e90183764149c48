"""The intents of many callers on one run, put into one commit. Pure.

Each caller gets a verdict of its own: what is refused leaves at once, what writes shares the commit, and what
can't be decided yet, or touches a step that another intent writes already, waits for the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker_chart_export.concurrency.combining_queue import QueuedRequest
from worker_chart_export.errors import BackendRefused, WorkerError
from worker_chart_export.ledger.decisions import ClaimResult, Observation
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_chart_export.ledger.decisions import Decision, LeaseWrite
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import HeldLease, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPlan:
    """What becomes of the intents, each by its place in the sequence given.

    Attributes:
        settled: Results that need no write.
        failed: Errors of their own.
        writing: Decisions that share the commit.
        unread: Those that have to be decided by a read made for this very turn.
        postponed: Those whose step another one writes.
    """

    settled: dict[int, Any] = field(default_factory=dict)
    failed: dict[int, WorkerError] = field(default_factory=dict)
    writing: dict[int, Decision] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)
    postponed: list[int] = field(default_factory=list)

    def run_patch(self) -> Mapping[str, Any]:
        """All patches of the run as one; empty when only leases are written."""
        patch: dict[str, Any] = {}
        for decision in self.writing.values():
            patch |= decision.run_patch or {}
        return patch

    def lease_writes(self) -> dict[int, LeaseWrite]:
        """The writes to leases."""
        return {
            place: decision.lease_write
            for place, decision in self.writing.items()
            if decision.lease_write is not None
        }


def plan_commit(wishes: Sequence[tuple[Intent, Observation]]) -> CommitPlan:
    """Decide on all of them, in the order given, which is the order of who comes first on a step.

    The precondition of a patch proves the run it was decided by. What writes no patch (a refusal, above all)
    is proved by nothing, so an old read is not good enough for it.
    """
    plan = CommitPlan()
    touched: set[str] = set()
    for place, (intent, observation) in enumerate(wishes):
        if intent.step_id in touched:
            plan.postponed.append(place)
            continue
        try:
            decision = intent.decide(observation)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one caller's wish is his alone
            if not observation.run_is_fresh:
                plan.unread.append(place)
            else:
                plan.failed[place] = _own_error(error)
            continue
        if decision is None or (decision.run_patch is None and not observation.run_is_fresh):
            if observation.run_is_fresh:
                plan.failed[place] = BackendRefused("firestore", "a read had no time")
            else:
                plan.unread.append(place)
        elif decision.writes:
            touched.add(intent.step_id)
            plan.writing[place] = decision
        else:
            plan.settled[place] = decision.result
    return plan


def _own_error(error: Exception) -> WorkerError:
    if isinstance(error, WorkerError):
        return error
    return BackendRefused("firestore", f"unexpected {error!r:.200}")


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
