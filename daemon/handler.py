"""From a message to its disposition: what a delivery finds in Firestore decides what happens to it.

The handler never touches the message and never raises: `settlement.settle` carries out what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.backoff import OutageBackoff
from daemon.disposition import Ack, Defer, Nack, Reject
from daemon.messages import Irrelevant, MessageRejected, parse_message
from worker_chart_export.errors import BackendRefused, BackendUnavailable, Interrupted, RunInvalid, shown
from worker_chart_export.flow_run import StepStatus
from worker_chart_export.logs import Event, bound, log
from worker_chart_export.orchestration import Reason
from worker_chart_export.outcome import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from daemon.disposition import Disposition
    from daemon.drain import Drain
    from daemon.messages import StepRequest
    from worker_chart_export.clock import Clock
    from worker_chart_export.flow_run import FlowRun
    from worker_chart_export.ledger import StepLedger
    from worker_chart_export.outcome import Outcome
    from worker_chart_export.pipeline import StepPipeline

LEAST_NOT_READY_SECONDS = 10.0
MOST_NOT_READY_SECONDS = 300.0
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


class Sight(StrEnum):
    """What a look at the run finds about the step (or the run) a message names."""

    READY = "ready"
    FINAL = "final"
    RUNNING = "running"
    MISSING = "missing"
    PENDING = "pending"
    DEPENDS_ON = "depends_on"
    OTHER_TYPE = "other_type"


SIGHT_OF_STATUS = {
    StepStatus.READY: Sight.READY,
    StepStatus.RUNNING: Sight.RUNNING,
    StepStatus.PENDING: Sight.PENDING,
}
#: A finalize refused because of these has nothing left to be looked at again.
GONE = frozenset({Reason.RUN_MISSING, Reason.STEP_MISSING})
NOT_YET = frozenset({Sight.MISSING, Sight.PENDING, Sight.DEPENDS_ON})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A look at the run, and a sentence about it."""

    sight: Sight
    words: str


