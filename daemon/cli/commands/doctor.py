"""The command `doctor`: check whether a daemon could work here, and say how to fix what is wrong."""

from __future__ import annotations

import logging
import math
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.output import OutputFormat, examples
from daemon.exit import exit_now
from daemon.lifecycle.signals import forward_stop_signals
from worker_chart_export.errors import Interrupted
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from signal import Signals

    from daemon.cli.doctor.results import DoctorReport
    from worker_chart_export.concurrency.cancel_scope import CancelScope

EXAMPLES = examples("doctor", "doctor --output json", "doctor --call")
#: A shell adds this to the number of the signal that ended a process.
SIGNAL_EXIT_CODE = 128


class _Stopped(Interrupted):
    """A stop signal arrived."""

    def __init__(self, received: Signals) -> None:
        super().__init__(f"stopped by {received.name}")
        self.exit_code = SIGNAL_EXIT_CODE + received


def command(
    call: Annotated[
        bool, typer.Option("--call", help="Also send one request to Chart-IMG. It uses quota.")
    ] = False,
    output: Annotated[OutputFormat, typer.Option(help="The form of the report.")] = OutputFormat.TEXT,
) -> None:
    """Check everything that a daemon with these settings needs. Each problem comes with its fix.

    Creates no cloud resources. Writes a scratch document (chart_export_doctor)
    and a scratch object (charts/.doctor), and deletes them again, also after
    Ctrl-C.

    Exit code 0: a daemon can work here. 2: bad settings. 3: a check failed.
    """
    from rich.console import Console

    from daemon.cli.doctor.report import as_json, show
    from daemon.cli.doctor.runner import run_checks
    from daemon.settings import LogFormat, LogLevel
    from daemon.settings.emulators import Emulators
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.observability.logs import configure

    configure(level=LogLevel.CRITICAL, log_format=LogFormat.CONSOLE, stream=sys.stderr)
    # The report holds all errors. Log lines of libraries about the same errors would hide it.
    logging.disable(logging.CRITICAL)
    run = CancelScope(seconds=math.inf, clock=SystemClock())

    def stop(received: Signals) -> None:
        typer.echo("deleting what was written; a second signal stops at once and leaves it", err=True)
        run.stop(_Stopped(received))

    forward_stop_signals(stop)
    emulators = Emulators.of(os.environ)
    console = Console(highlight=False)
    has_spinner = console.is_terminal and output is OutputFormat.TEXT
    with console.status("checking, 30 s at most ...") if has_spinner else nullcontext():
        report = run_checks(emulators, run, call=call)
    _end_if_stopped(run, report)
    if output is OutputFormat.JSON:
        typer.echo(as_json(report, emulators))
    else:
        show(console, report, emulators)
    exit_now(report.exit_code)  # not typer.Exit: a check that hangs must not delay the exit


def _end_if_stopped(run: CancelScope, report: DoctorReport) -> None:
    """End the command after a stop signal. The report is not shown: most checks were not made."""
    try:
        run.check_stopped()
    except _Stopped as stopped:
        left = [result.left_over for result in report.results if result.left_over]
        text = f"{' and '.join(left)} may be left over" if left else "nothing is left over"
        typer.echo(f"{stopped}; {text}", err=True)
        exit_now(stopped.exit_code)
