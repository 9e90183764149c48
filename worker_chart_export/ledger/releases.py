"""Giving steps back: the lease is ended, the step stays RUNNING, and whoever comes takes it over."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker_chart_export.errors import ErrorCode, StepError, WorkerError
from worker_chart_export.ledger.commit.group_commit import within
from worker_chart_export.ledger.decisions import Reason, ReleaseResult
from worker_chart_export.ledger.intents import ReleaseIntent
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.timing import full_jitter_seconds, rfc3339

if TYPE_CHECKING:
    from worker_chart_export.errors import BackendUnavailable
    from worker_chart_export.ledger.commit.group_commit import GroupCommits
    from worker_chart_export.ledger.heartbeats import HeartBeats
    from worker_chart_export.ledger.lease import HeldLease
    from worker_chart_export.timing import Clock

#: What a step fails with once this backend stayed away too long.
CODE_OF_BACKEND = {"storage": ErrorCode.GCS_WRITE_FAILED}
RELEASE_SECONDS = 5.0
#: How soon a step that was given back because of a backend may be taken over.
MIN_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 10.0


def error_of(cause: BackendUnavailable) -> StepError:
    """What a step fails with when this backend stayed away for too long."""
    code = CODE_OF_BACKEND.get(cause.backend, ErrorCode.STEP_TIMEOUT)
    return StepError(code=code, message=f"{cause}, for too long.", details={"backend": cause.backend})


class Releases:
    """Releases leases. Shared by all threads. Never raises: what is not released ends by itself.

    Args:
        commits: The group commits.
        heart_beats: A lease that is released is renewed no more.
        clock: Gives the time that marks a failure.
    """

    def __init__(self, *, commits: GroupCommits, heart_beats: HeartBeats, clock: Clock) -> None:
        self._commits = commits
        self._heart_beats = heart_beats
        self._clock = clock

    def release(
        self, held: HeldLease, *, cause: BackendUnavailable | None = None, is_lost: bool = False
    ) -> ReleaseResult:
        """Release one lease: at once without a cause, else after a backoff, or fail its step for good.

        One that is lost is not given back, but deleted where its step is not RUNNING any more.
        """
        self._heart_beats.discard(held)
        intent = ReleaseIntent(
            step_id=held.step_id,
            token=held.lease.token,
            delay_seconds=_backoff_seconds() if cause else 0.0,
            error=error_of(cause) if cause else None,
            finished_at=rfc3339(self._clock.now()),
            is_lost=is_lost,
        )
        patience = within(RELEASE_SECONDS, self._clock)
        try:
            settled = self._commits.of(held.run_id).submit(intent, held=held, patience_seconds=patience)
        except WorkerError as error:
            log.warning(Event.BACKEND_UNAVAILABLE, f"The lease was not released: {error}")
            return ReleaseResult(released=False, reason=Reason.UNKNOWN)
        result: ReleaseResult = settled.result
        if result.released:
            metrics.LEASES_RELEASED.labels("backend" if cause else "shutdown").inc()
            log.info(Event.LEASE_RELEASED, "Gave the step back", delaySeconds=round(intent.delay_seconds, 3))
        return result

    def release_all(self, *, within_seconds: float) -> None:
        """Release every lease that is held, all at once, and wait so long for it."""
        deadline = self._clock.monotonic() + within_seconds
        threads = [
            threading.Thread(target=self._release_named, args=(held,), name="release", daemon=True)
            for held in self._heart_beats.held()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))

    def _release_named(self, held: HeldLease) -> None:
        with bound(runId=held.run_id, stepId=held.step_id, attempt=held.lease.attempt):
            self.release(held)


def _backoff_seconds() -> float:
    return full_jitter_seconds(low=MIN_BACKOFF_SECONDS, high=MAX_BACKOFF_SECONDS)
