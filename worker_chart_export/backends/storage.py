"""Calls of Cloud Storage that are repeated within a cancel scope."""

from __future__ import annotations

import http.client
import io
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from urllib3.exceptions import HTTPError

from worker_chart_export.backends.call_timer import shared_timer
from worker_chart_export.backends.errors import TRANSIENT, describe_error
from worker_chart_export.backends.http import cancellable_by
from worker_chart_export.errors import STORAGE, BackendUnavailable, OhlcvUnavailable, StepTimedOut
from worker_chart_export.inflation import BrokenGzip, InflatedTooLarge, inflated
from worker_chart_export.observability import metrics
from worker_chart_export.timing import Backoff, span

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from google.cloud.storage import Blob

    from worker_chart_export.backends.http import CancellableCall
    from worker_chart_export.backends.storage_session import Timeout
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import RequestError

CONNECT_TIMEOUT_SECONDS = 5.0
#: The longest pause between two received parts. It is at most half of the time that is left, so that a dead
#: connection can't use up all of it.
READ_TIMEOUT_SECONDS = 30.0
MIN_TIMEOUT_SECONDS = 1.0
BACKOFF = Backoff(low_seconds=0.5, first_seconds=2.0, max_seconds=8.0)
#: No call is repeated with less time than this.
MIN_ATTEMPT_SECONDS = 0.5
#: Errors of the libraries below Google's client that it does not wrap. The others are in TRANSIENT.
UNAVAILABLE = (
    *TRANSIENT,
    DataCorruption,
    HTTPError,
    http.client.HTTPException,
    OSError,  # network errors, and all errors of `requests`
)
#: Statuses that concern the request alone: the bucket and its permissions are fine.
REQUEST_STATUSES = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
)
#: What the statuses of a refusal mean.
REFUSALS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "the name or the content is not allowed",
    HTTPStatus.UNAUTHORIZED: "the credentials are not accepted",
    HTTPStatus.FORBIDDEN: "the account lacks a permission",
    HTTPStatus.NOT_FOUND: "there is no such object or bucket",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "the object is empty",
}

T = TypeVar("T")


def call_storage(
    call: Callable[[Timeout], T], *, name: str, refusal: type[RequestError], scope: CancelScope
) -> T:
    """Make `call` until Cloud Storage answers. Check the scope before each attempt.

    The retries of Google's client can't be cancelled, so they are off and the call is repeated here. All
    calls of this worker are safe to repeat: they only read, or they write with a generation precondition.

    Args:
        call: Gets the `timeout` for its request. It must pass `retry=None` and be safe to repeat.
        name: The object, for messages.
        refusal: The error to raise when Cloud Storage refuses.
        scope: Bounds the attempts, their timeouts and the pauses, and cancels each of them.

    Raises:
        RequestError: `refusal`.
        BackendUnavailable: Cloud Storage was unavailable until the time was used up.
        PreconditionFailed: Google's own error. It answers a question that the caller put.
        StepTimedOut: There was no time left before the first attempt.
        WorkerError: The error that stopped the scope, also in the middle of a call.
    """
    failures = 0
    scope.check()
    while True:
        left = scope.remaining_seconds()
        connect = max(MIN_TIMEOUT_SECONDS, min(CONNECT_TIMEOUT_SECONDS, left))
        read = max(MIN_TIMEOUT_SECONDS, min(READ_TIMEOUT_SECONDS, left / 2))
        try:
            with cancellable_by(scope) as running, _limited(running, left):
                answer = call((connect, read))
                running.check_stopped()  # the answer of a stopped call may be incomplete
        except Exception as error:
            scope.check_stopped()  # the error of a cancelled call is not a failure of its own
            failure = _failure(error, name, refusal)
            if failure is None:
                raise
            failures += 1
            pause = BACKOFF.delay_seconds(failures)
            is_final = not isinstance(failure, BackendUnavailable)
            if is_final or pause + MIN_ATTEMPT_SECONDS >= scope.remaining_seconds():
                raise failure from (None if failure is error else error)
        else:
            scope.check_stopped()
            metrics.count_call("storage", "answered")
            return answer
        try:
            scope.sleep(pause)
        except StepTimedOut:  # the process stood still in the pause
            raise failure from None


def _limited(running: CancellableCall, left: float) -> AbstractContextManager[None]:
    """Stop one attempt when the seconds that are left have passed."""
    seconds = max(MIN_TIMEOUT_SECONDS, left)

    def error() -> BackendUnavailable:
        return BackendUnavailable(STORAGE, f"no whole answer within {span(seconds)}")

    return shared_timer().limit(running, seconds, error)


def _failure(
    error: Exception, name: str, refusal: type[RequestError]
) -> RequestError | BackendUnavailable | None:
    """Translate an error of the client, and count the call. Return None for an error to raise as it is."""
    status = getattr(error, "code", None)
    if isinstance(error, BackendUnavailable):  # the time has ended in the middle of an answer
        metrics.count_call("storage", "unavailable")
        return error
    if isinstance(error, UNAVAILABLE) or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY):
        metrics.count_call("storage", "unavailable")
        return BackendUnavailable(STORAGE, describe_error(error))
    known = (google_errors.GoogleAPICallError, InvalidResponse, auth_errors.GoogleAuthError)
    if not isinstance(error, known):
        if isinstance(error, ObjectUnusable):
            metrics.count_call("storage", "answered")
        return None
    # A candles file that a step names may be missing. Our bucket may not.
    is_missing_candles = status == HTTPStatus.NOT_FOUND and refusal is OhlcvUnavailable
    is_answer = status in REQUEST_STATUSES or is_missing_candles
    metrics.count_call("storage", "answered" if is_answer else "refused")
    if isinstance(error, google_errors.PreconditionFailed):
        return None
    reason = REFUSALS.get(int(status or 0), type(error).__name__)
    return refusal(
        f"Cloud Storage refused {name}: {reason} ({status}).",
        object=name,
        httpStatus=status,
        storage=describe_error(error),
    )


class ObjectUnusable(Exception):
    """An object was read and can't be used."""


class ObjectTooLarge(ObjectUnusable):
    """An object, or what it expands to, is larger than asked for."""


class _LimitedBuffer(io.BytesIO):
    """Take at most `limit` bytes. A download that brings more ends, and with it its connection."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        """Append `data`, or raise `ObjectTooLarge`."""
        if self.tell() + len(data) > self._limit:
            raise ObjectTooLarge
        return super().write(data)


def read_object(blob: Blob, *, max_bytes: int, timeout: Timeout, as_stored: bool = False) -> bytes:
    """Read an object once, and expand it if it is gzip. Its checksum is compared.

    Google's client expands without a limit: of 1.5 MB it makes 1.5 GB.

    Args:
        blob: The object.
        max_bytes: The most bytes that it may have, stored or expanded.
        timeout: The timeouts of the request.
        as_stored: Whether to return gzip as it is stored, once it is checked.

    Raises:
        ObjectTooLarge: It has more than `max_bytes` bytes, as it is stored or as it is expanded.
        ObjectUnusable: It starts like gzip, and is not.
        GoogleAPICallError: Cloud Storage refused, or is unavailable. There are others, see `call_storage`.
    """
    buffer = _LimitedBuffer(max_bytes)
    blob.download_to_file(buffer, raw_download=True, timeout=timeout, retry=None)
    content = buffer.getvalue()
    try:
        expanded = inflated(content, max_bytes=max_bytes)
    except BrokenGzip as error:
        raise ObjectUnusable(str(error)) from error
    except InflatedTooLarge:
        raise ObjectTooLarge from None
    return content if as_stored else expanded
