"""Translate the errors of Google's clients into the errors of this worker."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import requests
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry, if_exception_type
from google.auth import exceptions as auth_errors

from worker_chart_export.backends.access_tokens import drop_refused_tokens
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_chart_export.errors import BackendName

#: Errors of a backend that is unavailable, overloaded or slow. The same call may succeed later.
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

#: Reads are safe to repeat. The client repeats them for `timeout` seconds.
READ_RETRY = Retry(
    predicate=if_exception_type(google_errors.ServiceUnavailable, google_errors.InternalServerError),
    initial=0.1,
    maximum=2.0,
    timeout=10.0,
)
READ_TIMEOUT_SECONDS = 10.0
#: Python's words when the system refuses a thread. gRPC starts one for a stream of answers.
NO_MORE_THREADS = "can't start new thread"
COMMIT_TIMEOUT_SECONDS = 10.0
#: The name under which a lack of resources of this machine is a backend that is unavailable.
MACHINE: Final = "machine"
#: The system has no more descriptors, buffers or memory for this process.
NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@contextmanager
def backend_errors(backend: BackendName) -> Iterator[None]:
    """Translate the errors of one call of a Google client, and count the call.

    Raises:
        BackendUnavailable: The backend is unavailable or overloaded. The same call may succeed later.
        BackendRefused: The backend refuses, and a retry does not help.
    """
    try:
        yield
    except TRANSIENT as error:
        metrics.count_call(backend, "unavailable")
        raise BackendUnavailable(backend, describe_error(error)) from error
    except (google_errors.GoogleAPICallError, auth_errors.GoogleAuthError) as error:
        metrics.count_call(backend, "refused")
        drop_refused_tokens(error)
        raise BackendRefused(backend, describe_error(error)) from error
    except RuntimeError as error:
        if not lacks_resources(error):
            raise
        # The call was not made. That is the fault of this machine, not of the step.
        raise BackendUnavailable(backend, NO_MORE_THREADS) from error
    metrics.count_call(backend, "answered")


def lacks_resources(error: BaseException) -> bool:
    """Return whether an error says that this machine has no more descriptors, memory or threads."""
    if isinstance(error, OSError):
        return error.errno in NO_RESOURCES
    is_thread = isinstance(error, RuntimeError) and str(error) == NO_MORE_THREADS
    return is_thread or isinstance(error, MemoryError)


@contextmanager
def machine_errors() -> Iterator[None]:
    """Raise a lack of resources as an unavailable backend: no work is at fault.

    Raises:
        BackendUnavailable: The machine has no more descriptors, memory or threads.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if not lacks_resources(error):
            raise
        raise BackendUnavailable(MACHINE, describe_error(error)) from error


@contextmanager
def client_errors(backend: BackendName) -> Iterator[None]:
    """Translate each error of opening a Google client: credentials, certificates, settings.

    Raises:
        BackendRefused: Names the kind of error. Its message is shown only when it is Google's own, because
            that of another library may quote a credentials file.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        is_google = isinstance(error, auth_errors.GoogleAuthError)
        description = describe_error(error) if is_google else type(error).__name__
        raise BackendRefused(backend, f"its client can't be opened: {description}") from None


def describe_error(error: BaseException) -> str:
    """Describe an error in one short line: its class and its message.

    An error that only says that repeated calls ran out of time is described by the error of the last call.
    """
    if isinstance(error, google_errors.RetryError) and error.cause is not None:
        error = error.cause
    message = " ".join(str(getattr(error, "message", None) or error).split())
    return f"{type(error).__name__}: {message}"[:300]
