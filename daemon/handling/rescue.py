"""The rescue: steps whose worker ended or froze are found by their leases and worked here, without a message.

Every daemon looks, each at its own times and in its own order; who takes a step over is decided by the claim.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from daemon.handling.step_state import StepState, classify_lease, classify_step
from worker_chart_export.errors import (
    BackendRefused,
    BackendUnavailable,
    IndexMissing,
    Interrupted,
)
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.handling.circuit_breaker import CircuitBreaker
    from daemon.lifecycle.drain import Drain
    from worker_chart_export.execution.pipeline import StepPipeline
    from worker_chart_export.ledger.expired_leases import ExpiredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.ledger.step_ledger import StepLedger
    from worker_chart_export.timing import Clock

#: Each pause is up to this share shorter or longer: daemons that started together must not look together.
JITTER = 0.25
INDEX_MEND = (
    "The index that finds expired leases is missing: deploy deploy/firestore.indexes.json "
    "(field override of `expiresAt` with COLLECTION_GROUP scope). Until then a step whose worker ended "
    "waits for its message."
)


class Rescue:
    """Looks for steps to rescue, in a thread of its own, one step at a time.

    Args:
        ledger: Finds leases, and clears away those that belong to nothing.
        pipeline: Works steps.
        intake: Nothing is rescued while it is paused.
        drain: Nothing is rescued while it drains.
        clock: Its wall clock only says where to look; whether a lease is over is the server's to say.
        interval_seconds: How often to look.
        on_tick: Called each time it comes round, and for each lease.
    """

    def __init__(
        self,
        *,
        ledger: StepLedger,
        pipeline: StepPipeline,
        breaker: CircuitBreaker,
        drain: Drain,
        clock: Clock,
        interval_seconds: float,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._pipeline = pipeline
        self._breaker = breaker
        self._drain = drain
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._on_tick = on_tick
        self._stopping = threading.Event()
        self._knows_no_index = False

    def start(self) -> None:
        """Look from now on, until the worker drains."""
        self._drain.on_start(self._stopping.set)
        threading.Thread(target=self._run, name="rescue", daemon=True).start()

    def _run(self) -> None:
        pause = full_jitter_seconds(low=0.0, high=self._interval_seconds)
        while not self._stopping.wait(pause):
            self._on_tick()
            pause = self._interval_seconds * full_jitter_seconds(low=1 - JITTER, high=1 + JITTER)
            if not self._breaker.is_paused:
                self._look_safely()

    def _look_safely(self) -> None:
        result = "failed"
        try:
            self.look()
            result = "done"
        except IndexMissing as error:
            result = "index_missing"
            if not self._knows_no_index:
                log.error(Event.INDEX_MISSING, INDEX_MEND, firestore=str(error))
            self._knows_no_index = True
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            self._breaker.failed(error.backend)
        except BackendRefused as error:
            log.error(Event.BACKEND_REFUSED, str(error), backend=error.backend)
        except Interrupted:
            pass  # the step was given back; the worker is going
        except Exception as error:  # noqa: BLE001 - the rescue goes on, whatever one look ended in
            log.error(Event.INTERNAL_ERROR, f"A rescue failed: {error!r:.300}", exc_info=error)
        metrics.RESCUE_LOOKS.labels(result).inc()

    def look(self) -> None:
        """Go through all leases that look over, page by page, each page in random order.

        Raises:
            IndexMissing: They can't be found.
            BackendUnavailable: Firestore is away.
            BackendRefused: Firestore refuses.
            Interrupted: The worker is stopping.
        """
        for page in self._ledger.expired_leases(before=self._clock.now()):
            self._breaker.succeeded("firestore")
            random.shuffle(page)
            for expired in page:
                if self._stopping.is_set() or self._breaker.is_paused:
                    return
                self._on_tick()
                with bound(runId=expired.run_id, stepId=expired.step_id):
                    self._rescue(expired)

    def _rescue(self, expired: ExpiredLease) -> None:
        """Work it, or clear it away. One that can't be settled must not keep the others from being."""
        try:
            snapshot = self._ledger.read(expired.run_id, leases_of=[expired.step_id])
            if self._is_claimable(snapshot, expired):
                self._work(expired.run_id, expired.step_id, snapshot)
        except Interrupted:
            raise
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            self._breaker.failed(error.backend)
        except Exception as error:  # noqa: BLE001 - see above; the next look finds it again
            log.warning(Event.LEASE_STRANDED, f"The lease can't be settled: {error!r:.300}")

    def _is_claimable(self, snapshot: RunSnapshot, expired: ExpiredLease) -> bool:
        """Whether the step is to be taken over; a lease of nothing is deleted."""
        stored = snapshot.leases[expired.step_id]
        if stored is None or snapshot.read_time is None:
            return False
        if classify_step(snapshot.run, expired.step_id).state is not StepState.RUNNING:
            if self._ledger.delete_lease(expired.run_id, expired.step_id, stored):
                log.info(Event.LEASE_DELETED, "Deleted the lease of a step that is not RUNNING")
            return False
        view = classify_lease(stored, now=snapshot.read_time, message_id="", terms=self._ledger.terms)
        return view.state is StepState.LEASE_OVER

    def _work(self, run_id: str, step_id: str, snapshot: RunSnapshot) -> None:
        scope = self._pipeline.new_scope()
        with self._drain.running(scope):
            if self._stopping.is_set():
                return  # the drain began just before it knew of this step, and may not wait for it
            outcome = self._pipeline.run(run_id, step_id, scope=scope, snapshot=snapshot)
        metrics.RESCUES.labels(outcome.kind.value).inc()
        if outcome.manifest_uri is not None:
            self._breaker.succeeded("storage")
