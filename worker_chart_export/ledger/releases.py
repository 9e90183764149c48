"""Release steps: the lease ends, the step stays RUNNING, and another worker can take it over."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import (
    ACCOUNTS,
    AccountsExhausted,
    BackendUnavailable,
    ErrorCode,
    Interrupted,
    StepError,
    WorkerError,
)
from worker_chart_export.ledger.decisions import Reason, ReleaseResult
from worker_chart_export.ledger.intents import ReleaseIntent
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.timing import Backoff, rfc3339

if TYPE_CHECKING:
    from worker_chart_export.ledger.commit.group_commit import GroupCommits
    from worker_chart_export.ledger.heartbeats import Heartbeats
    from worker_chart_export.ledger.lease import HeldLease, Lease
    from worker_chart_export.timing import Clock

#: The code of a step that is failed because this backend was unavailable for too long.
CODE_OF_BACKEND = {"storage": ErrorCode.GCS_WRITE_FAILED}
RELEASE_SECONDS = 5.0
#: The same while the worker stops. With a last attempt it is shorter than the time that the drain has for it.
STOP_RELEASE_SECONDS = 2.0
#: How long a step that is released because of an outage can't be taken over.
OUTAGE_BACKOFF = Backoff(low_seconds=1.0, first_seconds=10.0, max_seconds=10.0)
#: The same while no Chart-IMG account is left. Other accounts than those of the chart may be, so that the
#: intake goes on.
EXHAUSTED_BACKOFF = Backoff(low_seconds=30.0, first_seconds=60.0, max_seconds=60.0)
#: The same after any other error. It grows with the attempts of the step.
ATTEMPT_BACKOFF = Backoff(low_seconds=1.0, first_seconds=10.0, max_seconds=120.0)


def outage_error(cause: BackendUnavailable) -> StepError:
    """Return the error of a step that is failed because a backend was unavailable for too long."""
    code = CODE_OF_BACKEND.get(cause.backend, ErrorCode.STEP_TIMEOUT)
    return StepError(code=code, message=f"{cause}, for too long.", details={"backend": cause.backend})


def _delay_seconds(lease: Lease, cause: WorkerError | None) -> float:
    """Return how long the step can't be taken over; 0 when the worker stops."""
    match cause:
        case None:
            return 0.0
        case AccountsExhausted():
            backoff = EXHAUSTED_BACKOFF
        case BackendUnavailable():
            backoff = OUTAGE_BACKOFF
        case _:
            backoff = ATTEMPT_BACKOFF
    return backoff.delay_seconds(lease.attempt - lease.released)


class Releases:
    """Releases leases. Never raises: a lease that can't be released expires. Shared by all threads.

    Args:
        commits: The group commits.
        heartbeats: Renews the leases until they are released.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, commits: GroupCommits, heartbeats: Heartbeats, clock: Clock) -> None:
        self._commits = commits
        self._heartbeats = heartbeats
        self._clock = clock

    def release(
        self, held: HeldLease, *, cause: WorkerError | None = None, is_lost: bool = False
    ) -> ReleaseResult:
        """Release one lease.

        Args:
            held: The lease.
            cause: The error that ended the work. None or `Interrupted`: the worker stops, and the step can be
                taken over at once. `BackendUnavailable`: it can be taken over after a backoff, or is failed
                if that happened too often; `AccountsExhausted` never fails it. Any other error, such as a
                result that Firestore refuses: it can be taken over after a backoff, and the claim counts as
                an attempt.
            is_lost: The lease is lost. It is only deleted, and only when its step is not RUNNING any more.
        """
        self._heartbeats.discard(held)
        cause = None if isinstance(cause, Interrupted) else cause
        outage = cause if isinstance(cause, BackendUnavailable) else None
        is_attempt = cause is not None and outage is None
        is_exhausted = isinstance(cause, AccountsExhausted)
        delay_seconds = _delay_seconds(held.lease, cause)
        intent = ReleaseIntent(
            step_id=held.step_id,
            token=held.lease.token,
            delay_seconds=delay_seconds,
            error=None
            if outage is None or is_exhausted
            else outage_error(outage).with_details(held.lease.claimed_by),
            finished_at=rfc3339(held.server_time()),
            is_lost=is_lost,
            is_attempt=is_attempt,
        )
        seconds = RELEASE_SECONDS if cause else STOP_RELEASE_SECONDS
        limit = CancelScope(seconds=seconds, clock=self._clock)
        with bound(runId=held.run_id, stepId=held.step_id, flowKey=held.flow_key, attempt=held.lease.attempt):
            try:
                resolution = self._commits.of(held.run_id).submit(
                    intent, held=held, remaining_seconds=limit.remaining_seconds
                )
            except WorkerError as error:
                log.warning(Event.BACKEND_UNAVAILABLE, f"The lease was not released: {error}")
                return ReleaseResult(released=False, reason=Reason.UNKNOWN)
            result: ReleaseResult = resolution.result
            if result.released:
                label = "refusal" if is_attempt else "backend" if outage else "shutdown"
                label = ACCOUNTS if is_exhausted else label
                metrics.LEASES_RELEASED.labels(label).inc()
                log.info(
                    Event.LEASE_RELEASED,
                    "Released the step",
                    cause=label,
                    delaySeconds=round(delay_seconds, 3),
                )
            return result

    def release_all(self, *, within_seconds: float) -> None:
        """Release every lease that this process holds, all at once. Wait at most so long."""
        deadline = self._clock.monotonic() + within_seconds
        releases = [partial(self.release, held) for held in self._heartbeats.held()]
        threads = []
        while releases:
            thread = threading.Thread(target=releases[-1], name="release", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads
                break
            threads.append(thread)
            releases.pop()
        for release in releases:
            if self._clock.monotonic() < deadline:
                release()
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
