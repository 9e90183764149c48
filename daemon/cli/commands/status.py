"""`status`: a run's steps, who works them, their charts, errors and artifacts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from daemon.cli.output import OutputFormat, examples
from daemon.cli.status.live_view import LiveView
from daemon.cli.status.reader import READS_AT_ONCE, RunReader
from daemon.cli.status.report import RunReport
from daemon.cli.status.terminal import FullView
from daemon.cli.status.to_json import report_json
from daemon.cli.status.to_text import changed_lines, report_lines
from daemon.cli.status.until_stopped import until_stopped
from daemon.composition import firestore_client, storage_client
from daemon.exit import ExitCode
from daemon.lifecycle.signals import block_stop_signals
from daemon.settings.daemon import FirestoreSettings, load_settings
from daemon.settings.export import BucketSettings
from worker_chart_export.errors import BackendUnavailable, RunInvalid
from worker_chart_export.inputs.flow_run import why_run_id_refused
from worker_chart_export.timing import SystemClock

EXAMPLES = examples(
    "status 20251215-102530_IBM_k3f7a",
    "status 20251215-102530_IBM_k3f7a --watch",
    "status 20251215-102530_IBM_k3f7a --output json",
)
EVERY_SECONDS = 1.0


class SettingsWithBucket(FirestoreSettings, BucketSettings):
    """What is read where CHARTS_BUCKET is set; nothing here needs it."""


def command(
    run_id: Annotated[str, typer.Argument(help="The run.", metavar="RUN_ID")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Look every second until all chart steps are final, or Ctrl-C.")
    ] = False,
    output: Annotated[
        OutputFormat, typer.Option(help="A table (plain lines in a pipe), or JSON.")
    ] = OutputFormat.TEXT,
) -> None:
    """Show a run: its steps, who works them, charts, errors and artifacts.

    Needs GOOGLE_CLOUD_PROJECT. With CHARTS_BUCKET, the charts that RUNNING
    steps have stored so far are counted too.

    In a pipe, --watch prints a line for each change; with --output json, the
    whole run again, one line each time.

    Exit code 0: shown, whether done or still to be worked; also after Ctrl-C.
    1: no such run, or one of its chart steps FAILED or can't be read.
    2: bad settings or arguments. 3: Firestore refuses, or is away.
    """
    if problem := why_run_id_refused(run_id):
        raise typer.BadParameter(problem)
    if watch:
        block_stop_signals()
    settings = load_settings(SettingsWithBucket if os.environ.get("CHARTS_BUCKET") else FirestoreSettings)
    project = settings.google_cloud_project
    with ExitStack() as resources:
        documents = firestore_client(project, settings.firestore_db)
        resources.callback(documents.close)
        reader = RunReader(
            documents=documents,
            open_objects=lambda: storage_client(project, connections=READS_AT_ONCE),
            bucket=settings.bucket_name if isinstance(settings, SettingsWithBucket) else None,
            run_id=run_id,
            clock=SystemClock(),
        )
        report = _watch(reader, output) if watch else _shown_once(reader, output)
    raise typer.Exit(ExitCode.JOB_FAILED if report is not None and report.has_failed else ExitCode.OK)


def _shown_once(reader: RunReader, output: OutputFormat) -> RunReport:
    report = _look(reader)
    _show(report, output)
    return report


def _look(reader: RunReader) -> RunReport:
    """The run as it is; without one that can be shown, the command ends here."""
    try:
        report = reader.look()
    except RunInvalid as error:
        raise _no_run(f"the run can't be read: {error}") from error
    if report is None:
        raise _no_run("there is no such run")
    return report


def _no_run(words: str) -> typer.Exit:
    typer.echo(f"error: {words}", err=True)
    return typer.Exit(ExitCode.JOB_FAILED)


def _watch(reader: RunReader, output: OutputFormat) -> RunReport | None:
    """Show the run again and again; its last report once it is settled, None after a stop signal."""
    looks = _looks(reader)
    on_terminal = output is OutputFormat.TEXT and sys.stdout.isatty()
    last = _follow_on_terminal(looks) if on_terminal else _follow_in_pipe(looks, output)
    return last if last is not None and last.is_settled else None


def _looks(reader: RunReader) -> Iterator[tuple[RunReport, str]]:
    """Reports until the run is settled, each with what is wrong; the last again while Firestore is away."""
    last: RunReport | None = None
    for seen in until_stopped(lambda: _look_or_error(reader), every_seconds=EVERY_SECONDS):
        if isinstance(seen, RunReport):
            last = seen
            yield seen, ""
            if seen.is_settled:
                return
        elif last is None:
            raise seen
        else:
            yield last, f"{seen}; this is how it was, trying again"


def _look_or_error(reader: RunReader) -> RunReport | BackendUnavailable:
    try:
        return _look(reader)
    except BackendUnavailable as error:
        return error


def _follow_on_terminal(looks: Iterator[tuple[RunReport, str]]) -> RunReport | None:
    console, last = Console(), None
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for report, trouble in looks:
            last = report
            live.update(LiveView(report, trouble, storage_emulator=_storage_emulator()), refresh=True)
    if last is not None:
        _show(last, OutputFormat.TEXT)
    return last


def _follow_in_pipe(looks: Iterator[tuple[RunReport, str]], output: OutputFormat) -> RunReport | None:
    last: RunReport | None = None
    told = ""
    for report, trouble in looks:
        lines = list(changed_lines(last, report))
        if output is OutputFormat.JSON:
            lines = [report_json(report)] if lines else []
        if trouble and trouble != told:
            typer.echo(f"warning: {trouble}", err=True)
        for line in lines:
            typer.echo(line)
        last, told = report, trouble
    return last


def _show(report: RunReport, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        typer.echo(report_json(report))
    elif sys.stdout.isatty():
        Console().print(FullView(report, storage_emulator=_storage_emulator()))
    else:
        for line in report_lines(report):
            typer.echo(line)


def _storage_emulator() -> str | None:
    return os.environ.get("STORAGE_EMULATOR_HOST") or None
