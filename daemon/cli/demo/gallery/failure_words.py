"""What the codes of failures mean, in words. Pure."""

from __future__ import annotations

from worker_chart_export.errors import ErrorCode

MEANINGS = {
    ErrorCode.VALIDATION_FAILED: "What was asked for can't be made as it is written",
    ErrorCode.CHART_API_FAILED: "The chart provider did not deliver",
    ErrorCode.CHART_API_LIMIT_EXCEEDED: "Every account's quota is used up",
    ErrorCode.CHART_API_MOCK_MISSING: "There is no recorded chart for this request",
    ErrorCode.CHART_TOO_LARGE: "The picture is larger than allowed",
    ErrorCode.OHLCV_UNAVAILABLE: "The candles could not be read",
    ErrorCode.RENDER_FAILED: "The chart could not be drawn as asked",
    ErrorCode.GCS_WRITE_FAILED: "Cloud Storage took no picture",
    ErrorCode.MANIFEST_WRITE_FAILED: "The manifest could not be written",
    ErrorCode.STEP_TIMEOUT: "The step's time was over",
    ErrorCode.CRASH_LOOP: "The step was given up after too many tries, or on a fault of the worker's own",
}


def meaning(code: str) -> str:
    """One sentence about a code, without its full stop; of a code nobody knows, that it is unknown."""
    return MEANINGS[ErrorCode(code)] if code in set(ErrorCode) else "A code this page does not know"
