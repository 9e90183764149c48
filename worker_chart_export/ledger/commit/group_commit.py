"""Group commit: the requests of this process for the same run share one read and one commit.

Callers queue their requests, and one of them processes the batch for all. It plans from the state that our
own last commit left, or reads the run, and commits once. Each caller then gets its own result. Requests that
lost a race stay in the queue for the next batch.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.errors import describe_error
from worker_chart_export.backends.firestore import LostRace, OutcomeUnknown, Unacceptable, send
from worker_chart_export.backends.firestore_writes import Writes
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.concurrency.combining_queue import CombiningQueue
from worker_chart_export.errors import (
    FIRESTORE,
    BackendRefused,
    BackendUnavailable,
    RunInvalid,
    WorkerError,
)
from worker_chart_export.ledger.commit.plan import CommitPlan, CommitRequest, Resolution, plan_commit
from worker_chart_export.ledger.decisions import ABSENT, FLOW_RUNS, build_lease_update
from worker_chart_export.ledger.intents import ClaimIntent, ReleaseIntent
from worker_chart_export.ledger.lease import LEASES, StoredLease
from worker_chart_export.ledger.run_snapshot import read_run
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker_chart_export.ledger.decisions import LeaseWrite
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import HeldLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.timing import Clock

MAX_STEPS_A_COMMIT = 200
GIVE_UP_AFTER_SECONDS = 30.0
#: A caller's own read is not used when it is older, after a long wait in the queue or in a frozen process.
MAX_READ_AGE_SECONDS = 0.5
#: How long to try to release a step that was claimed for a caller that does not wait any more.
ORPHAN_SECONDS = 5.0
#: After lost races, and while Firestore is unavailable.
RETRY = Backoff(first_seconds=0.04, max_seconds=1.0)
#: Firestore should write a document about once a second. So after a commit for several callers, the next
#: commit waits this long for each of them, for more requests to share it. A single step never waits.
GATHER_SECONDS_EACH = 0.02
MAX_GATHER_SECONDS = 0.25


class GroupCommits:
    """The group commits of this process, one for each run that is being worked on.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        # The claims of a run keep its entry alive, and with it the state that the last commit left.
        self._runs: weakref.WeakValueDictionary[str, RunCommits] = weakref.WeakValueDictionary()

    def of(self, run_id: str) -> RunCommits:
        """Return the group commit of a run."""
        with self._lock:
            commits = self._runs.get(run_id)
            if commits is None:
                commits = RunCommits(client=self._client, clock=self._clock, run_id=run_id)
                self._runs[run_id] = commits
            return commits


