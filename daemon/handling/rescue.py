"""The rescue: find steps whose worker has ended or hangs by their expired leases, and work on them.

It also looks once more at each step that this process has finished: a write of the whole run may undo it.

Every daemon searches, at its own times and in random order. The claim decides which one takes a step over.
"""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from daemon.handling.step_state import RescueAction, StepState, classify_step, rescue_action
from worker_chart_export.errors import BackendRefused, BackendUnavailable, IndexMissing, Interrupted
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.handling.circuit_breaker import CircuitBreaker
    from daemon.lifecycle.drain import Drain
    from worker_chart_export.execution.pipeline import StepPipeline
    from worker_chart_export.ledger.expired_leases import ExpiredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.ledger.step_ledger import StepLedger

#: Each pause varies by this share, so that daemons that started together do not search together.
JITTER = 0.25
INDEX_MISSING = (
    "The index that finds expired leases is missing: deploy deploy/firestore.indexes.json "
    "(field override of `expiresAt` with COLLECTION_GROUP scope). Until then a step whose worker ended "
    "waits for its message."
)


class Rescue:
    """Searches for expired leases in a thread of its own, and works on one step at a time.

    Args:
        ledger: Finds leases, and deletes those that belong to no running step.
        pipeline: Works on steps.
        breaker: While it is open nothing is rescued.
        drain: While it drains nothing is rescued.
        interval_seconds: The pause between two searches.
        on_tick: Called before each search and for each lease.
    """

    def __init__(
        self,
        *,
        ledger: StepLedger,
        pipeline: StepPipeline,
        breaker: CircuitBreaker,
        drain: Drain,
        interval_seconds: float,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._pipeline = pipeline
        self._breaker = breaker
        self._drain = drain
        self._interval_seconds = interval_seconds
        self._on_tick = on_tick
        self._stopping = threading.Event()
        self._logged_missing_index = False

    def start(self) -> None:
        """Search from now on, until the worker drains."""
        self._drain.on_start(self._stopping.set)
        threading.Thread(target=self._run, name="rescue", daemon=True).start()

    def _run(self) -> None:
        pause = full_jitter_seconds(low=0.0, high=self._interval_seconds)
        while not self._stopping.wait(pause):
            self._on_tick()
            pause = self._interval_seconds * full_jitter_seconds(low=1 - JITTER, high=1 + JITTER)
            if not self._breaker.is_open:
                self._search_safely()

    def _search_safely(self) -> None:
        result = "failed"
        try:
            self.search()
            result = "done"
        except IndexMissing as error:
            result = "index_missing"
            if not self._logged_missing_index:
                log.error(Event.INDEX_MISSING, INDEX_MISSING, firestore=str(error))
            self._logged_missing_index = True
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            self._breaker.record_failure(error)
        except BackendRefused as error:
            log.error(Event.BACKEND_REFUSED, str(error), backend=error.backend)
        except Interrupted:
            pass  # the step was released, because the worker stops
        except Exception as error:  # noqa: BLE001 - the rescue continues after any error
            log.error(Event.INTERNAL_ERROR, f"A rescue failed: {error!r:.300}", exc_info=error)
        metrics.RESCUE_LOOKS.labels(result).inc()

    def search(self) -> None:
        """Go through all leases that have expired, page by page, each page in random order.

        Before that, look once more at the steps that this process has finished.

        Raises:
            IndexMissing: Firestore has no index for the query.
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
            Interrupted: The worker is stopping.
        """
        if self._stopping.is_set() or self._breaker.is_open:
            return
        self._look_again()
        for page in self._ledger.expired_leases():
            self._breaker.record_success("firestore")
            random.shuffle(page)
            for expired in page:
                if self._stopping.is_set() or self._breaker.is_open:
                    return
                self._on_tick()
                with bound(runId=expired.run_id, stepId=expired.step_id), self._errors_of_one():
                    self._rescue(expired)

    def _look_again(self) -> None:
        """Look once more at the steps that this process has finished: a write of the whole run may undo them.

        No message or lease leads to such a step. Each is looked at once, about an interval after its end.
        """
        finished = self._ledger.finished.take(older_than_seconds=self._interval_seconds)
        for run_id, step_ids in finished.items():
            if self._stopping.is_set() or self._breaker.is_open:
                return
            self._on_tick()
            with bound(runId=run_id), self._errors_of_one():
                run = self._ledger.read(run_id).run
                for step_id in step_ids:
                    if classify_step(run, step_id).state is StepState.RUNNING:
                        self._settle_undone(run_id, step_id)

    def _settle_undone(self, run_id: str, step_id: str) -> None:
        """Finalize a step again that is RUNNING without a lease, or create a lease for it."""
        snapshot = self._ledger.read(run_id, leases_of=[step_id])
        if snapshot.leases[step_id] is not None:
            return
        if classify_step(snapshot.run, step_id).state is not StepState.RUNNING:
            return
        scope = self._pipeline.new_scope()
        with bound(stepId=step_id), self._drain.running(scope):
            if self._stopping.is_set():
                return
            if self._pipeline.finish_unleased(snapshot, step_id, scope=scope) is None:
                self._ledger.adopt(run_id, step_id, now=snapshot.read_time)

    def _rescue(self, expired: ExpiredLease) -> None:
        """Work on the step, or delete the lease."""
        run_id, step_id = expired.run_id, expired.step_id
        snapshot = self._ledger.read(run_id, leases_of=[step_id])
        stored = snapshot.leases[step_id]
        action = rescue_action(snapshot, step_id, terms=self._ledger.terms)
        if action is RescueAction.TAKE_OVER:
            self._work(run_id, step_id, snapshot)
        elif action is RescueAction.DELETE and stored and self._ledger.delete_lease(run_id, step_id, stored):
            log.info(Event.LEASE_DELETED, "Deleted the lease of a step that is not RUNNING")

    @contextmanager
    def _errors_of_one(self) -> Iterator[None]:
        """Log an error of one step or run, which must not keep the others from a rescue."""
        try:
            yield
        except Interrupted:
            raise
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            self._breaker.record_failure(error)
        except Exception as error:  # noqa: BLE001 - see above; the next search finds the lease again
            log.warning(Event.LEASE_STRANDED, f"The step can't be rescued: {error!r:.300}")

    def _work(self, run_id: str, step_id: str, snapshot: RunSnapshot) -> None:
        scope = self._pipeline.new_scope()
        with self._drain.running(scope):
            if self._stopping.is_set():
                return  # the drain started before this step was registered
            outcome = self._pipeline.run(run_id, step_id, scope=scope, snapshot=snapshot)
        metrics.RESCUES.labels(outcome.kind.value).inc()
        if outcome.manifest_uri is not None:
            self._breaker.record_success("storage")