def look_at_step(run: FlowRun | None, step_id: str) -> Finding:
    """What the run says about a named step. Pure.

    Raises:
        RunInvalid: The step, or one it depends on, can't be read.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        return Finding(sight=Sight.MISSING, words="the run does not exist" if run is None else "no such step")
    if not step.is_chart_export:
        return Finding(sight=Sight.OTHER_TYPE, words=f"the step is of type {shown(step.step_type)}")
    if run.is_final or step.status.is_final:
        return Finding(sight=Sight.FINAL, words=f"the run is {run.status}, the step {step.status}")
    if step.status is StepStatus.READY and (unmet := run.unmet_dependencies(step)):
        return Finding(sight=Sight.DEPENDS_ON, words=f"dependsOn not SUCCEEDED: {', '.join(unmet)}")
    return Finding(sight=SIGHT_OF_STATUS[step.status], words=f"the step is {step.status}")


def look_at_rest(run: FlowRun | None) -> Finding:
    """What there is to say of a run in which no step is eligible. Pure.

    Raises:
        RunInvalid: A chart step of the run can't be read.
    """
    if run is None:
        return Finding(sight=Sight.MISSING, words="the run does not exist")
    if run.is_final:
        return Finding(sight=Sight.FINAL, words=f"the run is {run.status}")
    if invalid := run.invalid_steps():
        raise RunInvalid("; ".join(invalid))
    findings = [look_at_step(run, name) for name in run.chart_step_ids()]
    blocked = [found for found in findings if found.sight in NOT_YET]
    return next(iter(blocked), Finding(sight=Sight.FINAL, words="no step of the run is waiting"))


class MessageHandler:
    """Handles deliveries. Shared by all handler threads.

    Args:
        ledger: Reads runs.
        pipeline: Works steps.
        drain: Knows whether the process is stopping, and stops steps that are under way.
        clock: For the age of messages and the time a run-only message may take.
        step_timeout_seconds: No further step of a run-only message is started after this time.
        not_ready_grace_seconds: How long after its publishing a message may wait for its step.
    """

    def __init__(
        self,
        *,
        ledger: StepLedger,
        pipeline: StepPipeline,
        drain: Drain,
        clock: Clock,
        step_timeout_seconds: float,
        not_ready_grace_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._pipeline = pipeline
        self._drain = drain
        self._clock = clock
        self._step_timeout_seconds = step_timeout_seconds
        self._not_ready_grace_seconds = not_ready_grace_seconds
        self._backoff = OutageBackoff()

    def handle(self, message: IncomingMessage) -> Disposition:
        """Work what the message names and say what is to become of the message. Never raises."""
        try:
            return self._handle(message)
        except BackendUnavailable as error:
            log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
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
            return _ignored(request.reason)
        with bound(runId=request.run_id, stepId=request.step_id):
            disposition = self._work(request, message)
        if not isinstance(disposition, Defer):
            self._backoff.reset()
        return disposition

    def _work(self, request: StepRequest, message: IncomingMessage) -> Disposition:
        try:
            if request.step_id is None:
                return self._work_run(request.run_id)
            return self._work_step(request.run_id, request.step_id, message)
        except RunInvalid as error:
            return Reject(reason="run_invalid", detail=str(error))

    def _work_step(self, run_id: str, step_id: str, message: IncomingMessage) -> Disposition:
        for _ in range(MAX_LOOKS):
            finding = look_at_step(self._ledger.read(run_id), step_id)
            if finding.sight is not Sight.READY:
                return self._without_work(finding, message)
            if done := self._export(run_id, step_id):
                return done
        return self._defer("contended")

    def _work_run(self, run_id: str) -> Disposition:
        """Work one eligible step after another, in this one slot."""
        deadline = self._clock.monotonic() + self._step_timeout_seconds
        lost = 0
        while lost < MAX_LOOKS:
            run = self._ledger.read(run_id)
            step = run.eligible_step() if run and not run.is_final else None
            if step is None:
                return _nothing_eligible(look_at_rest(run))
            if self._drain.is_draining:
                return Nack(reason="shutdown")
            if self._clock.monotonic() >= deadline:
                return Defer(delay_seconds=LEAST_NOT_READY_SECONDS, reason="more_steps")
            lost += self._export(run_id, step.step_id) is None
        return self._defer("contended")

    def _defer(self, reason: str) -> Defer:
        return Defer(delay_seconds=self._backoff.delay_seconds(), reason=reason)

    def _export(self, run_id: str, step_id: str) -> Ack | None:
        """Work a step; None when it was lost to somebody else and the run has to be looked at again."""
        budget = self._pipeline.new_budget()
        with self._drain.running(budget):
            outcome = self._pipeline.run(run_id, step_id, budget=budget)
        if outcome.kind is OutcomeKind.FINALIZE_REFUSED and outcome.reason in GONE:
            return Ack(reason=str(outcome.reason))
        return None if _was_lost(outcome) else Ack(reason=outcome.kind.value)

    def _without_work(self, finding: Finding, message: IncomingMessage) -> Disposition:
        if finding.sight in NOT_YET:
            return self._not_ready(finding, message)
        if finding.sight is Sight.OTHER_TYPE:
            return _ignored(finding.words)
        return _noop(finding)

    def _not_ready(self, finding: Finding, message: IncomingMessage) -> Disposition:
        age = (self._clock.now() - message.publish_time).total_seconds()
        if age > self._not_ready_grace_seconds:
            waited = f"{age:.0f} s after publishing, more than {self._not_ready_grace_seconds:g} s"
            return Reject(reason="not_ready", detail=f"{finding.words}, {waited}")
        _log_not_ready(finding)
        delay = min(max(age, LEAST_NOT_READY_SECONDS), MOST_NOT_READY_SECONDS)
        return Defer(delay_seconds=delay, reason=finding.sight.value)


def _was_lost(outcome: Outcome) -> bool:
    return outcome.kind in {OutcomeKind.CLAIM_LOST, OutcomeKind.FINALIZE_REFUSED}


def _nothing_eligible(finding: Finding) -> Disposition:
    """The message named only the run: the run's next update brings another event, so this one is done."""
    if finding.sight in NOT_YET:
        _log_not_ready(finding)
        return Ack(reason=finding.sight.value)
    return _noop(finding)


def _noop(finding: Finding) -> Ack:
    log.info(Event.STEP_NOOP, f"Nothing to do: {finding.words}", reason=finding.sight.value)
    return Ack(reason=finding.sight.value)


def _ignored(words: str) -> Ack:
    log.info(Event.MESSAGE_IGNORED, f"Not for this worker: {words}")
    return Ack(reason="ignored")


def _log_not_ready(finding: Finding) -> None:
    event = Event.DEPENDS_ON_BLOCKED if finding.sight is Sight.DEPENDS_ON else Event.STEP_NOT_READY
    log.info(event, f"Not ready: {finding.words}", reason=finding.sight.value)
