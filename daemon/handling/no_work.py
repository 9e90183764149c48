"""What becomes of a message that finds no work: its disposition, and the line that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.handling.disposition import Ack, Defer, Reject
from daemon.handling.step_state import NOT_YET, StepState
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from daemon.handling.disposition import Disposition
    from daemon.handling.step_state import StepView

MIN_NOT_READY_SECONDS = 10.0
MAX_NOT_READY_SECONDS = 300.0


def not_ready(view: StepView, *, age_seconds: float, grace_seconds: float) -> Disposition:
    """The message came before its step: it waits as long again as it is old, until the grace is over."""
    if age_seconds > grace_seconds:
        waited = f"{age_seconds:.0f} s after publishing, more than {grace_seconds:g} s"
        return Reject(reason="not_ready", detail=f"{view.words}, {waited}")
    _log_not_ready(view)
    delay = min(max(age_seconds, MIN_NOT_READY_SECONDS), MAX_NOT_READY_SECONDS)
    return Defer(delay_seconds=delay, reason=view.state.value)


def nothing_eligible(view: StepView) -> Disposition:
    """The message named only the run: the run's next update brings another event, so this one is done."""
    if view.state in NOT_YET:
        _log_not_ready(view)
        return Ack(reason=view.state.value)
    return noop(view)


def own_redelivery(view: StepView) -> Defer:
    """The message's step runs under this very message: it stays until the step has ended."""
    log.info(Event.STEP_NOOP, f"Looking again later: {view.words}", reason=view.state.value)
    return Defer(delay_seconds=view.wait_seconds, reason=view.state.value)


def noop(view: StepView) -> Ack:
    """There is nothing left to do, or nothing that this message could."""
    log.info(Event.STEP_NOOP, f"Nothing to do: {view.words}", reason=view.state.value)
    return Ack(reason=view.state.value)


def ignored(words: str) -> Ack:
    """It is of other steps, or of no step at all."""
    log.info(Event.MESSAGE_IGNORED, f"Not for this worker: {words}")
    return Ack(reason="ignored")


def _log_not_ready(view: StepView) -> None:
    event = Event.DEPENDS_ON_BLOCKED if view.state is StepState.DEPENDS_ON else Event.STEP_NOT_READY
    log.info(event, f"Not ready: {view.words}", reason=view.state.value)
