"""The command `doctor`: check whether a daemon could work here, and say how to fix what is wrong."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.cli.doctor.results import DoctorReport, Status
from daemon.cli.doctor.runner import run_checks
from daemon.cli.output import OutputFormat, examples
from daemon.exit import exit_now
from daemon.lifecycle.signals import forward_stop_signals
from daemon.reports.wording import plural
from daemon.settings import LogFormat, LogLevel
from daemon.settings.emulators import Emulators
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import Interrupted
from worker_chart_export.observability.logs import configure
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from signal import Signals

EXAMPLES = examples("doctor", "doctor --output json", "doctor --call")
MARKS = {
    Status.OK: ("ok", "green"),
    Status.WARNING: ("warning", "yellow"),
    Status.FAILURE: ("FAILURE", "bold red"),
    Status.NOT_CHECKABLE: ("?", "cyan"),
}
MARK_WIDTH, CHECK_WIDTH = 7, 26
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
    try:
        run.check_stopped()
    except _Stopped as stopped:
        # The report is not shown: most checks were not made.
        left = [result.left_over for result in report.results if result.left_over]
        text = f"{' and '.join(left)} may be left over" if left else "nothing is left over"
        typer.echo(f"{stopped}; {text}", err=True)
        exit_now(stopped.exit_code)
    if output is OutputFormat.JSON:
        typer.echo(as_json(report, emulators))
    else:
        show(console, report, emulators)
    exit_now(report.exit_code)  # not typer.Exit: a check that hangs must not delay the exit


def as_json(report: DoctorReport, emulators: Emulators) -> str:
    """Return one object with the overall result and all checks."""
    checks = [
        {"id": result.check, "status": result.status, "summary": result.summary, "mend": result.fix or None}
        | ({"leftOver": result.left_over} if result.left_over else {})
        for result in report.results
    ]
    document = {
        "result": report.result,
        "exitCode": report.exit_code.value,
        "emulators": emulators.named,
        "checks": checks,
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def show(console: Console, report: DoctorReport, emulators: Emulators) -> None:
    """Print all results and a summary.

    In a pipe each result is one line, for `grep`. On a terminal, rich folds long lines within their column. A
    fix is never folded, so that it can be copied as one command.
    """
    if emulators.named:
        places = ", ".join(f"{name} at {address}" for name, address in emulators.named.items())
        text = Text(f"Emulators: {places}. The gcloud commands below are for the real services.\n")
        console.print(text, style="cyan", soft_wrap=not console.is_terminal)
    for result in report.results:
        mark, style = MARKS[result.status]
        if console.is_terminal:
            line = Table.grid(padding=(0, 1, 0, 0))
            line.add_column(width=MARK_WIDTH, style=style)
            line.add_column(width=CHECK_WIDTH, overflow="fold")
            line.add_column(overflow="fold")
            row_style = "dim" if result.status is Status.NOT_CHECKABLE else ""
            line.add_row(mark, Text(result.check), Text(str(result)), style=row_style)
            console.print(line)
        else:
            plain = f"{mark:<{MARK_WIDTH}} {result.check:<{CHECK_WIDTH}} {result}"
            console.print(Text(plain), soft_wrap=True)
        if result.fix:
            indent = " " * (MARK_WIDTH + 1)
            console.print(Text(f"{indent}fix: {result.fix}", style="bold"), soft_wrap=True)
    console.print(_conclusion(report), soft_wrap=True)


def _conclusion(report: DoctorReport) -> Text:
    counts = (
        f"{report.count(Status.OK)} ok, {plural(report.count(Status.WARNING), 'warning')}, "
        f"{plural(report.count(Status.FAILURE), 'failure')}, "
        f"{report.count(Status.NOT_CHECKABLE)} not checkable here"
    )
    failed = [result.check for result in report.results if result.status is Status.FAILURE]
    if not failed:
        return Text(f"\n{counts}. A daemon can work here.", style="bold green")
    return Text(f"\n{counts}. Fix these first: {', '.join(failed)}", style="bold red")
