"""What the commands of an operator share: who the operator is, the consent, and the audit line."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import Any

import typer

from daemon.exit import ExitCode


def operator_name() -> str:
    """Return who runs this command: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def log_to_standard_error() -> None:
    """Write log lines to standard error: for a person, or with `LOG_FORMAT=json` for a log service."""
    from daemon.settings import LogFormat, LogLevel  # noqa: PLC0415 - help does without
    from worker_chart_export.observability.logs import configure  # noqa: PLC0415 - see above

    is_json = os.environ.get("LOG_FORMAT") == LogFormat.JSON
    log_format = LogFormat.JSON if is_json else LogFormat.CONSOLE
    configure(level=LogLevel.INFO, log_format=log_format, stream=sys.stderr)


def audit(command: str, sentence: str, **facts: Any) -> None:
    """Log what a command has changed, and who ran it. Call `log_to_standard_error` once before.

    Args:
        command: The command, for example `retry`.
        sentence: What was changed.
        **facts: More fields of the line, for example `runId`.
    """
    from worker_chart_export.observability.logs import Event, log  # noqa: PLC0415 - help does without

    log.info(Event.OPERATOR_ACTION, sentence, command=command, operator=operator_name(), **facts)


def require_consent(question: str, *, yes: bool) -> None:
    """Ask the person on the terminal, unless `--yes` was given. Return only with consent.

    Raises:
        Exit: The answer is no (exit code 1), or there is no terminal (exit code 2).
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        typer.echo(
            "error: nothing was changed: there is no terminal to ask on. To do it, give --yes", err=True
        )
        raise typer.Exit(ExitCode.BAD_SETTINGS)
    if not typer.confirm(question, err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED)