class RunCommits:
    """All commits of this process on one run. Shared by all threads.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock is used.
        run_id: The run.
    """

    def __init__(self, *, client: Any, clock: Clock, run_id: str) -> None:
        self._client = client
        self._clock = clock
        self._run_id = run_id
        self._queue: CombiningQueue[CommitRequest] = CombiningQueue(
            choose=_choose,
            process=self._process,
            pause=self._pause,
            timeout_error=lambda: BackendUnavailable(FIRESTORE, f"run {run_id} is contended"),
        )
        # The run after our own last commit, as long as no other writer is known.
        self._known: RunSnapshot | None = None
        # Others write the run as often as we do. Then it is cheaper to read first than to lose each race.
        self._is_shared = False
        self._last_written: Any = None
        self._failures = 0
        self._gather_until = 0.0

    def submit(
        self,
        intent: Intent,
        *,
        snapshot: RunSnapshot | None = None,
        held: HeldLease | None = None,
        remaining_seconds: Callable[[], float] | None = None,
    ) -> Resolution:
        """Decide on the intent and commit it.

        Args:
            intent: The intent.
            snapshot: A recent read to decide from. Without it the run may be read.
            held: The lease that guards the step.
            remaining_seconds: How much longer to wait; called again and again. None: 30 s from now.

        Raises:
            RunInvalid: The run can't be read as a flow run, or can't store even the shortest form of a claim.
            BackendUnavailable: Firestore was unavailable, or each race was lost, for the whole time. If a
                claim succeeds after that, the step is released.
            BackendRefused: Firestore refuses.
        """
        request = CommitRequest(intent=intent, snapshot=snapshot, held=held)
        if remaining_seconds is None:
            remaining_seconds = CancelScope(
                seconds=GIVE_UP_AFTER_SECONDS, clock=self._clock
            ).remaining_seconds
        for abandoned in self._queue.wait_for(request, remaining_seconds):
            if abandoned.won_a_step:
                self.release_orphan(abandoned.intent.step_id, abandoned.answer.lease.lease.token)
        if request.error is not None:
            raise request.take_error()
        resolution: Resolution = request.answer
        return resolution

    def release_orphan(self, step_id: str, token: str) -> None:
        """Release a step that was perhaps claimed, for a caller that does not wait any more.

        If that fails, the lease expires.
        """
        release = ReleaseIntent(step_id=step_id, token=token, delay_seconds=0.0, error=None, finished_at="")
        limit = CancelScope(seconds=ORPHAN_SECONDS, clock=self._clock)
        try:
            self.submit(release, remaining_seconds=limit.remaining_seconds)
        except WorkerError as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), stepId=step_id)

    def _pause(self) -> None:
        """Wait before a batch: after a failure, or so that more requests can join it."""
        if self._failures:
            seconds = RETRY.delay_seconds(self._failures)
        else:
            seconds = self._gather_until - self._clock.monotonic()
        if seconds > 0:
            threading.Event().wait(seconds)

    def _process(self, batch: Sequence[CommitRequest]) -> None:
        oldest = self._clock.monotonic() - MAX_READ_AGE_SECONDS
        for request in batch:
            if request.snapshot is not None and request.snapshot.asked_at < oldest:
                request.snapshot = None  # a lease computed from it could have expired already
        with ExitStack() as locks:
            for held in {request.held for request in batch if request.held is not None}:
                locks.enter_context(held.lock)
            try:
                self._decide_and_commit(batch)
            except BaseException:  # also a KeyboardInterrupt: the commit may have taken effect
                self._known = None
                self._failures += 1
                raise
            self._failures = 0

    def _decide_and_commit(self, batch: Sequence[CommitRequest]) -> None:
        snapshot = self._best_known(batch)
        plan = None if snapshot is None else plan_commit(batch, snapshot, is_fresh=False)
        if snapshot is None or plan is None or plan.needs_read:
            snapshot = self._read(batch)
            plan = plan_commit(batch, snapshot, is_fresh=True)
        for request, resolution in plan.resolved.items():
            request.answer = resolution
        for request, error in plan.failed.items():
            request.error = error
        if plan.writing:
            self._commit(plan, snapshot)

    def _best_known(self, batch: Sequence[CommitRequest]) -> RunSnapshot | None:
        """Return the newest known state of the run, or None when the run must be read."""
        if self._is_shared:
            return None
        best = self._known
        for request in batch:
            if request.last_error or request.isolated:
                return None
            own = request.snapshot
            if own is None or own.update_time is None:
                continue
            if best is None or own.update_time > best.update_time:
                best = own
        return best

    def _read(self, batch: Sequence[CommitRequest]) -> RunSnapshot:
        step_ids = sorted({request.intent.step_id for request in batch if request.intent.needs_lease})
        # Without the client's retries: the queue repeats the batch, and its callers give up in time.
        snapshot = read_run(self._client, self._run_id, self._clock, leases_of=step_ids, retry=None)
        self._is_shared = self._is_shared and snapshot.update_time != self._last_written
        for request in batch:
            held, stored = request.held, snapshot.leases.get(request.intent.step_id)
            if held is not None and stored is not None and stored.lease.token == held.lease.token:
                held.stored = stored
        return snapshot

    def _commit(self, plan: CommitPlan, snapshot: RunSnapshot) -> None:
        try:
            committed = _write(self._client, self._run_id, snapshot, plan.run_patch, plan.lease_writes)
        except OutcomeUnknown:
            for request in plan.writing:
                request.must_verify = not request.outcome_unknown
                request.outcome_unknown = True
            raise
        except LostRace:
            self._is_shared = True
            for request in plan.writing:
                metrics.RACES_LOST.labels(request.intent.name).inc()
            raise
        except Unacceptable as error:
            self._isolate(list(plan.writing), error)
            return
        callers = len(plan.writing)
        gather_seconds = min(MAX_GATHER_SECONDS, GATHER_SECONDS_EACH * callers) if callers > 1 else 0.0
        self._gather_until = self._clock.monotonic() + gather_seconds
        if committed.run_update_time is not None:
            self._last_written = committed.run_update_time
            self._known = snapshot.after(plan.run_patch, committed.run_update_time)
        for request, decision in plan.writing.items():
            request.answer = Resolution(
                result=decision.result,
                lease=committed.leases.get(request.intent.step_id),
                snapshot=request.newest(snapshot),
            )

    def _isolate(self, writing: Sequence[CommitRequest], error: Unacceptable) -> None:
        """Mark each request to be committed alone. Shorten the one that Firestore can't store."""
        if len(writing) > 1:
            for request in writing:
                request.isolated = True
            return
        request = writing[0]
        intent = request.intent
        log.error(
            Event.BACKEND_REFUSED,
            f"Firestore can't store the {intent.name}: {error}",
            stepId=intent.step_id,
            form=intent.form.name.lower(),
        )
        shorter = intent.shortened()
        if shorter is not None:
            request.intent = shorter
        elif isinstance(intent, ClaimIntent):  # no message can ever start this step
            request.error = RunInvalid(f"Firestore can't store a claim of step {intent.step_id}: {error}")
        else:
            request.error = BackendRefused(FIRESTORE, str(error))


