"""From a message to its disposition: what a delivery finds in Firestore decides what happens to it.

The handler never touches the message and never raises: `settlement.settle` carries out what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.handling.disposition import Ack, Defer, Nack, Reject
from daemon.handling.messages import Irrelevant, MessageRejected, parse_message
from daemon.handling.no_work import (
    MIN_NOT_READY_SECONDS,
    ignored,
    noop,
    not_ready,
    nothing_eligible,
    own_redelivery,
)
from daemon.handling.outage_backoff import OutageBackoff
from daemon.handling.step_state import (
    GONE,
    NOT_YET,
    StepState,
    StepView,
    classify_lease,
    classify_run,
    classify_step,
    running_steps,
)
from worker_chart_export.errors import BackendRefused, BackendUnavailable, Interrupted, RunInvalid
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.observability.logs import Event, bind, bound, log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from daemon.handling.circuit_breaker import CircuitBreaker
    from daemon.handling.disposition import Disposition
    from daemon.handling.messages import StepRequest
    from daemon.lifecycle.drain import Drain
    from worker_chart_export.execution.pipeline import StepPipeline
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.ledger.step_ledger import StepLedger
    from worker_chart_export.timing import Clock

CLAIMABLE = frozenset({StepState.READY, StepState.LEASE_OVER})
LOST = frozenset({OutcomeKind.CLAIM_LOST, OutcomeKind.FINALIZE_REFUSED})
#: A message whose step is lost to others this often in one delivery is looked at again later.
MAX_LOOKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingMessage:
    """One delivery of a message, free of the Pub/Sub client's types.

    Attributes:
        delivery_attempt: Set when the subscription has a dead-letter policy.
    """

    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    publish_time: datetime
    delivery_attempt: int | None


class MessageHandler:
    """Handles deliveries. Shared by all handler threads.

    Args:
        ledger: Reads runs and leases.
        pipeline: Works steps.
        intake: The gate at which deliveries wait while a backend is away.
        drain: Knows whether the process is stopping, and stops steps that are under way.
        clock: For the age of messages and the time a message may take.
        step_timeout_seconds: No further step is started for a message after this time.
        not_ready_grace_seconds: How long after its publishing a message may wait for its step.
    """

    def __init__(
        self,
        *,
        ledger: StepLedger,
        pipeline: StepPipeline,
        breaker: CircuitBreaker,
        drain: Drain,
        clock: Clock,
        step_timeout_seconds: float,
        not_ready_grace_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._pipeline = pipeline
        self._breaker = breaker
        self._drain = drain
        self._clock = clock
        self._step_timeout_seconds = step_timeout_seconds
        self._not_ready_grace_seconds = not_ready_grace_seconds
        self._backoff = OutageBackoff()

    def handle(self, message: IncomingMessage) -> Disposition:
        """Work what the message names, bound to the log, and say what becomes of it. Never raises."""
        try:
            return self._handle(message)
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            self._breaker.failed(error.backend)
            return self._defer(f"{error.backend}_unavailable")
        except BackendRefused as error:
            log.error(Event.BACKEND_REFUSED, str(error), backend=error.backend)
            return self._defer(f"{error.backend}_refused")
        except Interrupted:
            return Nack(reason="shutdown")
        except Exception as error:  # noqa: BLE001 - an error that leaves the callback would end the stream
            log.error(Event.INTERNAL_ERROR, f"Handling failed: {error!r:.300}", exc_info=error)
            return self._defer("internal_error")

    def _handle(self, message: IncomingMessage) -> Disposition:
        log.info(
            Event.MESSAGE_RECEIVED,
            "Received a message",
            deliveryAttempt=message.delivery_attempt,
            sizeBytes=len(message.data),
            publishTime=message.publish_time,
        )
        if self._drain.is_draining:
            return Nack(reason="shutdown")
        try:
            request = parse_message(message.data, message.attributes)
        except MessageRejected as rejected:
            return Reject(reason=rejected.reason, detail=rejected.detail)
        if isinstance(request, Irrelevant):
            return ignored(request.reason)
        bind(runId=request.run_id, stepId=request.step_id)
        disposition = self._work(request, message)
        self._breaker.succeeded("firestore")  # only now: reads that succeed say little while commits don't
        if not isinstance(disposition, Defer):
            self._backoff.reset()
        return disposition

    def _work(self, request: StepRequest, message: IncomingMessage) -> Disposition:
        try:
            if request.step_id is None:
                return self._work_run(request.run_id, message)
            return self._work_step(request.run_id, request.step_id, message)
        except RunInvalid as error:
            return Reject(reason="run_invalid", detail=str(error))

    def _work_step(self, run_id: str, step_id: str, message: IncomingMessage) -> Disposition:
        deadline = self._clock.monotonic() + self._step_timeout_seconds
        for look in range(MAX_LOOKS):
            if not self._breaker.wait():
                return Nack(reason="shutdown")
            snapshot, view = self._look(run_id, step_id, message)
            if look and view.state is StepState.MISSING:
                return noop(view)  # it was there a moment ago, so it is gone and not late
            if view.state not in CLAIMABLE:
                return self._without_work(step_id, snapshot, view, message)
            if self._clock.monotonic() >= deadline:
                return self._defer("out_of_time")
            if done := self._export(step_id, snapshot, message):
                return done
        return self._defer("contended")

    def _look(self, run_id: str, step_id: str, message: IncomingMessage) -> tuple[RunSnapshot, StepView]:
        """One read for a step that is not RUNNING, a second with its lease for one that is."""
        snapshot = self._ledger.read(run_id)
        view = classify_step(snapshot.run, step_id)
        if view.state is not StepState.RUNNING:
            return snapshot, view
        snapshot = self._ledger.read(run_id, leases_of=[step_id])
        view = classify_step(snapshot.run, step_id)
        if view.state is StepState.RUNNING:
            view = classify_lease(
                snapshot.leases[step_id],
                now=snapshot.read_time or self._clock.now(),
                message_id=message.message_id,
                terms=self._ledger.terms,
            )
        return snapshot, view

    def _work_run(self, run_id: str, message: IncomingMessage) -> Disposition:
        """Work one eligible step after another, in this one slot."""
        deadline = self._clock.monotonic() + self._step_timeout_seconds
        lost = 0
        while lost < MAX_LOOKS:
            if not self._breaker.wait() or self._drain.is_draining:
                return Nack(reason="shutdown")
            snapshot, step_id, own = self._next_step(run_id, message)
            if step_id is None:
                return own_redelivery(own) if own else nothing_eligible(classify_run(snapshot.run))
            if self._clock.monotonic() >= deadline:
                return Defer(delay_seconds=MIN_NOT_READY_SECONDS, reason="more_steps")
            lost += self._export(step_id, snapshot, message) is None
        return self._defer("contended")

    def _next_step(
        self, run_id: str, message: IncomingMessage
    ) -> tuple[RunSnapshot, str | None, StepView | None]:
        """The step of the run to work next: READY first, then RUNNING ones whose lease is over.

        Without one, a step that runs under this very message, if there is one.
        """
        snapshot = self._ledger.read(run_id)
        run = snapshot.run
        ready = run.eligible_step() if run and not run.is_final else None
        if ready is not None:
            return snapshot, ready.step_id, None
        running = running_steps(snapshot)
        if not running:
            return snapshot, None, None
        snapshot, own = self._ledger.read(run_id, leases_of=running), None
        for step_id in running_steps(snapshot):
            if step_id not in snapshot.leases:
                continue  # it was not RUNNING a moment ago
            view = classify_lease(
                snapshot.leases[step_id],
                now=snapshot.read_time or self._clock.now(),
                message_id=message.message_id,
                terms=self._ledger.terms,
            )
            if view.state is StepState.LEASE_OVER:
                return snapshot, step_id, None
            if view.state is StepState.UNLEASED:
                self._adopt(step_id, snapshot)
            elif view.state is StepState.OWN_LEASE:
                own = view
        return snapshot, None, own

    def _adopt(self, step_id: str, snapshot: RunSnapshot) -> None:
        if snapshot.run is not None:
            with bound(stepId=step_id):
                self._ledger.adopt(snapshot.run.run_id, step_id, now=snapshot.read_time)

    def _defer(self, reason: str) -> Defer:
        return Defer(delay_seconds=self._backoff.delay_seconds(), reason=reason)

    def _export(self, step_id: str, snapshot: RunSnapshot, message: IncomingMessage) -> Ack | None:
        """Work a step; None when it was lost to somebody else and the run has to be looked at again."""
        if snapshot.run is None:
            raise AssertionError("unreachable: a step that can be claimed is in a run")
        scope = self._pipeline.new_scope()
        with self._drain.running(scope):
            outcome = self._pipeline.run(
                snapshot.run.run_id, step_id, scope=scope, message_id=message.message_id, snapshot=snapshot
            )
        if outcome.kind is OutcomeKind.FINALIZE_REFUSED and outcome.reason in GONE:
            return Ack(reason=str(outcome.reason))
        if outcome.kind in LOST:
            return None
        if outcome.manifest_uri is not None:
            self._breaker.succeeded("storage")
        return Ack(reason=outcome.kind.value)

    def _without_work(
        self, step_id: str, snapshot: RunSnapshot, view: StepView, message: IncomingMessage
    ) -> Disposition:
        if view.state in NOT_YET:
            age = (self._clock.now() - message.publish_time).total_seconds()
            return not_ready(view, age_seconds=age, grace_seconds=self._not_ready_grace_seconds)
        if view.state is StepState.OTHER_TYPE:
            return ignored(view.words)
        if view.state is StepState.OWN_LEASE:
            return own_redelivery(view)
        if view.state is StepState.UNLEASED:
            self._adopt(step_id, snapshot)
            return Ack(reason=view.state.value)
        return noop(view)
