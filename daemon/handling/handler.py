"""From a message to its disposition: read the run, work on the step, and decide what to do with the message.

The handler never acks or nacks the message and never raises. `daemon.subscription.callback` does what its
disposition says.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from daemon.handling.disposition import (
    MIN_NOT_READY_SECONDS,
    Ack,
    Defer,
    Nack,
    Reject,
    after_work,
    ignored,
    noop,
    not_now,
    nothing_eligible,
    own_redelivery,
    waits_for_account,
    without_work,
)
from daemon.handling.messages import Irrelevant, MessageRejected, parse_message
from daemon.handling.step_state import (
    StepState,
    StepView,
    classify_lease,
    classify_run,
    classify_step,
    running_steps,
)
from worker_chart_export.backends.errors import machine_errors
from worker_chart_export.errors import (
    AccountsExhausted,
    BackendRefused,
    BackendUnavailable,
    Interrupted,
    RunInvalid,
)
from worker_chart_export.observability.logs import Event, bind, bound, log
from worker_chart_export.observability.observers import annotate
from worker_chart_export.timing import Backoff

if TYPE_CHECKING:
    from datetime import datetime

    from daemon.handling.circuit_breaker import CircuitBreaker
    from daemon.handling.disposition import Disposition
    from daemon.handling.messages import IncomingMessage
    from daemon.lifecycle.drain import Drain
    from worker_chart_export.execution.pipeline import StepPipeline
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.ledger.step_ledger import StepLedger
    from worker_chart_export.timing import Clock

CLAIMABLE = frozenset({StepState.READY, StepState.LEASE_EXPIRED})
#: A message is deferred after its steps were lost to other workers this often in one delivery.
MAX_LOST_STEPS = 10
CONTENDED = f"its steps were lost to other workers {MAX_LOST_STEPS} times"
OUT_OF_TIME = "STEP_TIMEOUT_SECONDS have passed since its delivery, and no further step is started"
#: Deferrals in a row, counted over all threads: a short failure costs seconds, an outage up to a minute.
DEFER_BACKOFF = Backoff(low_seconds=1.0, first_seconds=4.0, max_seconds=60.0)


class MessageHandler:
    """Handles deliveries. Shared by all handler threads.

    Args:
        ledger: Reads runs and leases.
        pipeline: Works on steps.
        breaker: Deliveries wait here while a backend is unavailable.
        drain: Stops the running steps when the process stops.
        clock: Measures the time that a message takes.
        step_timeout_seconds: After this time no further step is started for a message.
        not_ready_grace_seconds: How long after its publish time a message may wait for its step.
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
        self._deferrals = itertools.count(1)

    def handle(self, message: IncomingMessage) -> Disposition:
        """Do the work that the message names, and return the message's disposition. Never raises."""
        log.info(
            Event.MESSAGE_RECEIVED,
            "Received a message",
            deliveryAttempt=message.delivery_attempt,
            sizeBytes=len(message.data),
            publishTime=message.publish_time,
        )
        try:
            with machine_errors():
                return self._handle(message)
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
            self._breaker.record_failure(error)
            return self._defer(f"{error.backend}_unavailable", str(error))
        except BackendRefused as error:
            log.error(Event.BACKEND_REFUSED, str(error), backend=error.backend)
            return self._defer(f"{error.backend}_refused", str(error))
        except Interrupted:
            return Nack(reason="shutdown")
        except Exception as error:  # noqa: BLE001 - an error that leaves the callback would end the stream
            log.error(Event.INTERNAL_ERROR, f"Handling failed: {error!r:.300}", exc_info=error)
            return self._defer("internal_error", f"handling it failed: {type(error).__name__}")

    def _handle(self, message: IncomingMessage) -> Disposition:
        if self._drain.is_draining:
            return Nack(reason="shutdown")
        try:
            request = parse_message(message.data, message.attributes)
        except MessageRejected as rejected:
            return Reject(reason=rejected.reason, detail=rejected.detail)
        if isinstance(request, Irrelevant):
            return ignored(request.reason)
        bind(runId=request.run_id, stepId=request.step_id)
        annotate(runId=request.run_id, **({} if request.step_id is None else {"stepId": request.step_id}))
        disposition: Disposition
        try:
            if request.step_id is None:
                disposition = self._work_on_run(request.run_id, message)
            else:
                disposition = self._work_on_step(request.run_id, request.step_id, message)
        except RunInvalid as error:
            disposition = Reject(reason="run_invalid", detail=str(error))
        # Only now: a read that succeeds does not show that commits succeed too.
        self._breaker.record_success("firestore")
        if not isinstance(disposition, Defer):
            self._deferrals = itertools.count(1)
        return disposition

    def _work_on_step(self, run_id: str, step_id: str, message: IncomingMessage) -> Disposition:
        deadline = self._clock.monotonic() + self._step_timeout_seconds
        for lost in range(MAX_LOST_STEPS):
            if why := self._breaker.wait_until_closed():
                return not_now(why)
            snapshot, view = self._read_step(run_id, step_id, message)
            if lost and view.state is StepState.MISSING:
                return noop(view)  # it existed a moment ago, so it is deleted and not late
            if view.state is not StepState.UNLEASED and view.state not in CLAIMABLE:
                age = (self._server_time(snapshot) - message.publish_time).total_seconds()
                return without_work(view, age_seconds=age, grace_seconds=self._not_ready_grace_seconds)
            if self._clock.monotonic() >= deadline:
                return self._defer("out_of_time", OUT_OF_TIME)
            done: Ack | Defer | None
            if view.state is StepState.UNLEASED:
                done = self._settle_unleased(step_id, snapshot, message)
            else:
                done = self._export(step_id, snapshot, message)
            if done:
                return done
        return self._defer("contended", CONTENDED)

    def _read_step(self, run_id: str, step_id: str, message: IncomingMessage) -> tuple[RunSnapshot, StepView]:
        """Read the run and, if the step is RUNNING, once more with the lease of the step."""
        snapshot = self._ledger.read(run_id)
        view = classify_step(snapshot.run, step_id)
        if view.state is StepState.RUNNING:
            snapshot = self._ledger.read(run_id, leases_of=[step_id])
            view = classify_step(snapshot.run, step_id)
            if view.state is StepState.RUNNING:
                view = self._classify_lease(step_id, snapshot, message)
        return snapshot, view

    def _work_on_run(self, run_id: str, message: IncomingMessage) -> Disposition:
        """Work on one eligible step of the run after another, in this thread."""
        deadline = self._clock.monotonic() + self._step_timeout_seconds
        lost, waiting = 0, None
        while lost < MAX_LOST_STEPS:
            if why := self._breaker.wait_until_closed():
                return not_now(why)
            if self._drain.is_draining:
                return Nack(reason="shutdown")
            snapshot, step_id, own = self._next_step(run_id, message)
            if step_id is None:
                if own:
                    return waiting or own_redelivery(own)
                return nothing_eligible(classify_run(snapshot.run))
            if self._clock.monotonic() >= deadline:
                return Defer(delay_seconds=MIN_NOT_READY_SECONDS, reason="more_steps", detail=OUT_OF_TIME)
            done = self._export(step_id, snapshot, message)
            lost += done is None
            waiting = done if isinstance(done, Defer) else waiting
        return self._defer("contended", CONTENDED)

    def _next_step(
        self, run_id: str, message: IncomingMessage
    ) -> tuple[RunSnapshot, str | None, StepView | None]:
        """Find the next step of the run: a READY one, or a RUNNING one with an expired lease.

        Returns the read, the step's id or None, and the view of a step that runs under this message, if any.
        """
        snapshot = self._ledger.read(run_id)
        run = snapshot.run
        ready = run.eligible_step() if run and not run.is_final else None
        if ready is not None:
            return snapshot, ready.step_id, None
        running = running_steps(snapshot)
        if not running:
            return snapshot, None, None
        snapshot, own, has_finalized = self._ledger.read(run_id, leases_of=running), None, False
        for step_id in running_steps(snapshot):
            if step_id not in snapshot.leases:
                continue  # it has become RUNNING since the first read
            view = self._classify_lease(step_id, snapshot, message)
            if view.state is StepState.LEASE_EXPIRED:
                return snapshot, step_id, None
            if view.state is StepState.UNLEASED:
                settled = self._settle_unleased(step_id, snapshot, message)
                has_finalized |= settled is not None and settled.reason != StepState.UNLEASED
            elif view.state is StepState.OWN_LEASE:
                own = view
        return self._next_step(run_id, message) if has_finalized else (snapshot, None, own)

    def _classify_lease(self, step_id: str, snapshot: RunSnapshot, message: IncomingMessage) -> StepView:
        return classify_lease(
            snapshot.leases[step_id],
            now=self._server_time(snapshot),
            message_id=message.message_id,
            terms=self._ledger.terms,
        )

    def _server_time(self, snapshot: RunSnapshot) -> datetime:
        """Return the time of the read by the server, because the clock of this machine may be wrong."""
        return snapshot.read_time or self._clock.now()

    def _settle_unleased(self, step_id: str, snapshot: RunSnapshot, message: IncomingMessage) -> Ack | None:
        """Finalize a step that is RUNNING without a lease from its manifest, or else create a lease for it.

        Return None if the step has changed, so that the run must be read again.
        """
        if snapshot.run is None:
            raise AssertionError("unreachable: a step that is RUNNING is in a run")
        scope = self._pipeline.new_scope()
        with bound(stepId=step_id), self._drain.running(scope):
            outcome = self._pipeline.finish_unleased(
                snapshot, step_id, scope=scope, message_id=message.message_id
            )
            if outcome is None:
                self._ledger.adopt(snapshot.run.run_id, step_id, now=snapshot.read_time)
                return Ack(reason=StepState.UNLEASED.value)
        return after_work(outcome)

    def _defer(self, reason: str, detail: str) -> Defer:
        delay_seconds = DEFER_BACKOFF.delay_seconds(next(self._deferrals))
        return Defer(delay_seconds=delay_seconds, reason=reason, detail=detail)

    def _export(self, step_id: str, snapshot: RunSnapshot, message: IncomingMessage) -> Ack | Defer | None:
        """Work on a step. Return None if another worker has it or it waits: the run must be read again.

        A step that waits for one of several accounts holds up no others: its message is deferred.
        """
        if snapshot.run is None:
            raise AssertionError("unreachable: a step that can be claimed is in a run")
        scope = self._pipeline.new_scope()
        try:
            with self._drain.running(scope):
                outcome = self._pipeline.run(
                    snapshot.run.run_id,
                    step_id,
                    scope=scope,
                    message_id=message.message_id,
                    snapshot=snapshot,
                )
        except AccountsExhausted as error:
            self._breaker.record_failure(error)
            # While all charts wait, the message waits at the breaker, so that it uses up no delivery attempt.
            return None if error.is_for_all else waits_for_account()
        done = after_work(outcome)
        if done is not None and outcome.manifest_uri is not None:
            self._breaker.record_success("storage")
        return done
