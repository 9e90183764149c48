"""The command `stage`: make the resources of the demo where the environment points."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.durations import parse_duration
from daemon.cli.output import examples
from daemon.exit import ExitCode
from daemon.lifecycle.library_defaults import given_environment
from daemon.reports.wording import command_line, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from daemon.cli.command_settings import StageSettings
    from daemon.cli.demo.resources import ResourceNames

EXAMPLES = examples("stage", "stage --new-runs --publish", "stage --google-cloud my-project > staged.env")

#: So often it is tried whether an emulator has started.
LOOK_SECONDS = 0.2


def command(
    new_runs: Annotated[
        bool, typer.Option("--new-runs", help="Make runs with new ids each time, in place of the same three.")
    ] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Also publish a message for each run.")] = False,
    wait: Annotated[
        timedelta,
        typer.Option(
            help="How long to wait for emulators that are still starting.",
            parser=parse_duration,
            metavar="DURATION",
        ),
    ] = "0s",  # type: ignore[assignment] # parsed like an argument
    google_cloud: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Make them in this project of Google Cloud, which costs money."),
    ] = None,
) -> None:
    """Make a topic, a subscription, a bucket, templates, candles and runs, ready for the daemon.

    Uses the emulators that PUBSUB_EMULATOR_HOST, FIRESTORE_EMULATOR_HOST and
    STORAGE_EMULATOR_HOST name, embedded or Google's. Without one of them it
    refuses, unless --google-cloud names the project; CHARTS_BUCKET must be set
    there. Names come from PUBSUB_SUBSCRIPTION, QUARANTINE_TOPIC, CHARTS_BUCKET
    and FIRESTORE_DB, if they are set.

    What exists is left as it is, so a second call changes nothing. Prints export
    lines for the daemon; what it has made goes to standard error.

    Exit code 2: bad settings or arguments. 3: a backend refuses, or does not
    answer.
    """
    from daemon.cli.command_settings import StageSettings
    from daemon.cli.demo.resources import (
        EMULATORS,
        DemoResources,
        fixed_run_id,
        random_run_id,
    )
    from daemon.cli.demo.variables import demo_variables
    from daemon.settings import load_settings

    given = given_environment()
    named = {name: given[name] for name in EMULATORS if given.get(name)}
    project = _project(named, google_cloud)
    _await_emulators(named, wait.total_seconds())
    variables = {"GOOGLE_CLOUD_PROJECT": project, **named, **_places(given, google_cloud)}
    os.environ.update(variables)
    names = _names(load_settings(StageSettings))
    with closing(DemoResources(variables, names=names, on_google_cloud=google_cloud is not None)) as made:
        steps = made.build(new_run_id=random_run_id if new_runs else fixed_run_id)
        for what in made.created:
            typer.echo(f"made {what}", err=True)
        if made.found:
            typer.echo(f"not changed: {plural(len(made.found), 'thing')} that exist", err=True)
        if publish:
            typer.echo(f"published {made.publish(steps)} messages", err=True)
        else:
            for run_id in dict.fromkeys(step.run_id for step in steps):
                typer.echo(f"start it with: {command_line('publish', run_id)}", err=True)
    for name, value in {
        **demo_variables(given),
        **variables,
        "CHARTS_BUCKET": f"gs://{names.bucket}",
    }.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _await_emulators(named: Mapping[str, str], seconds: float) -> None:
    """Wait until all emulators accept connections.

    Raises:
        Exit: One of them does not within this time.
    """
    from daemon.cli.demo.resources import unreachable_emulators

    until = time.monotonic() + seconds
    while unreachable := unreachable_emulators(named):
        if time.monotonic() >= until:
            for sentence in unreachable:
                typer.echo(f"error: {sentence}", err=True)
            raise typer.Exit(ExitCode.REFUSED)
        time.sleep(LOOK_SECONDS)


def _places(given: Mapping[str, str], google_cloud: str | None) -> dict[str, str]:
    """Return the names that are set, and the demo's for the others."""
    from daemon.cli.demo.variables import PLACES

    # The name of a bucket is taken for all projects of Google Cloud, so there is no default for it there.
    names = [name for name in PLACES if google_cloud is None or name != "CHARTS_BUCKET"]
    return {name: given.get(name) or PLACES[name] for name in names}


def _project(named: Collection[str], google_cloud: str | None) -> str:
    """Return the project to use.

    Raises:
        SettingsError: A service would be Google's own, and nobody asked for that; or the project is another.
    """
    from daemon.cli.demo.resources import EMULATORS
    from daemon.settings import SettingsError
    from localcloud.cloud import DEFAULT_PROJECT

    given = os.environ.get("GOOGLE_CLOUD_PROJECT")
    missing = [name for name in EMULATORS if name not in named]
    if google_cloud is None and missing:
        what = f"{', '.join(missing)}: expected emulators, got nothing. Nothing was made"
        advice = (
            "worker-chart-export emulators -- COMMAND sets them. For Google Cloud give --google-cloud PROJECT"
        )
        raise SettingsError([f"{what}. {advice}"])
    if google_cloud is not None and not missing:
        raise SettingsError(["--google-cloud: the environment names an emulator for each service"])
    if google_cloud is not None and given not in (None, "", google_cloud):
        raise SettingsError([f"--google-cloud: expected GOOGLE_CLOUD_PROJECT, {given}, got {google_cloud}"])
    return google_cloud or given or DEFAULT_PROJECT


def _names(settings: StageSettings) -> ResourceNames:
    """Return the names that the settings give. The command has set those that were missing."""
    from daemon.cli.demo.resources import TOPIC, ResourceNames

    subscription = settings.subscription_path
    return ResourceNames(
        topic=f"{subscription.partition('/subscriptions/')[0]}/topics/{TOPIC}",
        subscription=subscription,
        quarantine_topic=settings.quarantine_topic_path or "",
        quarantine_subscription=settings.quarantine_subscription_path or "",
        bucket=settings.bucket_name,
        database=settings.firestore_db,
    )
