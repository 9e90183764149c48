"""`doctor`: whether a daemon could work here, a line for each check, with the mend."""

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

from daemon.cli.doctor.results import CheckResult, Report, Status
from daemon.cli.doctor.runner import examine
from daemon.cli.output import OutputFormat, examples
from daemon.exit import exit_now
from daemon.lifecycle.signals import forward_stop_signals
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
#: What nobody can act upon stands back.
ROW_STYLES = {Status.NOT_CHECKABLE: "dim"}
MARK_WIDTH, CHECK_WIDTH = 7, 26
#: What a shell makes of a process that a signal ended.
SIGNAL_EXIT_CODE = 128


class _Stopped(Interrupted):
    """Somebody does not want to wait."""

    def __init__(self, received: Signals) -> None:
        super().__init__(f"stopped by {received.name}")
        self.exit_code = SIGNAL_EXIT_CODE + received


def command(
    call: Annotated[
        bool, typer.Option("--call", help="Also spend one request of Chart-IMG; it is counted.")
    ] = False,
    output: Annotated[OutputFormat, typer.Option(help="How to print it.")] = OutputFormat.TEXT,
) -> None:
    """Check everything a daemon with these settings needs; each line that is not ok names its mend.

    Creates no cloud resources. A scratch document (chart_export_doctor) and a scratch object (charts/.doctor)
    are written and deleted again, also after Ctrl-C. Exit code 0: a daemon could work here; 3: a check
    failed; 2: bad settings.
    """
    configure(level=LogLevel.CRITICAL, log_format=LogFormat.CONSOLE, stream=sys.stderr)
    # The report says all that there is to say; what libraries log about the same errors would hide it.
    logging.disable(logging.CRITICAL)
    run = CancelScope(seconds=math.inf, clock=SystemClock())
    forward_stop_signals(lambda received: _stop(run, received))
    emulators = Emulators.of(os.environ)
    console = Console(highlight=False)
    is_watched = console.is_terminal and output is OutputFormat.TEXT
    with console.status("checking, 30 s at most ...") if is_watched else nullcontext():
        report = examine(emulators, run, call=call)
    try:
        run.check_stopped()
    except _Stopped as stopped:
        _leave_early(report, stopped)
    if output is OutputFormat.JSON:
        typer.echo(as_json(report, emulators))
    else:
        show(console, report, emulators)
    exit_now(report.exit_code)  # a check that hangs must not hold the end


def _stop(run: CancelScope, received: Signals) -> None:
    typer.echo("deleting what was written; a second signal leaves it behind", err=True)
    run.stop(_Stopped(received))


def _leave_early(report: Report, stopped: _Stopped) -> None:
    """Nothing is said of the checks: most of them were not made."""
    left = [found.left_over for found in report.results if found.left_over]
    told = f"{' and '.join(left)} may be left over" if left else "nothing is left over"
    typer.echo(f"{stopped}; {told}", err=True)
    exit_now(stopped.exit_code)


def as_json(report: Report, emulators: Emulators) -> str:
    """One object: the overall result, and the checks."""
    checks = [
        {"id": found.check, "status": found.status, "summary": found.summary, "mend": found.mend or None}
        | ({"leftOver": found.left_over} if found.left_over else {})
        for found in report.results
    ]
    return json.dumps(
        {
            "result": report.result,
            "exitCode": report.exit_code.value,
            "emulators": emulators.named,
            "checks": checks,
        },
        ensure_ascii=False,
        indent=2,
    )


def show(console: Console, report: Report, emulators: Emulators) -> None:
    """Print all findings, and what they come to."""
    if emulators.named:
        places = ", ".join(f"{name} at {place}" for name, place in emulators.named.items())
        words = Text(f"Emulators: {places}. The gcloud commands below are for the real services.\n")
        console.print(words, style="cyan", soft_wrap=not console.is_terminal)
    for found in report.results:
        console.print(_line(found, console), soft_wrap=not console.is_terminal)
        if found.mend:
            indent = " " * (MARK_WIDTH + 1)
            # Never folded: what is copied from a terminal must be one command.
            console.print(Text(f"{indent}mend: {found.mend}", style="bold"), soft_wrap=True)
    console.print(_conclusion(report), soft_wrap=True)


def _line(found: CheckResult, console: Console) -> Table | Text:
    """A line for people and `grep` alike; a terminal gets it folded under its own column."""
    mark, style = MARKS[found.status]
    if not console.is_terminal:
        return Text(f"{mark:<{MARK_WIDTH}} {found.check:<{CHECK_WIDTH}} {found}")
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=MARK_WIDTH, style=style)
    line.add_column(width=CHECK_WIDTH, overflow="fold")
    line.add_column(overflow="fold")
    line.add_row(mark, Text(found.check), Text(str(found)), style=ROW_STYLES.get(found.status, ""))
    return line


def _conclusion(report: Report) -> Text:
    words = {Status.OK: "ok", Status.NOT_CHECKABLE: "not checkable here"}
    counts = ", ".join(_many(report.count(status), words.get(status, status)) for status in Status)
    failed = [found.check for found in report.results if found.status is Status.FAILURE]
    if not failed:
        return Text(f"\n{counts}. A daemon can work here.", style="bold green")
    return Text(f"\n{counts}. To be mended first: {', '.join(failed)}", style="bold red")


def _many(count: int, words: str) -> str:
    counted = words in (Status.WARNING, Status.FAILURE) and count != 1
    return f"{count} {words}{'s' if counted else ''}"
