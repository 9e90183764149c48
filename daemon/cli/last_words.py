"""What a command says of an error that ended it, and its exit code."""

from __future__ import annotations

from daemon.exit import ExitCode
from daemon.settings.daemon import SettingsError
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.errors import BackendRefused, BackendUnavailable


def last_words(error: Exception) -> tuple[list[str], ExitCode]:
    """A line for each problem; never a traceback, which would show what no log may hold, keys among it."""
    if isinstance(error, SettingsError):
        return error.problems, ExitCode.BAD_SETTINGS
    if isinstance(error, BackendRefused | BackendUnavailable):
        return [str(error)], ExitCode.REFUSED
    return [f"internal: {describe_error(error)}"], ExitCode.INTERNAL_ERROR