def _choose(waiting: Sequence[CommitRequest]) -> Sequence[CommitRequest]:
    """Choose the next batch, low ranks first. An isolated request goes alone."""
    ordered = sorted(waiting, key=attrgetter("intent.rank"))
    for request in ordered:
        if request.isolated:
            return [request]
    return ordered[:MAX_STEPS_A_COMMIT]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Committed:
    """The documents after a commit.

    Attributes:
        run_update_time: The run's `update_time`, or None when the run was not written.
        leases: The leases that were written, by step id. None for a lease that was deleted.
    """

    run_update_time: Any
    leases: Mapping[str, StoredLease | None]


def _write(
    client: Any,
    run_id: str,
    snapshot: RunSnapshot,
    run_patch: Mapping[str, Any],
    leases: Mapping[str, LeaseWrite],
) -> _Committed:
    """Write the run and its leases in one atomic commit, with preconditions for all that it relies on.

    No other code writes to a flow run, and no other code claims, finalizes or releases a step with a lease.

    Args:
        client: A Firestore client.
        run_id: The run.
        snapshot: The read that the patch was decided from.
        run_patch: The patch of the run. Empty: the run is not written.
        leases: The writes to leases, by step id.

    Raises:
        LostRace: A precondition failed.
        OutcomeUnknown: There was no clear answer.
        Unacceptable: Firestore can't store it.
        BackendRefused: Firestore refuses.
    """
    run_reference = client.collection(FLOW_RUNS).document(run_id)
    try:
        writes = Writes(client)
        if run_patch:
            writes.update(run_reference, run_patch, update_time=snapshot.update_time)
        for step_id, write in leases.items():
            _add_lease_write(writes, run_reference.collection(LEASES).document(step_id), write)
    except (TypeError, ValueError) as error:
        raise Unacceptable(describe_error(error)) from error
    times = [result.update_time for result in send(writes)]
    run_update_time = times.pop(0) if run_patch else None
    stored = {}
    for (step_id, write), update_time in zip(leases.items(), times, strict=True):
        lease = write.lease
        stored[step_id] = None if lease is None else StoredLease(lease=lease, update_time=update_time)
    return _Committed(run_update_time=run_update_time, leases=stored)


def _add_lease_write(writes: Writes, reference: Any, write: LeaseWrite) -> None:
    """Add the write of a lease, with its guard as the precondition."""
    if write.lease is None:
        writes.delete(reference, update_time=write.guard)
    elif write.guard is ABSENT:
        writes.create(reference, write.lease.to_document())
    else:
        writes.update(reference, build_lease_update(write.lease), update_time=write.guard)
