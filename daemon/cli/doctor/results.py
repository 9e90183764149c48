"""One check's outcome, and what all of them together say. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from daemon.exit import ExitCode


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    """As the daemon wants it."""
    WARNING = "warning"
    """The daemon works, but somebody will be sorry later."""
    FAILURE = "failure"
    """The daemon, or a part of it, can't work like this."""
    NOT_CHECKABLE = "not_checkable"
    """It can't be seen from here: an emulator does not have it, or this account may not look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found.

    Attributes:
        check: The check's stable id.
        status: How it ended.
        summary: What was found, with the value.
        mend: The command or the setting that mends it; empty when there is nothing to mend.
        left_over: What the check wrote, if nobody knows that it was deleted again.
    """

    check: str
    status: Status
    summary: str
    mend: str = ""
    left_over: str = ""

    def __str__(self) -> str:
        words = f"not checkable here: {self.summary}"
        told = words if self.status is Status.NOT_CHECKABLE else self.summary
        return f"{told}; {self.left_over} may be left over" if self.left_over else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings, in the order they are shown.

    Attributes:
        findings: One or more for each check.
        settings_are_good: Whether the daemon would start with these settings.
    """

    results: tuple[CheckResult, ...]
    settings_are_good: bool

    @property
    def exit_code(self) -> ExitCode:
        """2 for bad settings, else 3 when a check failed."""
        if not self.settings_are_good:
            return ExitCode.BAD_SETTINGS
        return ExitCode.REFUSED if self.count(Status.FAILURE) else ExitCode.OK

    @property
    def result(self) -> Status:
        """The worst of all."""
        for status in (Status.FAILURE, Status.WARNING):
            if self.count(status):
                return status
        return Status.OK

    def count(self, status: Status) -> int:
        """How many checks ended so."""
        return Counter(result.status for result in self.results)[status]


def ok(check: str, summary: str) -> CheckResult:
    """All is well."""
    return CheckResult(check=check, status=Status.OK, summary=summary)


def warning(check: str, summary: str, mend: str) -> CheckResult:
    """It works, but should be mended."""
    return CheckResult(check=check, status=Status.WARNING, summary=summary, mend=mend)


def failure(check: str, summary: str, mend: str = "") -> CheckResult:
    """It must be mended."""
    return CheckResult(check=check, status=Status.FAILURE, summary=summary, mend=mend)


def not_checkable(check: str, why: str, mend: str = "") -> CheckResult:
    """It can't be seen from here; `mend` is how to look elsewhere."""
    return CheckResult(check=check, status=Status.NOT_CHECKABLE, summary=why, mend=mend)
