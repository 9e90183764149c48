"""Release steps: the lease ends, the step stays RUNNING, and another worker can take it over."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import ErrorCode, StepError, WorkerError
from worker_chart_export.ledger.decisions import Reason, ReleaseResult
from worker_chart_export.ledger.intents import ReleaseIntent
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.timing import full_jitter_seconds, rfc3339

if TYPE_CHECKING:
    from worker_chart_export.errors import BackendUnavailable
    from worker_chart_export.ledger.commit.group_commit import GroupCommits
    from worker_chart_export.ledger.heartbeats import Heartbeats
    from worker_chart_export.ledger.lease import HeldLease
    from worker_chart_export.timing import Clock

#: The code of a step that is failed because this backend was unavailable for too long.
CODE_OF_BACKEND = {"storage": ErrorCode.GCS_WRITE_FAILED}
RELEASE_SECONDS = 5.0
#: How long a step that is released because of a backend can't be taken over.
MIN_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 10.0


def outage_error(cause: BackendUnavailable) -> StepError:
    """Return the error of a step that is failed because a backend was unavailable for too long."""
    code = CODE_OF_BACKEND.get(cause.backend, ErrorCode.STEP_TIMEOUT)
    return StepError(code=code, message=f"{cause}, for too long.", details={"backend": cause.backend})


class Releases:
    """Releases leases. Never raises: a lease that can't be released expires. Shared by all threads.

    Args:
        commits: The group commits.
        heartbeats: Renews the leases until they are released.
        clock: Gives the finishing time of steps that are failed, and the monotonic clock.
    """

    def __init__(self, *, commits: GroupCommits, heartbeats: Heartbeats, clock: Clock) -> None:
        self._commits = commits
        self._heartbeats = heartbeats
        self._clock = clock

    def release(
        self, held: HeldLease, *, cause: BackendUnavailable | None = None, is_lost: bool = False
    ) -> ReleaseResult:
        """Release one lease.

        Args:
            held: The lease.
            cause: The outage that stopped the work. The step can be taken over after a backoff, or is failed
                if that happened too often. None: it can be taken over at once.
            is_lost: The lease is lost. It is only deleted, and only when its step is not RUNNING any more.
        """
        self._heartbeats.discard(held)
        delay_seconds = (
            full_jitter_seconds(low=MIN_BACKOFF_SECONDS, high=MAX_BACKOFF_SECONDS) if cause else 0.0
        )
        intent = ReleaseIntent(
            step_id=held.step_id,
            token=held.lease.token,
            delay_seconds=delay_seconds,
            error=outage_error(cause) if cause else None,
            finished_at=rfc3339(self._clock.now()),
            is_lost=is_lost,
        )
        limit = CancelScope(seconds=RELEASE_SECONDS, clock=self._clock)
        with bound(runId=held.run_id, stepId=held.step_id, attempt=held.lease.attempt):
            try:
                resolution = self._commits.of(held.run_id).submit(
                    intent, held=held, remaining_seconds=limit.remaining_seconds
                )
            except WorkerError as error:
                log.warning(Event.BACKEND_UNAVAILABLE, f"The lease was not released: {error}")
                return ReleaseResult(released=False, reason=Reason.UNKNOWN)
            result: ReleaseResult = resolution.result
            if result.released:
                metrics.LEASES_RELEASED.labels("backend" if cause else "shutdown").inc()
                log.info(Event.LEASE_RELEASED, "Released the step", delaySeconds=round(delay_seconds, 3))
            return result

    def release_all(self, *, within_seconds: float) -> None:
        """Release every lease that this process holds, all at once. Wait at most so long."""
        deadline = self._clock.monotonic() + within_seconds
        threads = [
            threading.Thread(target=self.release, args=(held,), name="release", daemon=True)
            for held in self._heartbeats.held()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
