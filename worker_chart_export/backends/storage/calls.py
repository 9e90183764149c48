"""One call to Cloud Storage, made until it has an answer: within the step's time, and stopped with the step.

The Storage client's own retries sleep through a stop, so each call is made without them and repeated here.
All of this worker's calls are safe to repeat: they read, or write against a generation.
"""

from __future__ import annotations

import http.client
import itertools
from typing import TYPE_CHECKING, TypeVar

import urllib3
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from worker_chart_export.backends.errors import TRANSIENT, describe_error
from worker_chart_export.backends.http.stoppable_sockets import cancellable_by
from worker_chart_export.errors import BackendUnavailable, OhlcvUnavailable
from worker_chart_export.observability import metrics
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import RequestError, WorkerError

CONNECT_TIMEOUT_SECONDS = 5.0
#: Between bytes; at most half of the time left, so that a dead connection does not use it all up.
READ_TIMEOUT_SECONDS = 30.0
MIN_TIMEOUT_SECONDS = 1.0
MIN_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 8.0
#: An attempt with less time than this is not made.
MIN_ATTEMPT_SECONDS = 0.5
#: Away, as the libraries below the client say it; those it wraps are in TRANSIENT.
AWAY = (
    *TRANSIENT,
    DataCorruption,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,  # the network's own, and all errors of `requests`
)
REQUEST_TIMEOUT = 408
NOT_FOUND = 404
#: What was asked is wrong, or has changed; the bucket and our rights are well.
OF_THIS_CALL = (400, 412, 416)
#: What the statuses of a refusal mean to a person.
REFUSALS = {
    400: "it takes no such name or content",
    401: "the credentials are not accepted",
    403: "this account may not",
    404: "there is no such object or bucket",
    416: "the object is empty",
}

T = TypeVar("T")
#: The `timeout` of a request, as the client takes it: to connect, and between bytes.
Timeout = tuple[float, float]


class _Away(BackendUnavailable):
    """One call found Cloud Storage away; the next may not."""

    def __init__(self, reason: str) -> None:
        super().__init__("storage", reason)


def ask_storage(
    call: Callable[[Timeout], T], *, name: str, refusal: type[RequestError], scope: CancelScope
) -> T:
    """Make `call` until there is an answer, asking the budget before each attempt.

    Args:
        call: Gets the `timeout` for its request; must pass `retry=None` and be safe to repeat.
        name: What it is about, for messages.
        refusal: The error to raise when Cloud Storage refuses.
        scope: Bounds the attempts, their timeouts and the pauses, and stops all of them.

    Raises:
        RequestError: `refusal`.
        BackendUnavailable: Cloud Storage stays away until the time is over.
        PreconditionFailed: Google's own error; an answer, which its caller asked for.
        StepTimedOut: The time was over before the first attempt.
        WorkerError: What the step was stopped with, also when it was in the middle of a call.
    """
    for failures in itertools.count(1):
        try:
            return _attempt(call, name, refusal, scope)
        except _Away:
            bound = min(MAX_DELAY_SECONDS, 2.0 ** min(failures, 10))
            pause = full_jitter_seconds(low=MIN_DELAY_SECONDS, high=bound)
            if pause + MIN_ATTEMPT_SECONDS >= scope.remaining_seconds():
                raise
            scope.sleep(pause)
    raise AssertionError("unreachable: it counts for ever")


def _attempt(call: Callable[[Timeout], T], name: str, refusal: type[RequestError], scope: CancelScope) -> T:
    scope.check()
    try:
        with cancellable_by(scope):
            answer = call(_timeout(scope))
    except Exception as error:
        scope.check_stopped()  # whatever a stopped call ended in is the stop, and no failure
        ours = _translated(error, name, refusal)
        if ours is None:
            raise
        raise ours from error
    scope.check_stopped()  # the answer of a stopped call may be cut short
    metrics.count_call("storage", "answered")
    return answer


def _timeout(scope: CancelScope) -> Timeout:
    left = scope.remaining_seconds()
    return (
        max(MIN_TIMEOUT_SECONDS, min(CONNECT_TIMEOUT_SECONDS, left)),
        max(MIN_TIMEOUT_SECONDS, min(READ_TIMEOUT_SECONDS, left / 2)),
    )


def _translated(error: Exception, name: str, refusal: type[RequestError]) -> WorkerError | None:
    """Tell an absent Cloud Storage (ask again) from one that refuses (this request fails); None = neither."""
    status = getattr(error, "code", None)
    if isinstance(error, AWAY) or status == REQUEST_TIMEOUT:
        metrics.count_call("storage", "unavailable")
        return _Away(describe_error(error))
    known = (google_errors.GoogleAPICallError, InvalidResponse, auth_errors.GoogleAuthError)
    if not isinstance(error, known):
        return None
    metrics.count_call("storage", "answered" if _is_of_this_call(status, refusal) else "refused")
    if isinstance(error, google_errors.PreconditionFailed):
        return None
    why = REFUSALS.get(int(status or 0), type(error).__name__)
    return refusal(
        f"Cloud Storage refused {name}: {why} ({status}).",
        object=name,
        httpStatus=status,
        storage=describe_error(error),
    )


def _is_of_this_call(status: object, refusal: type[RequestError]) -> bool:
    """Whether an answer concerns one call only: a file that a step names may be missing, our bucket not."""
    return status in OF_THIS_CALL or (status == NOT_FOUND and refusal is OhlcvUnavailable)
