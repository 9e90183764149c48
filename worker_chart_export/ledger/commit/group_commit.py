"""Group commit: all that this process wants of one run shares one read and one commit.

Callers queue what they want; one of them at a time takes a turn for all. A turn reads (or relies on what our
own last commit left), plans, and commits once; then every caller has its own verdict, and those who lost a
race stay for the next turn, which anybody may take.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import LostRace, OutcomeUnknown, Unacceptable
from worker_chart_export.concurrency.combining_queue import CombiningQueue
from worker_chart_export.errors import BackendRefused, BackendUnavailable, WorkerError
from worker_chart_export.ledger.commit.plan import CommitPlan, CommitRequest, Settled, plan_commit
from worker_chart_export.ledger.commit.write import commit
from worker_chart_export.ledger.intents import FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.run_snapshot import RunSnapshot, read_run_with_leases
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import HeldLease
    from worker_chart_export.timing import Clock


MAX_STEPS_A_COMMIT = 200
GIVE_UP_AFTER_SECONDS = 30.0
#: A caller's own read is no good any more after so long in the queue, or in a frozen process.
MAX_READ_AGE_SECONDS = 0.5
#: How long the release of a claim is tried whose caller waits no more.
ORPHAN_SECONDS = 5.0


class GroupCommits:
    """The group commits of this process, one for each run that somebody is at.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        # Whoever works on a run keeps its entry alive, and with it what is known of the run.
        self._runs: weakref.WeakValueDictionary[str, RunCommits] = weakref.WeakValueDictionary()

    def of(self, run_id: str) -> RunCommits:
        """The group commit of a run."""
        with self._lock:
            commits = self._runs.get(run_id)
            if commits is None:
                commits = self._runs[run_id] = RunCommits(
                    client=self._client, clock=self._clock, run_id=run_id
                )
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
            process=self._turn,
            pause=self._pause,
            timeout_error=lambda: BackendUnavailable("firestore", f"run {run_id} is contended"),
        )
        # What our own last commit left, while nobody else is known to have written since.
        self._known: RunSnapshot | None = None
        self._pace = CommitPace(clock)
        # Others write the run as often as we do: then reading first is cheaper than losing a race each time.
        self._is_shared = False
        self._last_written: Any = None

    def submit(
        self,
        intent: Intent,
        *,
        snapshot: RunSnapshot | None = None,
        held: HeldLease | None = None,
        patience_seconds: Callable[[], float] | None = None,
    ) -> Settled:
        """Have it decided and committed.

        Args:
            intent: What is wanted.
            snapshot: A read that is good enough to begin with; without one the run is read.
            held: The lease it goes by.
            patience_seconds: How much longer it is worth waiting, asked again and again; None = 30 s.

        Raises:
            RunInvalid: The run can't be read as one.
            BackendUnavailable: Firestore was away, or the race could not be won, for too long. A claim that
                is won after all is given back.
            BackendRefused: Firestore refuses.
        """
        request = CommitRequest(intent=intent, snapshot=snapshot, held=held)
        patience = patience_seconds or within(GIVE_UP_AFTER_SECONDS, self._clock)
        self._give_back(self._queue.wait_for(request, patience))
        if request.error is not None:
            raise request.error
        settled: Settled = request.answer
        return settled

    def _pause(self) -> None:
        """Others join meanwhile."""
        seconds = self._pace.pause_seconds()
        if seconds > 0:
            threading.Event().wait(seconds)

    def _turn(self, batch: Sequence[CommitRequest]) -> None:
        """One read (when needed), one plan, one commit, for everybody in it."""
        oldest = self._clock.monotonic() - MAX_READ_AGE_SECONDS
        for request in batch:
            if request.snapshot is not None and request.snapshot.asked_at < oldest:
                request.snapshot = None  # a lease that counted from it might be over at birth
        with ExitStack() as leases:
            for held in {request.held for request in batch if request.held is not None}:
                leases.enter_context(held.lock)
            try:
                self._attempt(batch)
            except WorkerError:
                self._known = None
                self._pace.failed()
                raise

    def _attempt(self, batch: Sequence[CommitRequest]) -> None:
        snapshot, is_fresh = self._best_known(batch), False
        plan = None if snapshot is None else self._plan(batch, snapshot, is_fresh=False)
        if snapshot is None or plan is None or plan.unread:
            snapshot, is_fresh = self._read(batch), True
            plan = self._plan(batch, snapshot, is_fresh=True)
        for place, result in plan.settled.items():
            request = batch[place]
            lease, _ = request.known_lease(snapshot, is_fresh=is_fresh)
            request.answer = Settled(result=result, lease=lease, snapshot=request.newest(snapshot))
        for place, error in plan.failed.items():
            batch[place].error = error
        if plan.writing:
            self._commit(batch, plan, snapshot)
        self._pace.went_well()

    def _best_known(self, batch: Sequence[CommitRequest]) -> RunSnapshot | None:
        """The newest of what our last commit left and what the callers read, unless it proved wrong."""
        if self._is_shared or any(request.last_error or request.isolated for request in batch):
            return None
        offered = [request.snapshot for request in batch if request.snapshot is not None]
        known = [self._known] if self._known is not None else []
        return max(known + offered, key=_age, default=None)

    def _read(self, batch: Sequence[CommitRequest]) -> RunSnapshot:
        step_ids = sorted({request.step_id for request in batch if request.needs_lease})
        snapshot = read_run_with_leases(self._client, self._run_id, step_ids, self._clock)
        self._is_shared = self._is_shared and snapshot.update_time != self._last_written
        for request in batch:
            stored = snapshot.leases.get(request.step_id)
            if request.held is not None and stored and stored.lease.token == request.held.lease.token:
                request.held.reread(stored)
        return snapshot

    def _plan(self, batch: Sequence[CommitRequest], snapshot: RunSnapshot, *, is_fresh: bool) -> CommitPlan:
        return plan_commit(
            [(request.intent, request.observation(snapshot, is_fresh=is_fresh)) for request in batch]
        )

    def _commit(self, batch: Sequence[CommitRequest], plan: CommitPlan, snapshot: RunSnapshot) -> None:
        run_patch = plan.run_patch()
        leases = {batch[place].step_id: write for place, write in plan.lease_writes().items()}
        writing = [batch[place] for place in plan.writing]
        try:
            committed = commit(self._client, self._run_id, snapshot, run_patch, leases)
        except OutcomeUnknown:
            for request in writing:
                request.must_verify = not request.outcome_unknown
                request.outcome_unknown = True
            raise
        except LostRace:
            self._is_shared = True
            for request in writing:
                metrics.RACES_LOST.labels(request.intent.name).inc()
            raise
        except Unacceptable as error:
            self._single_out(writing, error)
            return
        self._pace.committed(len(writing))
        if committed.run_update_time is not None:
            self._last_written = committed.run_update_time
            self._known = snapshot.after(run_patch, committed.run_update_time)
        for place, decision in plan.writing.items():
            request = batch[place]
            request.answer = Settled(
                result=decision.result,
                lease=committed.leases.get(request.step_id),
                snapshot=request.newest(snapshot),
            )

    def _single_out(self, writing: Sequence[CommitRequest], error: Unacceptable) -> None:
        """Commit one by one until the culprit is alone; a finalize is then stored with a minimal error."""
        if len(writing) > 1:
            for request in writing:
                request.isolated = True
            return
        request = writing[0]
        intent = request.intent
        minimal = intent.with_minimal_error() if isinstance(intent, FinalizeIntent) else intent
        if minimal == intent:
            request.error = BackendRefused("firestore", str(error))
        log.error(Event.BACKEND_REFUSED, f"Firestore can't store it: {error}", stepId=request.step_id)
        request.intent = minimal

    def _give_back(self, orphans: Sequence[CommitRequest]) -> None:
        """Release what was won for callers that wait no more; should that fail, the leases just end."""
        for orphan in orphans:
            if not orphan.won_a_step:
                continue
            lease = orphan.answer.lease
            release = ReleaseIntent(
                step_id=orphan.step_id, token=lease.lease.token, delay_seconds=0.0, error=None, finished_at=""
            )
            try:
                self.submit(release, patience_seconds=within(ORPHAN_SECONDS, self._clock))
            except WorkerError as error:
                log.warning(Event.BACKEND_UNAVAILABLE, str(error), stepId=orphan.step_id)


