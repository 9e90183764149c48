"""The errors that this worker raises on purpose.

The tree, with the stable code that readers of the run and the manifest see::

    WorkerError
    ├── RequestError                 one chart request failed; it becomes a `failures[]` entry
    │   ├── ValidationFailed         VALIDATION_FAILED
    │   ├── ChartApiFailed           CHART_API_FAILED
    │   ├── ChartApiLimitExceeded    CHART_API_LIMIT_EXCEEDED
    │   ├── ChartApiMockMissing      CHART_API_MOCK_MISSING
    │   ├── ChartTooLarge            CHART_TOO_LARGE
    │   ├── OhlcvUnavailable         OHLCV_UNAVAILABLE
    │   ├── RenderFailed             RENDER_FAILED
    │   ├── ObjectRefused            GCS_WRITE_FAILED
    │   ├── ManifestRefused          MANIFEST_WRITE_FAILED
    │   ├── StepTimedOut             STEP_TIMEOUT
    │   └── OutOfReach               the code of the failure that came first
    ├── RunInvalid                   the run document, or a step of it, is invalid
    ├── Interrupted                  the work was stopped; this is no failure of the step
    ├── LeaseLost                    another worker has the step; this one writes and pays for nothing more
    ├── StepNotClaimed               another worker has the step, or it may not be worked on now
    ├── StepEnded                    a method of a step that has its result, or is not held any more
    ├── StepNotFinished              the work on a step ended without a result and without an error
    ├── BackendUnavailable           Firestore or Cloud Storage does not answer; release the step, try later
    │   ├── BucketUnusable           the charts bucket takes no object at all
    │   └── AccountsExhausted        no Chart-IMG account is left, and the step waits for one
    ├── IndexMissing                 expired leases can't be found until the index is deployed
    └── BackendRefused               Firestore or Cloud Storage refuses, and will refuse again
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal, Self, TypeVar

MAX_MESSAGE_CHARS = 500
MAX_DETAILS_BYTES = 2048
#: How the message of a request that was not tried begins; see `OutOfReach`.
NOT_MADE = "Not made:"
#: The backends of this package, where errors name a backend. A worker of another type has others.
BackendName = Literal["firestore", "storage", "pubsub", "accounts", "machine"]
FIRESTORE: Final = "firestore"
STORAGE: Final = "storage"
#: The Chart-IMG accounts, where other errors name a backend.
ACCOUNTS: Final = "accounts"
#: The operator who paused the fleet, where other pauses name a backend.
OPERATOR: Final = "operator"


class ErrorCode(StrEnum):
    """The values of a step's `error.code` and of `failures[].error.code`."""

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
    """An error as it is stored in the run document and the manifest.

    Attributes:
        code: One of `ErrorCode`.
        message: One plain sentence. `to_dict` cuts it at 500 characters.
        details: What a person needs to correct the error. `to_dict` cuts it at 2 KiB of JSON.
    """

    code: str
    message: str
    details: Mapping[str, Any] | None = None

    def with_details(self, details: Mapping[str, Any]) -> Self:
        """Return this error with more details. They come first, so that they are not cut; its own win."""
        own = self.details or {}
        return replace(self, details={**details, **own})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object `{code, message, details?}` within the size limits."""
        document: dict[str, Any] = {"code": str(self.code), "message": _shorten(self.message)}
        details = _fitting_details(self.details or {})
        return document | ({"details": details} if details else {})


def shown(value: object, limit: int = 80) -> str:
    """Return a value as error messages show it: short, and without raw control characters."""
    try:
        text = "nothing" if value is None else ascii(value)
    except RecursionError:  # nested too deeply for `ascii`
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def visible(text: object) -> str:
    """Replace control characters and invisible characters with escapes, so that a terminal prints them."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _shorten(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    sentence = visible(_storable(" ".join(text.split()))) or "no message"
    return sentence if len(sentence) <= limit else sentence[: limit - 1] + "…"


def _storable(value: Any) -> Any:
    """Replace lone surrogates: JSON may hold them, Firestore and UTF-8 can't."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else _storable(str(value))


def _fitting_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the details that fit, in their order. Try a value that is too long as shortened text."""
    kept: dict[str, Any] = {}
    for key, value in _storable(details).items():
        for candidate in (value, _shorten(str(value))):
            encoded = json.dumps(kept | {key: candidate}, ensure_ascii=False).encode()
            if len(encoded) <= MAX_DETAILS_BYTES:
                kept[key] = candidate
                break
    return kept


class WorkerError(Exception):
    """The base of all errors raised on purpose."""


class RequestError(WorkerError):
    """One chart request, or the step as a whole, fails with a stable code.

    Args:
        message: One plain sentence for a person.
        details: What the person needs to correct it. JSON-serialisable, never a secret.
    """

    code: ErrorCode

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_step_error(self) -> StepError:
        """Return this error in the form that is stored."""
        return StepError(code=self.code, message=self.message, details=self.details)


class ValidationFailed(RequestError):
    """The step, the request or its template breaks the contract."""

    code = ErrorCode.VALIDATION_FAILED


class ChartApiFailed(RequestError):
    """Chart-IMG did not give a usable picture, retries included."""

    code = ErrorCode.CHART_API_FAILED


