"""Errors of Google's clients, translated into the errors of this worker."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry, if_exception_type
from google.auth import exceptions as auth_errors

from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a backend answers when it is away, overloaded or slow; the same call may succeed later.
TRANSIENT = (
    google_errors.TooManyRequests,  # gRPC ResourceExhausted and HTTP 429
    google_errors.ServerError,  # 5xx, gRPC Unavailable, DeadlineExceeded, Internal, Unknown, DataLoss
    google_errors.Aborted,
    google_errors.Cancelled,
    google_errors.RetryError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    auth_errors.TransportError,
    auth_errors.RefreshError,  # Workload Identity may not be ready yet when a pod starts
)

#: Reads are safe to repeat: the client does so for this long.
READ_RETRY = Retry(
    predicate=if_exception_type(google_errors.ServiceUnavailable, google_errors.InternalServerError),
    initial=0.1,
    maximum=2.0,
    timeout=10.0,
)
READ_TIMEOUT_SECONDS = 10.0
COMMIT_TIMEOUT_SECONDS = 10.0


@contextmanager
def backend_errors(backend: str) -> Iterator[None]:
    """Turn a Google client's errors into ours, around one call, which is counted.

    Raises:
        BackendUnavailable: Away or overloaded; the same call may succeed later.
        BackendRefused: Refused; somebody has to change something first.
    """
    try:
        yield
    except TRANSIENT as error:
        metrics.count_call(backend, "unavailable")
        raise BackendUnavailable(backend, describe_error(error)) from error
    except (google_errors.GoogleAPICallError, auth_errors.GoogleAuthError) as error:
        metrics.count_call(backend, "refused")
        raise BackendRefused(backend, describe_error(error)) from error
    metrics.count_call(backend, "answered")


@contextmanager
def client_errors(backend: str) -> Iterator[None]:
    """Whatever opening a Google client ends in is a refusal: credentials, certificates, settings.

    Raises:
        BackendRefused: Says the kind of error; its words only when they are Google's own, because those of
            others may quote a credentials file.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        ours = isinstance(error, auth_errors.GoogleAuthError)
        words = describe_error(error) if ours else type(error).__name__
        raise BackendRefused(backend, f"its client can't be opened: {words}") from None


def describe_error(error: BaseException) -> str:
    """An error as one short line: its kind and the backend's own words."""
    words = " ".join(str(getattr(error, "message", None) or error).split())
    return f"{type(error).__name__}: {words}"[:300]