def _choose(waiting: Sequence[CommitRequest]) -> list[CommitRequest]:
    """Whose turn it is: finalizes first; one that has to go alone goes alone."""
    ordered = sorted(waiting, key=lambda request: request.intent.rank)
    alone = [request for request in ordered if request.isolated]
    return alone[:1] or ordered[:MAX_STEPS_A_COMMIT]


def _age(read: RunSnapshot) -> tuple[bool, Any]:
    """Newer sorts higher; a run that is missing has no time of its own."""
    return read.update_time is not None, read.update_time


MIN_PAUSE_SECONDS = 0.02
MAX_PAUSE_SECONDS = 1.0
#: Firestore wants a document written about once a second. After a commit for many callers the next one waits
#: for company, so long for each of them; a step that is alone on its run never waits.
GATHERING_SECONDS_EACH = 0.02
MAX_GATHERING_SECONDS = 0.25


class CommitPace:
    """The pace of one run's commits in this process.

    Args:
        clock: Its monotonic clock is used.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._losses = 0
        self._last_size = 0
        self._last_commit_at = 0.0

    def committed(self, size: int) -> None:
        """A commit for so many callers stands."""
        self._last_size, self._last_commit_at = size, self._clock.monotonic()

    def went_well(self) -> None:
        """A turn ended without trouble."""
        self._losses = 0

    def failed(self) -> None:
        """A race was lost, or Firestore was away."""
        self._losses += 1

    def pause_seconds(self) -> float:
        """Seconds from now: full jitter after failures, else longer the more came last time; 0 if none."""
        if self._losses:
            bound = min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS * 2 ** min(self._losses, 10))
            return full_jitter_seconds(low=0.0, high=bound)
        company = self._last_size if self._last_size > 1 else 0
        gathering = min(MAX_GATHERING_SECONDS, GATHERING_SECONDS_EACH * company)
        return max(0.0, self._last_commit_at + gathering - self._clock.monotonic())


def within(seconds: float, clock: Clock) -> Callable[[], float]:
    """Patience that ends `seconds` from now."""
    deadline = clock.monotonic() + seconds
    return lambda: deadline - clock.monotonic()