class ChartApiLimitExceeded(RequestError):
    """No Chart-IMG account is left: each is used up, refused, or on too small a plan."""

    code = ErrorCode.CHART_API_LIMIT_EXCEEDED


class ChartApiMockMissing(RequestError):
    """Mode `mock` found no fixture for the request."""

    code = ErrorCode.CHART_API_MOCK_MISSING


class ChartTooLarge(RequestError):
    """The picture is larger than its readers accept."""

    code = ErrorCode.CHART_TOO_LARGE


class OhlcvUnavailable(RequestError):
    """There are no usable price candles for a chart that this worker draws itself."""

    code = ErrorCode.OHLCV_UNAVAILABLE


class RenderFailed(RequestError):
    """This worker can't draw the chart as its template requires."""

    code = ErrorCode.RENDER_FAILED


class ObjectRefused(RequestError):
    """Cloud Storage refuses to store a picture."""

    code = ErrorCode.GCS_WRITE_FAILED


class ManifestRefused(RequestError):
    """The manifest is invalid, too large, or refused by Cloud Storage."""

    code = ErrorCode.MANIFEST_WRITE_FAILED


class StepTimedOut(RequestError):
    """The step's time ended before this request was done."""

    code = ErrorCode.STEP_TIMEOUT


class OutOfReach(RequestError):
    """The chart was not made: after other failures the step can't get as many charts as it needs."""

    @classmethod
    def after(cls, code: ErrorCode, template_id: str, *, min_images: int) -> Self:
        """Make the error of a request that is not tried.

        Args:
            code: The code of the step's first failure.
            template_id: The template of that failure.
            min_images: How many charts the step needs.
        """
        error = cls(f"{NOT_MADE} minImages {min_images} is out of reach after the failure of {template_id}.")
        error.code = code
        return error


class RunInvalid(WorkerError):
    """The flow run, or the part of it that is needed, is invalid."""


class Interrupted(WorkerError):
    """The work was stopped from outside. The step has neither succeeded nor failed."""


class LeaseLost(WorkerError):
    """Another worker took the step, or the lease expired before it was renewed."""


#: The statuses of a step.
StepStatusName = Literal["PENDING", "READY", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"]
#: Why `claim_step` did not claim a step.
NotClaimedReason = Literal[
    "run_missing",
    "run_final",
    "step_missing",
    "other_type",
    "step_final",
    "step_running",
    "step_pending",
    "depends_on",
    "unleased",
    "crash_loop",
    "refused",
]


class StepNotClaimed(WorkerError):
    """`claim_step` did not claim the step. This caller must not work on it.

    Attributes:
        run_id: The run.
        step_id: The step.
        reason: Why. `step_running`: another worker holds it, or its last one released it for later.
            `unleased`: a worker without a lease runs it. `crash_loop`, `refused`: this claim made it FAILED.
        status: The status of the step, or None when there is no such step.
        retry_after_seconds: When to try again: the rest of the other worker's lease (1 s or more), 10 s for a
            step that is missing or not ready yet, 60 s for one without a lease. None: the caller need not try
            again, because the step has ended or is of another type.
    """

    def __init__(
        self,
        *,
        run_id: str,
        step_id: str,
        reason: NotClaimedReason,
        status: StepStatusName | None,
        retry_after_seconds: float | None,
    ) -> None:
        super().__init__(f"step {step_id} of run {run_id} was not claimed: {reason} (status: {status})")
        self.run_id = run_id
        self.step_id = step_id
        self.reason = reason
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class StepEnded(WorkerError):
    """A method was called on a step that has its result already, or that this process does not hold."""


class StepNotFinished(WorkerError):
    """The block of `with claim_step(...)` has a mistake: it ended without a result and without an error."""


class BackendUnavailable(WorkerError):
    """A backend that the step needs is unavailable. The step is released and tried later."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend} is unavailable: {reason}")
        self.backend = backend


class BucketUnusable(BackendUnavailable):
    """The charts bucket takes no object at all: it is missing, or every object is forbidden."""

    def __init__(self, bucket: str, reason: str) -> None:
        WorkerError.__init__(self, f"{bucket} takes no objects: {reason}")
        self.backend = "storage"


class AccountsExhausted(BackendUnavailable):
    """No Chart-IMG account is left now, and the step waits for one (`CHARTS_WHEN_EXHAUSTED=wait`).

    It is released, however often and for however long that lasts. Its stored charts are used again.

    Args:
        reason: Why, for each account.
        is_for_all: No chart can be made. Else an account is left, but its plan is too small for this chart.
    """

    def __init__(self, reason: str, *, is_for_all: bool = True) -> None:
        WorkerError.__init__(self, reason)
        self.backend = ACCOUNTS
        self.is_for_all = is_for_all


class IndexMissing(WorkerError):
    """The collection-group index that finds expired leases is missing."""


class BackendRefused(WorkerError):
    """A backend refuses, and will refuse again: no permission, no database, a bad request."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend} refused: {reason}")
        self.backend = backend


E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Return an error without the calls that led to it. Its causes are kept, without theirs.

    The frames of the calls hold all that was read for them, and their callers' frames too. Where one of them
    also holds the error, as in gRPC's interceptors and in a queue, that is a cycle. It stays in memory until
    Python's next full garbage collection, which is rare when little but large things are made.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = link.__context__ = None
        link = link.__cause__
    return error
