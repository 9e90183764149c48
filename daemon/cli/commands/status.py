"""The command `status`: show a run, its steps, their owners, charts, errors and artifacts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.output import OutputFormat, examples
from daemon.cli.places import asking_for, place_of, with_place
from daemon.exit import ExitCode
from daemon.lifecycle.interpreter import long_lived
from daemon.lifecycle.signals import block_stop_signals
from daemon.lifecycle.standard_streams import lost_reader
from worker_chart_export.errors import BackendUnavailable, RunInvalid
from worker_chart_export.inputs.flow_run import why_run_id_refused
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from daemon.cli.status.reader import RunReader
    from daemon.reports.report import RunReport

EXAMPLES = examples(
    "status 20251215-102530_IBM_k3f7a",
    "status 20251215-102530_IBM_k3f7a --watch",
    "status 20251215-102530_IBM_k3f7a --output json",
)
EVERY_SECONDS = 1.0


def command(
    run_id: Annotated[str, typer.Argument(help="The run.", metavar="RUN_ID")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Read every second until all chart steps are final, or Ctrl-C.")
    ] = False,
    output: Annotated[
        OutputFormat, typer.Option(help="A table (plain lines in a pipe), or JSON.")
    ] = OutputFormat.TEXT,
) -> None:
    """Show a run: its steps, their owners, charts, errors and artifacts.

    Needs GOOGLE_CLOUD_PROJECT. If CHARTS_BUCKET is set, the charts that RUNNING
    steps have stored so far are counted too.

    In a pipe, --watch prints a line for each change. With --output json it
    prints the whole run again after each change, as one line.

    Exit code 0: the run was shown, even if it is not finished; also after
    Ctrl-C. 1: no such run, or a chart step FAILED or can't be read. 2: bad
    settings or arguments. 3: Firestore refuses, or does not answer.
    """
    with long_lived():
        from daemon.cli.command_settings import StatusSettings, StatusSettingsWithBucket
        from daemon.cli.status.reader import PARALLEL_READS, RunReader
        from daemon.clients import firestore_client, storage_client
        from daemon.settings import BucketSettings, load_settings

    if problem := why_run_id_refused(run_id):
        raise typer.BadParameter(problem)
    if watch:
        block_stop_signals()
    settings = load_settings(StatusSettingsWithBucket if os.environ.get("CHARTS_BUCKET") else StatusSettings)
    project = settings.google_cloud_project
    with ExitStack() as resources:
        documents = firestore_client(project, settings.firestore_db)
        resources.callback(documents.close)
        reader = RunReader(
            documents=documents,
            open_objects=lambda: storage_client(project, connections=PARALLEL_READS),
            bucket=settings.bucket_name if isinstance(settings, BucketSettings) else None,
            run_id=run_id,
            clock=SystemClock(),
            unleased_grace_seconds=settings.unleased_grace_seconds,
        )
        if watch:
            report = _watch(reader, output)
        else:
            report = _read(reader)
            _show(report, output)
    failed = report is not None and (report.is_finished or not watch) and report.has_failed
    raise typer.Exit(ExitCode.JOB_FAILED if failed else ExitCode.OK)


def _read(reader: RunReader) -> RunReport:
    """Read the run, or end the command if it does not exist or can't be read."""
    run = f"run {reader.run_id}"
    try:
        with asking_for(run):
            report = reader.read()
    except RunInvalid as error:
        typer.echo(f"error: the run can't be read: {error} ({run}, {place_of('firestore')})", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED) from error
    if report is None:
        typer.echo(f"error: there is no such run ({run}, {place_of('firestore')})", err=True)
        raise typer.Exit(ExitCode.JOB_FAILED)
    return report


def _watch(reader: RunReader, output: OutputFormat) -> RunReport | None:
    """Show the run repeatedly; return the last report, or None if there was none."""
    from rich.console import Console
    from rich.live import Live

    from daemon.cli.status.terminal import LiveView

    reports = _reports(reader)
    if output is OutputFormat.JSON or not sys.stdout.isatty():
        return _print_changes(reports, output)
    last = None
    with Live(console=Console(), auto_refresh=False, transient=True) as live:
        for report, warning in reports:
            last = report
            live.update(LiveView(report, warning, storage_emulator=_storage_emulator()), refresh=True)
    if last is not None:
        _show(last, OutputFormat.TEXT)
    return last


def _reports(reader: RunReader) -> Iterator[tuple[RunReport, str]]:
    """Yield reports and warnings until the run is finished.

    While Firestore does not answer, the last report is yielded again with a warning.
    """
    from daemon.cli.status.reader import until_stopped
    from daemon.reports.report import RunReport

    def read_or_error() -> RunReport | BackendUnavailable:
        try:
            return _read(reader)
        except BackendUnavailable as error:
            return error

    last: RunReport | None = None
    for result in until_stopped(read_or_error, every_seconds=EVERY_SECONDS):
        if isinstance(result, RunReport):
            last = result
            yield result, ""
            if result.is_finished:
                return
        elif last is None:
            raise result
        else:
            yield last, f"{with_place(result)}; the last known state is shown, trying again"


def _print_changes(reports: Iterator[tuple[RunReport, str]], output: OutputFormat) -> RunReport | None:
    from daemon.cli.status.to_json import report_json
    from daemon.cli.status.to_text import changed_lines

    last: RunReport | None = None
    last_warning = ""
    for report, warning in reports:
        lines = list(changed_lines(last, report))
        if output is OutputFormat.JSON:
            lines = [report_json(report)] if lines else []
        if warning and warning != last_warning:
            typer.echo(f"warning: {warning}", err=True)
        for line in lines:
            typer.echo(line)
        last, last_warning = report, warning
        if lost_reader(sys.stdout):
            break
    return last


def _show(report: RunReport, output: OutputFormat) -> None:
    from rich.console import Console

    from daemon.cli.status.terminal import FullView
    from daemon.cli.status.to_json import report_json
    from daemon.cli.status.to_text import report_lines

    if output is OutputFormat.JSON:
        typer.echo(report_json(report))
    elif sys.stdout.isatty():
        Console().print(FullView(report, storage_emulator=_storage_emulator()))
    else:
        for line in report_lines(report):
            typer.echo(line)


def _storage_emulator() -> str | None:
    return os.environ.get("STORAGE_EMULATOR_HOST") or None
