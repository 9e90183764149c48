"""The log lines about claims and refused finalizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.errors import ErrorCode
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.logs import Event, log

if TYPE_CHECKING:
    from worker_chart_export.ledger.decisions import ClaimResult


def log_claim(result: ClaimResult) -> None:
    """How a claim ended, and whom the step was taken over from."""
    log.info(
        Event.CLAIM_ATTEMPT,
        "Claimed the step" if result.claimed else f"Did not claim the step: {result.reason}",
        claimed=result.claimed,
        status=result.status,
        reason=result.reason,
    )
    if result.reason is Reason.CRASH_LOOP:
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


def log_refusal(reason: str, status: str | None) -> None:
    """A result that was not written, because the step is no longer this worker's to end."""
    log.warning(
        Event.FINALIZE_REFUSED, f"The step's result was not written: {reason}", reason=reason, status=status
    )
