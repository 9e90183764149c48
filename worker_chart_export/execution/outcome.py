"""The outcome of the work on one step, and its report to observers, metrics and the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import notify_step_ended

if TYPE_CHECKING:
    from worker_chart_export.errors import StepError


class OutcomeKind(StrEnum):
    """How the work on one step ended. The values stand in traces."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Another worker has the step, or it needs no work any more.
    CLAIM_LOST = "claim_lost"
    #: The work was done, but the lease was lost or the step has changed: its result was not written.
    FINALIZE_REFUSED = "finalize_refused"
    #: Released for another attempt. For observers only, like the next one: the caller gets the error itself.
    RELEASED = "given_back"
    #: To be released, but Firestore did not answer. The lease expires by itself.
    NOT_RELEASED = "not_given_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of the work on one step.

    Attributes:
        kind: How it ended.
        reason: Why the claim was lost or the result was not written.
        manifest_uri: The manifest, once it is written.
        items: How many charts the manifest has.
        failures: How many requested charts failed.
        min_images: How many charts the step needs.
        error: The error that the step failed with.
    """

    kind: OutcomeKind
    reason: str | None = None
    manifest_uri: str | None = None
    items: int = 0
    failures: int = 0
    min_images: int | None = None
    error: StepError | None = None


def report_outcome(outcome: Outcome, seconds: float) -> None:
    """Notify the observers of the outcome. Count and log a step that SUCCEEDED or FAILED.

    Args:
        outcome: The outcome of a step that was claimed.
        seconds: Time since the claim.
    """
    notify_step_ended(outcome, seconds)
    if outcome.kind is OutcomeKind.FINALIZE_REFUSED:
        return
    error = outcome.error
    metrics.STEP_SECONDS.labels(outcome.kind.value).observe(seconds)
    metrics.STEPS_FINISHED.labels(outcome.kind.value, str(error.code) if error else "none").inc()
    if outcome.kind is OutcomeKind.SUCCEEDED:
        metrics.LAST_SUCCESS.set_to_current_time()
    (log.warning if error else log.info)(
        Event.STEP_COMPLETED,
        f"The step has {outcome.kind}{f': {error.message}' if error else ''}",
        status=outcome.kind.upper(),
        items=outcome.items,
        failures=outcome.failures,
        minImages=outcome.min_images,
        manifestUri=outcome.manifest_uri,
        code=error.code if error else None,
        details=error.details if error else None,
        durationMs=round(seconds * 1000),
    )
