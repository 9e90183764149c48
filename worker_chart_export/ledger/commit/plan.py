"""Plan one commit for the intents of many callers on the same run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker_chart_export.concurrency.combining_queue import QueuedRequest
from worker_chart_export.errors import FIRESTORE, BackendRefused, WorkerError, without_frames
from worker_chart_export.ledger.decisions import ClaimResult, Observation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.ledger.decisions import Decision, LeaseWrite
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import HeldLease, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The answer to a commit request.

    Attributes:
        result: The result of the intent.
        lease: The step's lease after the commit, or None when there is none.
        snapshot: The read that the times of the lease were computed from.
    """

    result: Any
    lease: StoredLease | None
    snapshot: RunSnapshot


@dataclass(slots=True, kw_only=True, eq=False)
class CommitRequest(QueuedRequest):
    """One caller's intent, with the caller's own read and lease.

    Attributes:
        intent: The intent.
        snapshot: A recent read by the caller, to decide from.
        held: The caller's lease.
        outcome_unknown: A commit for this request got no clear answer.
        isolated: It is committed alone, because a commit that it shared could not be stored.
    """

    intent: Intent
    snapshot: RunSnapshot | None
    held: HeldLease | None
    outcome_unknown: bool = False
    isolated: bool = False

    @property
    def won_a_step(self) -> bool:
        """Whether the request took a lease."""
        if self.answer is None or self.answer.lease is None:
            return False
        return isinstance(self.answer.result, ClaimResult) and self.answer.result.claimed

    def observation(self, snapshot: RunSnapshot, *, is_fresh: bool) -> Observation:
        """Collect the facts for the decision; the arguments as in `plan_commit`.

        A stale lease does no harm: its precondition fails, and the request is decided again. That a step has
        no lease has no precondition. It is proved by the run: every claim of a step changes it.
        """
        step_id, own = self.intent.step_id, self.snapshot
        lease, lease_is_known = None, True
        if is_fresh and step_id in snapshot.leases:
            lease = snapshot.leases[step_id]
        elif self.held is not None:
            lease = self.held.stored
        elif own is not None and (own.leases.get(step_id) or own.update_time == snapshot.update_time):
            lease, lease_is_known = own.leases.get(step_id), step_id in own.leases
        else:
            lease_is_known = False
        return Observation(
            run=snapshot.run,
            lease=lease,
            lease_is_known=lease_is_known,
            read_time=self.newest(snapshot).read_time,
            outcome_unknown=self.outcome_unknown,
        )

    def newest(self, snapshot: RunSnapshot) -> RunSnapshot:
        """Return the newer read: this one, or the caller's own."""
        own = self.snapshot
        return own if own is not None and own.asked_at > snapshot.asked_at else snapshot


@dataclass(slots=True, kw_only=True)
class CommitPlan:
    """What to do with each request. Requests in none of the fields wait for a later commit.

    Attributes:
        resolved: Requests whose answer needs no write.
        failed: Requests that have an error.
        writing: Requests that share the commit.
        run_patch: Their patches of the run, merged. Empty when only leases are written.
        lease_writes: Their writes to leases, by step id.
        needs_read: At least one request can't be decided from an old read: read the run again.
    """

    resolved: dict[CommitRequest, Resolution] = field(default_factory=dict)
    failed: dict[CommitRequest, WorkerError] = field(default_factory=dict)
    writing: dict[CommitRequest, Decision] = field(default_factory=dict)
    run_patch: dict[str, Any] = field(default_factory=dict)
    lease_writes: dict[str, LeaseWrite] = field(default_factory=dict)
    needs_read: bool = False


def plan_commit(requests: Sequence[CommitRequest], snapshot: RunSnapshot, *, is_fresh: bool) -> CommitPlan:
    """Decide on each request, in this order. Only the first one that writes to a step gets into the plan.

    A patch of the run has a precondition, which proves that the run has not changed since it was read. A
    refusal and a write to only a lease have no such precondition, so they need a fresh read.

    Args:
        requests: The requests.
        snapshot: The run, and perhaps leases.
        is_fresh: Whether it was read for this commit.
    """
    plan = CommitPlan()
    written: set[str] = set()
    for request in requests:
        step_id = request.intent.step_id
        if step_id in written:
            continue  # decided later, from what the earlier request leaves
        observation = request.observation(snapshot, is_fresh=is_fresh)
        failure: WorkerError = BackendRefused(FIRESTORE, "a read had no time")
        try:
            decision = request.intent.decide(observation)
        except Exception as error:  # noqa: BLE001 - an error of one request must not fail the others
            decision = None
            failure = (
                error
                if isinstance(error, WorkerError)
                else BackendRefused(FIRESTORE, f"unexpected {error!r:.200}")
            )
        if decision is None or (decision.run_patch is None and not is_fresh):
            if is_fresh:
                plan.failed[request] = without_frames(failure)
            plan.needs_read = not is_fresh
        elif decision.run_patch is None and decision.lease_write is None:
            plan.resolved[request] = Resolution(
                result=decision.result, lease=observation.lease, snapshot=request.newest(snapshot)
            )
        else:
            written.add(step_id)
            plan.writing[request] = decision
            plan.run_patch |= decision.run_patch or {}
            if decision.lease_write is not None:
                plan.lease_writes[step_id] = decision.lease_write
    return plan
