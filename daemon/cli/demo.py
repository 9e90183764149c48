"""`demo`: the whole main job on this machine, and a gallery of what came out."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daemon.demo.daemon_process import DaemonProcess
from daemon.demo.gallery import render_gallery
from daemon.demo.live_view import COLOURS, LiveView
from daemon.demo.reachability import silent_emulators
from daemon.demo.results import StepResult, collect_result
from daemon.demo.stage import EMULATORS, DemoStep, Stage
from daemon.exit_codes import ExitCode
from localcloud import LocalCloud

NAME = "demo"
EXAMPLES = "Examples: worker-chart-export demo | worker-chart-export demo --output /srv/gallery"
TIMEOUT_SECONDS = 60.0


def command(
    output: Annotated[Path, typer.Option(help="Where the charts and index.html go.")] = Path("demo-output"),
) -> None:
    """Run the whole main job here: messages, the real daemon, real candles, real charts, a gallery.

    Uses the emulators that PUBSUB_EMULATOR_HOST, FIRESTORE_EMULATOR_HOST and
    STORAGE_EMULATOR_HOST name, and the embedded cloud for those that are not
    set. Never touches Google Cloud itself.
    """
    console = Console()
    started = time.monotonic()
    _make_writable(output)
    with ExitStack() as resources:
        environment = _cloud(resources)
        stage = Stage(environment)
        resources.callback(stage.close)
        steps = stage.build()
        console.print(f"The stage is set: {len(steps)} chart steps on {_places(environment)}")
        done = _perform(console, stage, steps, environment)
        results = [collect_result(stage, step, output) for step in steps]
    page = output / "index.html"
    page.write_text(
        render_gallery(results, made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"), encoding="utf-8"
    )
    _report(console, results, page, time.monotonic() - started)
    succeeded = done and all(result.status == "SUCCEEDED" for result in results)
    raise typer.Exit(ExitCode.OK if succeeded else ExitCode.JOB_FAILED)


def _make_writable(folder: Path) -> None:
    """Make the folder and try it, before a minute's work is done for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise typer.BadParameter(
            f"--output: expected a folder that can be written, got {folder} ({error.strerror})"
        ) from error


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
    return ", ".join(f"{name.split('_', maxsplit=1)[0].title()} at {environment[name]}" for name in EMULATORS)


def _perform(console: Console, stage: Stage, steps: list[DemoStep], environment: dict[str, str]) -> bool:
    view = LiveView(steps)
    live = Live(view, console=console, refresh_per_second=10)
    with DaemonProcess(environment, view.on_event, view.on_end), live:
        stage.publish(steps)
        done = view.wait_until_done(TIMEOUT_SECONDS)
        obituary = view.obituary()
    if obituary:
        console.print(obituary, style="red", markup=False, highlight=False)
    return done


def _report(console: Console, results: list[StepResult], page: Path, seconds: float) -> None:
    table = Table(title="what came out")
    for heading in ("step", "status", "charts", "manifest"):
        table.add_column(heading, overflow="fold")
    for result in results:
        table.add_row(
            f"{result.step.symbol} {result.step.timeframe}",
            Text(result.status, style=COLOURS.get(result.status, "")),
            f"{len(result.charts)}/{result.step.requested}",
            result.manifest_uri or "",
        )
        for failure in result.failures:
            table.add_row("", "", failure["request"]["chartTemplateId"], failure["error"]["message"])
    console.print("\n", table)
    charts = sum(len(result.charts) for result in results)
    console.print(f"{charts} charts in {seconds:.1f} s. The gallery: [bold]{page}[/bold]", highlight=False)
