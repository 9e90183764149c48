"""The dispositions of messages, and the choice of one for a message that has no work to do.

The handler returns a disposition; `daemon.subscription.callback` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.handling.circuit_breaker import SHUTDOWN
from daemon.handling.step_state import NOT_READY, StepState
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from daemon.handling.step_state import StepView
    from worker_chart_export.execution.outcome import Outcome

MIN_NOT_READY_SECONDS = 10.0
MAX_NOT_READY_SECONDS = 300.0
#: The longest ack deadline that Pub/Sub accepts.
MAX_DEFER_SECONDS = 600
#: After a finalize that was refused for one of these reasons there is nothing to read again.
GONE = frozenset({Reason.RUN_MISSING, Reason.STEP_MISSING})
LOST = frozenset({OutcomeKind.CLAIM_LOST, OutcomeKind.FINALIZE_REFUSED})
#: Longer than a stream needs to close.
GIVE_BACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The message is done."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """Pub/Sub delivers the message again at once."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Pub/Sub delivers the message again after a delay; until then it needs no thread and no memory.

    Attributes:
        reason: A stable code.
        detail: The reason as a sentence for a person.
    """

    delay_seconds: float
    reason: str
    detail: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """No worker can handle the message: it goes to the quarantine or to the dead-letter topic.

    Attributes:
        reason: A stable code.
        detail: One sentence for a person.
    """

    reason: str
    detail: str


Disposition = Ack | Nack | Defer | Reject


def without_work(view: StepView, *, age_seconds: float, grace_seconds: float) -> Disposition:
    """Choose the disposition of a message whose step can't be worked on now.

    Args:
        view: The state of the step.
        age_seconds: The time since the message was published.
        grace_seconds: How long a message may wait for its step.
    """
    if view.state in NOT_READY:
        return not_ready(view, age_seconds=age_seconds, grace_seconds=grace_seconds)
    if view.state is StepState.OTHER_TYPE:
        return ignored(view.description)
    if view.state is StepState.OWN_LEASE:
        return own_redelivery(view)
    return noop(view)


def after_work(outcome: Outcome) -> Ack | None:
    """Return the disposition after the work on a step. None: the step was lost, so read the run again."""
    if outcome.kind is OutcomeKind.FINALIZE_REFUSED and outcome.reason in GONE:
        return Ack(reason=str(outcome.reason))
    return None if outcome.kind in LOST else Ack(reason=outcome.kind.value)


def not_ready(view: StepView, *, age_seconds: float, grace_seconds: float) -> Disposition:
    """Defer a message that arrived before its step is READY, by its age; reject it after the grace time."""
    if age_seconds > grace_seconds:
        waited = f"{age_seconds:.0f} s after publishing, more than {grace_seconds:g} s"
        return Reject(reason="not_ready", detail=f"{view.description}, {waited}")
    _log_not_ready(view)
    delay = min(max(age_seconds, MIN_NOT_READY_SECONDS), MAX_NOT_READY_SECONDS)
    return Defer(delay_seconds=delay, reason=view.state.value, detail=view.description)


def not_now(why: str) -> Nack | Defer:
    """Give back a message that waited at the open circuit breaker.

    After a pause it is deferred, because Pub/Sub may send a nacked message to the closing stream again.
    """
    if why == SHUTDOWN:
        return Nack(reason=why)
    return Defer(delay_seconds=GIVE_BACK_SECONDS, reason=why, detail="the intake is paused")


def waits_for_account() -> Defer:
    """Defer the message of a step that only a used-up or refused account can make.

    It is deferred for as long as possible, because each delivery is counted. The rescue finds the step
    earlier by its lease, and then the message is acked as a duplicate.
    """
    detail = "no Chart-IMG account that can make its charts has calls left"
    return Defer(delay_seconds=MAX_DEFER_SECONDS, reason="accounts", detail=detail)


def nothing_eligible(view: StepView) -> Ack:
    """Ack a message that names only the run: the next update of the run sends another event."""
    if view.state not in NOT_READY:
        return noop(view)
    _log_not_ready(view)
    return Ack(reason=view.state.value)


def own_redelivery(view: StepView) -> Defer:
    """Defer a message while its step runs under the message itself, until after the expiry of the lease."""
    log.info(Event.STEP_NOOP, f"Checking again later: {view.description}", reason=view.state.value)
    return Defer(delay_seconds=view.wait_seconds, reason=view.state.value, detail=view.description)


def noop(view: StepView) -> Ack:
    """Ack a message whose step needs no work, or no work that this message may start."""
    log.info(Event.STEP_NOOP, f"Nothing to do: {view.description}", reason=view.state.value)
    return Ack(reason=view.state.value)


def ignored(description: str) -> Ack:
    """Ack a message that is not about a chart step."""
    log.info(Event.MESSAGE_IGNORED, f"Not for this worker: {description}")
    return Ack(reason="ignored")


def _log_not_ready(view: StepView) -> None:
    event = Event.DEPENDS_ON_BLOCKED if view.state is StepState.DEPENDS_ON else Event.STEP_NOT_READY
    log.info(event, f"Not ready: {view.description}", reason=view.state.value)
