"""The command `resume`: end the pause of all daemons."""

from __future__ import annotations

from contextlib import closing

import typer

from daemon.cli.operator import audit, log_to_standard_error
from daemon.cli.output import examples
from daemon.exit import ExitCode
from daemon.reports.wording import plural

EXAMPLES = examples("resume")


def command() -> None:
    """End the pause of all daemons. They start new steps within 30 s.

    A daemon that is paused for another reason too, for example because a backend
    is unavailable, goes on when that ends: see the command workers.

    Exit code 0: the fleet is not paused, also if it was not before. 1: another
    operator changed the pause at the same moment. 2: bad settings or arguments.
    3: Firestore refuses, or does not answer.
    """
    from daemon.clients import firestore_client
    from daemon.settings import FirestoreSettings, load_settings
    from worker_chart_export.backends.firestore import LostRace
    from worker_chart_export.fleet.heartbeat import live_workers
    from worker_chart_export.fleet.pause import resume_fleet

    settings = load_settings(FirestoreSettings)
    log_to_standard_error()
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        try:
            ended = resume_fleet(client)
        except LostRace as error:
            typer.echo("error: the pause was changed by somebody else just now. Look at it again", err=True)
            raise typer.Exit(ExitCode.JOB_FAILED) from error
        if ended is None:
            typer.echo("The fleet was not paused, and nothing was changed")
            return
        audit("resume", "Resumed the fleet", pausedBy=ended.operator, reason=ended.reason or None)
        count = sum(1 for _ in live_workers(client))
    daemons = f"{plural(count, 'daemon')} will go on within 30 s" if count else "No daemon runs now"
    typer.echo(f"Resumed: {ended}. {daemons}")
