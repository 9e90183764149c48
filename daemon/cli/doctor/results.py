"""The results of checks: one result, the report of all, and how errors of backends become results. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from google.api_core import exceptions as google_errors

from daemon.exit import ExitCode
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.errors import BackendUnavailable, StepTimedOut

if TYPE_CHECKING:
    from worker_chart_export.errors import WorkerError

LOG_IN = "gcloud auth application-default login   (or run as a service account)"


class Status(StrEnum):
    """The status of a check."""

    OK = "ok"
    """The daemon can work with this."""
    WARNING = "warning"
    """The daemon can work, but this will cause problems later."""
    FAILURE = "failure"
    """The daemon, or a part of it, can't work."""
    NOT_CHECKABLE = "not_checkable"
    """The check is not possible here: an emulator lacks the feature, or this account may not read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: The stable id of the check.
        status: The status.
        summary: What was found, with the value.
        fix: The command or setting that solves the problem; empty if there is none.
        left_over: What the check wrote, if it may not have been deleted.
    """

    check: str
    status: Status
    summary: str
    fix: str = ""
    left_over: str = ""

    def __str__(self) -> str:
        text = self.summary
        if self.status is Status.NOT_CHECKABLE:
            text = f"not checkable here: {text}"
        return f"{text}; {self.left_over} may be left over" if self.left_over else text


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """All results, in the order in which they are shown.

    Attributes:
        results: One or more results for each check.
        settings_are_good: Whether the daemon would start with these settings.
    """

    results: tuple[CheckResult, ...]
    settings_are_good: bool

    @property
    def exit_code(self) -> ExitCode:
        """2 for bad settings, otherwise 3 if a check failed."""
        if not self.settings_are_good:
            return ExitCode.BAD_SETTINGS
        return ExitCode.REFUSED if self.count(Status.FAILURE) else ExitCode.OK

    @property
    def result(self) -> Status:
        """The worst status of all."""
        return next((status for status in (Status.FAILURE, Status.WARNING) if self.count(status)), Status.OK)

    def count(self, status: Status) -> int:
        """Count the results with this status."""
        return sum(result.status is status for result in self.results)


def ok(check: str, summary: str) -> CheckResult:
    """Return a result without a problem."""
    return CheckResult(check=check, status=Status.OK, summary=summary)


def warning(check: str, summary: str, fix: str) -> CheckResult:
    """Return a result with a problem that does not stop the daemon."""
    return CheckResult(check=check, status=Status.WARNING, summary=summary, fix=fix)


def failure(check: str, summary: str, fix: str = "") -> CheckResult:
    """Return a result with a problem that stops the daemon or a part of it."""
    return CheckResult(check=check, status=Status.FAILURE, summary=summary, fix=fix)


def not_checkable(check: str, why: str, fix: str = "") -> CheckResult:
    """Return a result for a check that is not possible here; `fix` says how to check by other means."""
    return CheckResult(check=check, status=Status.NOT_CHECKABLE, summary=why, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixes:
    """The fix for each kind of error of one backend.

    Attributes:
        missing: The fix if the resource does not exist.
        forbidden: The fix if this account lacks the permission.
        emulator: The emulator's address, if one is used.
    """

    missing: str = ""
    forbidden: str = ""
    emulator: str | None = None

    def for_error(self, error: BaseException) -> str:
        """Return the fix for this error; empty if none is known."""
        cause = error.__cause__
        if isinstance(error, BackendUnavailable | StepTimedOut):
            return unreachable_fix(self.emulator)
        if isinstance(cause, google_errors.NotFound):
            return self.missing
        if isinstance(cause, google_errors.Forbidden):
            return self.forbidden
        no_credentials = cause is None or isinstance(cause, google_errors.Unauthorized)
        return LOG_IN if no_credentials else ""


def unreachable_fix(emulator: str | None) -> str:
    """Return the fix for a backend that does not answer."""
    if emulator:
        return f"start the emulator, or correct the variable that holds {emulator}"
    return "let this machine reach googleapis.com on port 443 (firewall, proxy, NetworkPolicy)"


def backend_failure(check: str, error: WorkerError, fixes: Fixes) -> CheckResult:
    """Return the failure for an error of a backend.

    If the client only reports that it retried, the error of its last try is added.
    """
    cause = error.__cause__
    last = cause.cause if isinstance(cause, google_errors.RetryError) else None
    text = f"{error}, last {describe_error(last)}" if last is not None else str(error)
    return failure(check, text, fixes.for_error(error))
