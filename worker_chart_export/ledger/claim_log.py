"""What is logged, counted and told to observers of claims and finalizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.errors import ErrorCode
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import annotate

if TYPE_CHECKING:
    from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult


def log_claim(result: ClaimResult, attempt: int | None) -> None:
    """How a claim ended, which attempt of the step it is, and whom the step was taken over from."""
    metrics.CLAIMS.labels(_ended(result)).inc()
    _annotate_claim(result, attempt)
    log.info(
        Event.CLAIM_ATTEMPT,
        "Claimed the step" if result.claimed else f"Did not claim the step: {result.reason}",
        claimed=result.claimed,
        status=result.status,
        reason=result.reason,
    )
    if result.reason is Reason.CRASH_LOOP:
        metrics.STEPS_FINISHED.labels("failed", ErrorCode.CRASH_LOOP.value).inc()
        log.error(
            Event.STEP_COMPLETED,
            "Failed the step: too many of its workers ended or froze",
            status=result.status,
            code=ErrorCode.CRASH_LOOP,
        )
    elif result.claimed and result.taken_over is not None:
        log.warning(
            Event.LEASE_TAKEN_OVER,
            "Took the step over, its lease was over",
            formerOwner=result.taken_over.owner,
            formerAttempt=result.taken_over.attempt,
        )


def _annotate_claim(result: ClaimResult, attempt: int | None) -> None:
    known: dict[str, str | int] = {"result": _ended(result)}
    if attempt is not None:
        known["attempt"] = attempt
    if result.taken_over is not None:
        known["formerOwner"] = result.taken_over.owner
    annotate(**known)


def _ended(result: ClaimResult) -> str:
    if not result.claimed:
        return str(result.reason)
    return "won" if result.taken_over is None else "taken_over"


def log_finalize(result: FinalizeResult) -> None:
    """How a finalize ended."""
    if result.updated:
        metrics.FINALIZES.labels("written").inc()
    else:
        log_refusal(str(result.reason), result.status)


def log_refusal(reason: str, status: str | None) -> None:
    """A result that was not written, because the step is no longer this worker's to end."""
    metrics.FINALIZES.labels(reason).inc()
    log.warning(
        Event.FINALIZE_REFUSED, f"The step's result was not written: {reason}", reason=reason, status=status
    )
