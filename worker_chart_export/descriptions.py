"""Plain text for the error codes and reasons that people see: one table for commands and pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.errors import ErrorCode
from worker_chart_export.ledger.decisions import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Code or reason -> text, in lower case and without a full stop.
DESCRIPTIONS: Mapping[str, str] = {
    ErrorCode.VALIDATION_FAILED: "the request is not valid",
    ErrorCode.CHART_API_FAILED: "the chart provider did not deliver the chart",
    ErrorCode.CHART_API_LIMIT_EXCEEDED: "the quota of every account is used up",
    ErrorCode.CHART_API_MOCK_MISSING: "there is no recorded chart for this request",
    ErrorCode.CHART_TOO_LARGE: "the picture is larger than allowed",
    ErrorCode.OHLCV_UNAVAILABLE: "the price candles could not be read",
    ErrorCode.RENDER_FAILED: "the local renderer could not draw the chart",
    ErrorCode.GCS_WRITE_FAILED: "Cloud Storage refused to store the picture",
    ErrorCode.MANIFEST_WRITE_FAILED: "the manifest could not be stored",
    ErrorCode.STEP_TIMEOUT: "the time limit was reached",
    ErrorCode.CRASH_LOOP: "the step had too many attempts, or the worker failed on it",
    Reason.RUN_MISSING: "the run does not exist",
    Reason.RUN_FINAL: "the run has ended",
    Reason.STEP_MISSING: "the step is not in its run",
    Reason.OTHER_TYPE: "the step is not a CHART_EXPORT step",
    Reason.STEP_FINAL: "the step has already ended",
    Reason.STEP_RUNNING: "another worker holds the step",
    Reason.STEP_PENDING: "the step is not READY yet",
    Reason.DEPENDS_ON: "a step that it depends on has not succeeded",
    Reason.NOT_RUNNING: "the step is not RUNNING any more",
    Reason.UNLEASED: "the step is RUNNING without a lease",
    Reason.CRASH_LOOP: "the step had too many attempts",
    Reason.REFUSED: "Firestore refused to store the claim",
    Reason.FENCED: "another worker has taken the step over",
    Reason.LEASE_LOST: "the lease expired, or could not be renewed in time",
    Reason.NOT_FAILED: "the step is not FAILED",
    Reason.CHANGED: "the step has changed since it was read",
    Reason.RELEASED: "the step is released already",
    Reason.UNKNOWN: "Firestore did not confirm the result",
}


def describe(code: str) -> str:
    """Describe an error code or a reason; an unknown one gives an empty text."""
    return DESCRIPTIONS.get(code, "")
