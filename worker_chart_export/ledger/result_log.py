"""Log and count the results of claims and finalizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.ledger.intents import claim_error
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import annotate

if TYPE_CHECKING:
    from worker_chart_export.ledger.decisions import ClaimResult
    from worker_chart_export.ledger.lease import Lease


def operators_of(lease: Lease | None, taken_over: Lease | None) -> dict[str, str]:
    """Return the names for log lines of the operators who retried the step or released its last lease."""
    named = {
        "retriedBy": lease.retried_by if lease else "",
        "releasedBy": taken_over.released_by if taken_over else "",
    }
    return {name: operator for name, operator in named.items() if operator}


def log_claim(result: ClaimResult, attempt: int | None) -> None:
    """Log and count the result of a claim. `attempt` is that of the lease, if the claim was won."""
    outcome = str(result.reason)
    if result.claimed:
        outcome = "won" if result.taken_over is None else "taken_over"
    metrics.CLAIMS.labels(outcome).inc()
    facts: dict[str, str | int] = {"result": outcome}
    if attempt is not None:
        facts["attempt"] = attempt
    if result.taken_over is not None:
        facts["formerOwner"] = result.taken_over.owner
    annotate(**facts)
    log.info(
        Event.CLAIM_ATTEMPT,
        "Claimed the step" if result.claimed else f"Did not claim the step: {result.reason}",
        claimed=result.claimed,
        status=result.status,
        reason=result.reason,
    )
    if result.has_failed_the_step:
        error = claim_error(result)
        metrics.STEPS_FINISHED.labels("failed", error.code).inc()
        log.error(
            Event.STEP_COMPLETED,
            f"Failed the step: {error.message}",
            status=result.status,
            code=error.code,
        )
    elif result.claimed and result.taken_over is not None:
        log.warning(
            Event.LEASE_TAKEN_OVER,
            "Took the step over: its lease had expired",
            formerOwner=result.taken_over.owner,
            formerAttempt=result.taken_over.attempt,
        )


def log_finalize(*, updated: bool, reason: str | None, status: str | None) -> None:
    """Count the result of a finalize. Log a result that was not written."""
    metrics.FINALIZES.labels("written" if updated else str(reason)).inc()
    if not updated:
        log.warning(
            Event.FINALIZE_REFUSED,
            f"The step's result was not written: {reason}",
            reason=reason,
            status=status,
        )
