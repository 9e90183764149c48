"""Every error this worker raises on purpose.

The tree::

    WorkerError
    ├── RequestError                 one chart request failed: becomes a `failures[]` entry
    │   ├── ValidationFailed         VALIDATION_FAILED
    │   ├── ChartApiFailed           CHART_API_FAILED
    │   ├── ChartApiLimitExceeded    CHART_API_LIMIT_EXCEEDED
    │   ├── ChartApiMockMissing      CHART_API_MOCK_MISSING
    │   ├── ChartTooLarge            CHART_TOO_LARGE
    │   ├── OhlcvUnavailable         OHLCV_UNAVAILABLE
    │   ├── RenderFailed             RENDER_FAILED
    │   ├── ObjectRefused            GCS_WRITE_FAILED
    │   ├── ManifestRefused          MANIFEST_WRITE_FAILED
    │   └── StepTimedOut             STEP_TIMEOUT
    ├── RunInvalid                   the run document itself can't be read as a flow run
    ├── Interrupted                  the work was told to stop; no failure of the step
    ├── LeaseLost                    the step is no longer this worker's; it writes and pays for nothing more
    ├── BackendUnavailable           Firestore or Cloud Storage is away: give the step back, try later
    ├── IndexMissing                 expired leases can't be found until somebody deploys the index
    └── BackendRefused               Firestore or Cloud Storage said no, and will say no again

A RequestError carries the stable `code` that readers of the run and the manifest see.
`retryable` says whether the same call can succeed later without anybody changing anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

MAX_MESSAGE_CHARS = 500
MAX_DETAILS_BYTES = 2048


class ErrorCode(StrEnum):
    """The codes that may stand in a step's `error.code` and in `failures[].error.code`."""

    VALIDATION_FAILED = "VALIDATION_FAILED"
    CHART_API_FAILED = "CHART_API_FAILED"
    CHART_API_LIMIT_EXCEEDED = "CHART_API_LIMIT_EXCEEDED"
    CHART_API_MOCK_MISSING = "CHART_API_MOCK_MISSING"
    CHART_TOO_LARGE = "CHART_TOO_LARGE"
    OHLCV_UNAVAILABLE = "OHLCV_UNAVAILABLE"
    RENDER_FAILED = "RENDER_FAILED"
    GCS_WRITE_FAILED = "GCS_WRITE_FAILED"
    MANIFEST_WRITE_FAILED = "MANIFEST_WRITE_FAILED"
    STEP_TIMEOUT = "STEP_TIMEOUT"
    CRASH_LOOP = "CRASH_LOOP"


@dataclass(frozen=True, slots=True)
class StepError:
    """An error as the run document and the manifest hold it.

    `message` is one plain sentence, cut at 500 characters; `details` is what a person needs to act,
    cut at 2 KiB of JSON. Both are cut by `to_dict`, so nothing larger ever leaves the worker.
    """

    code: str
    message: str
    details: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object `{code, message, details?}` within the size limits."""
        document: dict[str, Any] = {"code": str(self.code), "message": _shorten(self.message)}
        details = _fitting_details(self.details or {})
        return document | ({"details": details} if details else {})


def shown(value: object, limit: int = 80) -> str:
    """A value as an error message shows it: short, and never with raw control characters."""
    try:
        text = "nothing" if value is None else ascii(value)
    except RecursionError:  # nested more deeply than can be shown, though not than can be parsed
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shorten(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    sentence = _storable(" ".join(text.split())) or "no message"
    return sentence if len(sentence) <= limit else sentence[: limit - 1] + "…"


def _storable(value: Any) -> Any:
    """The value with lone surrogates replaced: others' JSON may hold them, Firestore and UTF-8 can't."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else _storable(str(value))


def _fitting_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the details that fit, in the order given; a value too long alone is shortened as text."""
    kept: dict[str, Any] = {}
    for key, value in _storable(details).items():
        for candidate in (value, _shorten(str(value))):
            if _json_bytes(kept | {key: candidate}) <= MAX_DETAILS_BYTES:
                kept[key] = candidate
                break
    return kept


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


class WorkerError(Exception):
    """The base of all errors raised on purpose."""

    retryable: ClassVar[bool] = False


class RequestError(WorkerError):
    """One chart request, or the step as a whole, ends in failure with a code readers know.

    Args:
        message: One plain sentence for a person.
        details: Whatever the person needs to act on it, JSON-serialisable, never a secret.
    """

    code: ClassVar[ErrorCode]

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_step_error(self) -> StepError:
        """This failure in the form that is stored."""
        return StepError(code=self.code, message=self.message, details=self.details)


class ValidationFailed(RequestError):
    """The step, the request or its template is not what the contract asks for."""

    code = ErrorCode.VALIDATION_FAILED


class ChartApiFailed(RequestError):
    """Chart-IMG did not give a usable picture, retries included."""

    code = ErrorCode.CHART_API_FAILED


class ChartApiLimitExceeded(RequestError):
    """Every Chart-IMG account is used up or disabled."""

    code = ErrorCode.CHART_API_LIMIT_EXCEEDED


class ChartApiMockMissing(RequestError):
    """No fixture stands where `mock` mode looks for one."""

    code = ErrorCode.CHART_API_MOCK_MISSING


class ChartTooLarge(RequestError):
    """The picture is larger than its readers accept."""

    code = ErrorCode.CHART_TOO_LARGE


class OhlcvUnavailable(RequestError):
    """There are no usable price candles for a chart that is to be drawn here."""

    code = ErrorCode.OHLCV_UNAVAILABLE


class RenderFailed(RequestError):
    """The chart can't be drawn here as its template asks."""

    code = ErrorCode.RENDER_FAILED


class ObjectRefused(RequestError):
    """Cloud Storage refused to store a picture, for good."""

    code = ErrorCode.GCS_WRITE_FAILED


class ManifestRefused(RequestError):
    """The manifest could not be stored, for good."""

    code = ErrorCode.MANIFEST_WRITE_FAILED


class StepTimedOut(RequestError):
    """The step's time budget ended before this request did."""

    code = ErrorCode.STEP_TIMEOUT


class RunInvalid(WorkerError):
    """The flow run, or the part of it that is needed, is not shaped like one."""


class Interrupted(WorkerError):
    """The work was stopped from outside: a third outcome beside success and failure."""

    retryable = True


class LeaseLost(WorkerError):
    """The lease on the step was taken, or ended before it was renewed."""


class BackendUnavailable(WorkerError):
    """A backend the step can't do without is away; the step is given back and tried later."""

    retryable = True

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend} is unavailable: {reason}")
        self.backend = backend


class IndexMissing(WorkerError):
    """The collection-group index that finds expired leases is missing; neither a lost race nor an outage."""


class BackendRefused(WorkerError):
    """A backend refused for a reason that waiting won't mend (permission, missing database, bad request)."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend} refused: {reason}")
        self.backend = backend
