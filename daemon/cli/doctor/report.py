"""The report of all checks, for a person or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from daemon.cli.doctor.results import DoctorReport, Status
from daemon.reports.wording import plural

if TYPE_CHECKING:
    from rich.console import Console

    from daemon.settings.emulators import Emulators

MARKS = {
    Status.OK: ("ok", "green"),
    Status.WARNING: ("warning", "yellow"),
    Status.FAILURE: ("FAILURE", "bold red"),
    Status.NOT_CHECKABLE: ("?", "cyan"),
}
MARK_WIDTH, CHECK_WIDTH = 7, 26


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
