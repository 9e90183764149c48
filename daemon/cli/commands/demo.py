"""`demo`: the whole main job on this machine, and a gallery of what came out."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from daemon.cli.demo.gallery.page import render_gallery
from daemon.cli.demo.live_view import COLOURS, LiveView
from daemon.cli.demo.output_folder import PAGE, OutputFolder
from daemon.cli.demo.progress import Journal
from daemon.cli.demo.reachability import silent_emulators
from daemon.cli.demo.report import DemoReport
from daemon.cli.demo.resources import EMULATORS, DemoResources
from daemon.cli.demo.results import collect_result
from daemon.cli.demo.scenario import SCENES_WITH_FAILURES, SOUND_SCENES, DemoStep, messages_of
from daemon.cli.demo.worker import DaemonProcess
from daemon.cli.output import examples
from daemon.exit import ExitCode
from localcloud import LocalCloud

EXAMPLES = examples("demo", "demo --with-failures --output gallery")
TIMEOUT_SECONDS = 60.0
MAX_OTHERS = 5


def command(
    *,
    output: Annotated[Path, typer.Option(help="Where the charts and index.html go.")] = Path("demo-output"),
    with_failures: Annotated[
        bool, typer.Option("--with-failures", help="Let a step and a chart fail, to see what that is like.")
    ] = False,
) -> None:
    """Run the whole main job here: messages, the real daemon, real candles, real charts, a gallery.

    Uses the emulators that PUBSUB_EMULATOR_HOST, FIRESTORE_EMULATOR_HOST and
    STORAGE_EMULATOR_HOST name, and the embedded cloud for those that are not
    set. Never touches Google Cloud itself. What an earlier demo wrote into the
    folder is removed, and nothing else.
    """
    console = Console()
    started = time.monotonic()
    folder = OutputFolder(output)
    folder.prepare()
    places = _kinds_of_place()
    with ExitStack() as resources:
        environment = _cloud(resources)
        stage = DemoResources(environment)
        resources.callback(stage.close)
        steps = stage.build(SCENES_WITH_FAILURES if with_failures else SOUND_SCENES)
        console.print(f"The stage is set: {len(steps)} chart steps on {_places(environment)}")
        journal = _perform(console, stage, steps, environment)
        others = folder.clear()
        results = [collect_result(stage, progress, folder) for progress in journal.progress.values()]
    report = DemoReport(
        results=results,
        messages=messages_of(steps),
        journal=journal,
        places=places,
        seconds=time.monotonic() - started,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    folder.write(PAGE, render_gallery(report).encode())
    _print_report(console, report, output / PAGE)
    if others:
        _print_others(console, output, others)
    succeeded = journal.all_done and not report.surprises
    raise typer.Exit(ExitCode.OK if succeeded else ExitCode.JOB_FAILED)


def _cloud(resources: ExitStack) -> dict[str, str]:
    """Where the services are: what the environment names, else embedded."""
    named = {name: os.environ[name] for name in EMULATORS if os.environ.get(name)}
    if silent := silent_emulators(named):
        for sentence in silent:
            typer.echo(f"error: {sentence}", err=True)
        raise typer.Exit(ExitCode.REFUSED)
    cloud = resources.enter_context(LocalCloud.start())
    project = {"GOOGLE_CLOUD_PROJECT": os.environ.get("GOOGLE_CLOUD_PROJECT") or cloud.project}
    return {**cloud.environment(), **project, **named}


def _places(environment: dict[str, str]) -> str:
    return ", ".join(f"{_service(name)} at {environment[name]}" for name in EMULATORS)


def _service(variable: str) -> str:
    return variable.split("_", maxsplit=1)[0].title().replace("Pubsub", "Pub/Sub")


def _kinds_of_place() -> dict[str, str]:
    """Asked before the stage is built, which tells Google's clients through this very environment."""
    return {
        _service(name): "of the environment" if os.environ.get(name) else "embedded in the demo"
        for name in EMULATORS
    }


def _perform(
    console: Console, stage: DemoResources, steps: list[DemoStep], environment: dict[str, str]
) -> Journal:
    view = LiveView(steps)
    live = Live(view, console=console, refresh_per_second=10)
    with DaemonProcess(environment, view.on_event, view.on_end), live:
        view.wait_until_done(messages=stage.publish(steps), timeout_seconds=TIMEOUT_SECONDS)
        obituary = view.obituary()
    if obituary:
        console.print(obituary, style="red", markup=False, highlight=False)
    return view.journal


def _print_report(console: Console, report: DemoReport, page: Path) -> None:
    table = Table(title="what came out")
    for heading in ("step", "status", "charts", "manifest, or why there is none"):
        table.add_column(heading, overflow="fold")
    for result in report.results:
        table.add_row(
            f"{result.step.symbol} {result.step.timeframe}",
            Text(result.status, style=COLOURS.get(result.status, "")),
            f"{len(result.charts)}/{result.step.requested}",
            result.manifest_uri or "",
        )
        if result.step.lesson:
            table.add_row("", "", "", Text(f"on purpose: {result.step.lesson}", style="dim"))
        for failure in result.failures:
            table.add_row("", Text(failure.code, style="red"), "", Text(failure.message))
    console.print("\n", table)
    words = f"{report.charts} charts in {report.seconds:.1f} s. The gallery: [bold]{escape(str(page))}[/bold]"
    console.print(words, highlight=False)


def _print_others(console: Console, folder: Path, names: list[str]) -> None:
    """What no recorded demo wrote is none of the demo's business; but whoever looks at it should know."""
    shown = ", ".join(names[:MAX_OTHERS]) + (", ..." if len(names) > MAX_OTHERS else "")
    words = f"Not of this demo, and left as it is in {folder}: {shown}"
    console.print(words, style="dim", markup=False, highlight=False)
