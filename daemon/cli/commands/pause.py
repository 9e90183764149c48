"""The command `pause`: stop the work of all daemons until `resume`."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from daemon.cli.operator import audit, log_to_standard_error, operator_name
from daemon.cli.output import examples
from daemon.reports.wording import plural
from worker_chart_export.errors import shown

EXAMPLES = examples("pause", 'pause --reason "Chart-IMG maintenance until 14:00 UTC"')


def command(
    reason: Annotated[
        str, typer.Option(help="Why, for everyone who asks: at most 200 characters.", metavar="TEXT")
    ] = "",
) -> None:
    """Pause all daemons of this database. They start no new step until resume.

    Every daemon sees it within 30 s. Steps that run are finished. Messages wait
    in Pub/Sub. A daemon that starts meanwhile starts paused. /readyz, the live
    page, the metrics and the command workers say who paused the fleet and why.

    Exit code 0: the fleet is paused, also if it was before: then that pause and
    its reason stay. 2: bad settings or arguments. 3: Firestore refuses, or does
    not answer.
    """
    from daemon.clients import firestore_client
    from daemon.settings import FirestoreSettings, load_settings
    from worker_chart_export.fleet.heartbeat import live_workers
    from worker_chart_export.fleet.pause import MAX_REASON_CHARS, pause_fleet

    reason = reason.strip()
    if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise typer.BadParameter(
            f"--reason: expected at most {MAX_REASON_CHARS} characters on one line, got {shown(reason)}"
        )
    settings = load_settings(FirestoreSettings)
    log_to_standard_error()
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        pause, is_new = pause_fleet(client, operator=operator_name(), reason=reason)
        if not is_new:
            typer.echo(f"The fleet was paused already, and nothing was changed: {pause}")
            return
        audit("pause", "Paused the fleet", reason=reason or None)
        count = sum(1 for _ in live_workers(client))
    daemons = f"{plural(count, 'daemon')} will see it within 30 s" if count else "No daemon runs now"
    typer.echo(f"Paused. {daemons}. To go on: worker-chart-export resume")
