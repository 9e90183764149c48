"""The command `demo`: run everything on this machine, and show the results in a gallery."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.output import examples
from daemon.exit import ExitCode
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from daemon.cli.demo.progress import Progress
    from daemon.cli.demo.report import DemoReport
    from daemon.cli.demo.resources import DemoResources
    from daemon.cli.demo.scenario import DemoStep

EXAMPLES = examples("demo", "demo --with-failures --output gallery")
TIMEOUT_SECONDS = 60.0
MAX_OTHERS = 5


def command(
    *,
    output: Annotated[Path, typer.Option(help="The folder for charts and index.html.")] = Path("demo-output"),
    with_failures: Annotated[
        bool, typer.Option("--with-failures", help="Add a step and a chart that fail.")
    ] = False,
) -> None:
    """Run everything on this machine: messages, the real daemon, real candles, real charts, a gallery.

    Uses the emulators that PUBSUB_EMULATOR_HOST, FIRESTORE_EMULATOR_HOST and
    STORAGE_EMULATOR_HOST name. For those that are not set, it starts embedded
    ones. It never uses Google Cloud. The files of the last demo in the folder
    are removed; other files stay.
    """
    from rich.console import Console

    from daemon.cli.demo.gallery.page import render_gallery
    from daemon.cli.demo.output_folder import PAGE, OutputFolder
    from daemon.cli.demo.report import DemoReport, collect_results
    from daemon.cli.demo.resources import EMULATORS, DemoResources
    from daemon.cli.demo.scenario import HEALTHY_RUNS, RUNS_WITH_FAILURES, messages_for

    console = Console()
    started = time.monotonic()
    folder = OutputFolder(output)
    folder.prepare()
    # Read now: DemoResources sets these variables for Google's clients.
    places = {
        _service(name): "of the environment" if os.environ.get(name) else "embedded in the demo"
        for name in EMULATORS
    }
    with ExitStack() as stack:
        environment = _find_cloud(stack)
        resources = DemoResources(environment)
        stack.callback(resources.close)
        steps = resources.build(RUNS_WITH_FAILURES if with_failures else HEALTHY_RUNS, replace_templates=True)
        where = ", ".join(f"{_service(name)} at {environment[name]}" for name in EMULATORS)
        console.print(f"{len(steps)} chart steps are READY on {where}")
        progress = _run_daemon(console, resources, steps, environment)
        others = folder.clear()
        results = collect_results(resources, progress, folder)
    report = DemoReport(
        results=results,
        messages=messages_for(steps),
        progress=progress,
        places=places,
        seconds=time.monotonic() - started,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    folder.write(PAGE, render_gallery(report).encode())
    _print_report(console, report, output / PAGE)
    _print_others(console, output, others)
    succeeded = progress.is_done and not report.surprises
    raise typer.Exit(ExitCode.OK if succeeded else ExitCode.JOB_FAILED)


def _print_others(console: Console, output: Path, others: Sequence[str]) -> None:
    if others:
        names = ", ".join(others[:MAX_OTHERS]) + (", ..." if len(others) > MAX_OTHERS else "")
        text = f"Other files in {output} were not changed: {names}"
        console.print(text, style="dim", markup=False, highlight=False)


def _find_cloud(stack: ExitStack) -> dict[str, str]:
    """Return the addresses of the services: those of the environment, and embedded ones for the others."""
    from daemon.cli.demo.resources import EMULATORS, unreachable_emulators
    from localcloud import LocalCloud

    named = {name: os.environ[name] for name in EMULATORS if os.environ.get(name)}
    if unreachable := unreachable_emulators(named):
        for sentence in unreachable:
            typer.echo(f"error: {sentence}", err=True)
        raise typer.Exit(ExitCode.REFUSED)
    cloud = stack.enter_context(LocalCloud.start())
    project = {"GOOGLE_CLOUD_PROJECT": os.environ.get("GOOGLE_CLOUD_PROJECT") or cloud.project}
    return {**cloud.environment(), **project, **named}


def _service(variable: str) -> str:
    return variable.split("_", maxsplit=1)[0].title().replace("Pubsub", "Pub/Sub")


def _run_daemon(
    console: Console, resources: DemoResources, steps: list[DemoStep], environment: dict[str, str]
) -> Progress:
    from rich.live import Live

    from daemon.cli.demo.progress import ProgressView
    from daemon.cli.demo.worker import DaemonProcess

    view = ProgressView(steps)
    live = Live(view, console=console, refresh_per_second=10)
    with DaemonProcess(environment, view.on_event, view.on_end), live:
        view.wait_until_done(messages=resources.publish(steps), timeout_seconds=TIMEOUT_SECONDS)
        early_end = view.describe_end()
    if early_end:
        console.print(early_end, style="red", markup=False, highlight=False)
    return view.progress


def _print_report(console: Console, report: DemoReport, page: Path) -> None:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from daemon.cli.status.terminal import COLOURS

    table = Table(title="results")
    for heading in ("step", "status", "charts", "manifest or error"):
        table.add_column(heading, overflow="fold")
    for result in report.results:
        table.add_row(
            result.step.title,
            Text(result.status, style=COLOURS.get(result.status, "")),
            f"{len(result.charts)}/{result.step.requested}",
            result.manifest_uri or "",
        )
        if result.step.lesson:
            table.add_row("", "", "", Text(f"on purpose: {result.step.lesson}", style="dim"))
        for failure in result.failures:
            table.add_row("", Text(failure.code, style="red"), "", Text(failure.message))
    console.print("\n", table)
    text = f"{report.charts} charts in {span(report.seconds)}. The gallery: [bold]{escape(str(page))}[/bold]"
    console.print(text, highlight=False)
