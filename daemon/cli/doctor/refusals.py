"""What a backend's error means to the person who has to mend it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api_core import exceptions as google_errors

from daemon.cli.doctor.results import failure
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.errors import BackendUnavailable, StepTimedOut, WorkerError

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult

LOG_IN = "gcloud auth application-default login   (or run as a service account)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mends:
    """What mends each kind of error of one backend.

    Attributes:
        missing: What was asked for is not there.
        forbidden: This account may not.
        emulator: The emulator's address, if one is used.
    """

    missing: str = ""
    forbidden: str = ""
    emulator: str | None = None

    def of(self, error: BaseException) -> str:
        """The mend for this error; empty when none is known."""
        cause = error.__cause__
        if isinstance(error, BackendUnavailable | StepTimedOut):
            return reach(self.emulator)
        if isinstance(cause, google_errors.NotFound):
            return self.missing
        if isinstance(cause, google_errors.Forbidden):
            return self.forbidden
        no_credentials = cause is None or isinstance(cause, google_errors.Unauthorized)
        return LOG_IN if no_credentials else ""


def reach(emulator: str | None) -> str:
    """What mends a backend that does not answer."""
    if emulator:
        return f"start the emulator, or correct the variable that says {emulator}"
    return "let this machine reach googleapis.com on port 443 (firewall, proxy, NetworkPolicy)"


def refused(check: str, error: WorkerError, mends: Mends) -> CheckResult:
    """The failure that an error of a backend is."""
    return failure(check, f"{error}{_last_trouble(error)}", mends.of(error))


def _last_trouble(error: WorkerError) -> str:
    """What the client met each time that it tried, where its own error only says that it tried."""
    cause = error.__cause__
    last = cause.cause if isinstance(cause, google_errors.RetryError) else None
    return f", last {describe_error(last)}" if last is not None else ""
