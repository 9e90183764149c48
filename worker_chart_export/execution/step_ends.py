"""How the work on a step ends: what it comes to, and telling it to observers, metrics and the log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from worker_chart_export.errors import ErrorCode, StepError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.ledger.intents import crash_loop_of, unstorable
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import notify_step_ended
from worker_chart_export.outputs.manifest import ManifestFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.execution.parallel import ChartResult
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult, ReleaseResult


def too_few_charts(results: Sequence[ChartResult], export: ExportRequest, manifest_uri: str) -> StepError:
    """The step's error when too few charts were made: the first failure's code and words."""
    failures = [result for result in results if isinstance(result, ManifestFailure)]
    first = failures[0].error
    made = len(results) - len(failures)
    return StepError(
        code=first.code,
        message=f"{made} of {export.min_images} needed charts were made: {first.message}",
        details={
            "manifestGcsUri": manifest_uri,
            "chartTemplateId": failures[0].template_id,
            **(first.details or {}),
        },
    )


def unforeseen(error: Exception) -> StepError:
    """The worker's own fault: no chart's failure, so the step fails as a whole."""
    kind = type(error).__name__
    return StepError(code=ErrorCode.CRASH_LOOP, message=f"The worker failed on this step: unexpected {kind}.")


def given_back(result: ReleaseResult) -> Outcome:
    """As it is told to observers; a step that is not RUNNING under this lease any more is lost."""
    if result.released:
        return Outcome(kind=OutcomeKind.GIVEN_BACK)
    if result.reason == Reason.UNKNOWN:
        return Outcome(kind=OutcomeKind.NOT_GIVEN_BACK, reason=result.reason)
    return Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=result.reason)


def notify_crash_loop(result: ClaimResult, seconds: float) -> None:
    """A step that was failed in the place of a claim is an end too; it is logged where it is decided."""
    if result.reason is Reason.CRASH_LOOP and result.taken_over is not None:
        notify_step_ended(Outcome(kind=OutcomeKind.FAILED, error=crash_loop_of(result.taken_over)), seconds)


def settled(finalized: FinalizeResult, outcome: Outcome) -> Outcome:
    """The outcome asked for, or what Firestore has made of it."""
    if finalized.updated:
        if finalized.status != "FAILED":
            return outcome
        # A result that could not be stored was replaced by a failure.
        error = outcome.error or unstorable(ErrorCode.CRASH_LOOP, manifest_uri=outcome.manifest_uri)
        return replace(outcome, kind=OutcomeKind.FAILED, error=error)
    return replace(outcome, kind=OutcomeKind.FINALIZE_REFUSED, reason=finalized.reason)


def report_outcome(outcome: Outcome, seconds: float) -> None:
    """Tell how the work ended; count and log a step that is finished."""
    notify_step_ended(outcome, seconds)
    if outcome.kind is OutcomeKind.FINALIZE_REFUSED:
        return
    code = outcome.error.code if outcome.error else None
    metrics.STEP_SECONDS.labels(outcome.kind.value).observe(seconds)
    if outcome.kind is OutcomeKind.SUCCEEDED:
        metrics.STEPS_FINISHED.labels("succeeded", "none").inc()
        metrics.LAST_SUCCESS.set_to_current_time()
    else:
        metrics.STEPS_FINISHED.labels("failed", str(code)).inc()
    error = outcome.error
    (log.warning if error else log.info)(
        Event.STEP_COMPLETED,
        f"The step has {outcome.kind}{f': {error.message}' if error else ''}",
        status=outcome.kind.upper(),
        items=outcome.items,
        failures=outcome.failures,
        minImages=outcome.min_images,
        manifestUri=outcome.manifest_uri,
        code=code,
        details=error.details if error else None,
        durationMs=round(seconds * 1000),
    )
