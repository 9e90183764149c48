"""The command `steps`: list the chart steps of all runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from daemon.cli.durations import parse_duration
from daemon.cli.lists.filters import codes_of, statuses_of
from daemon.cli.lists.printing import age_text, print_list
from daemon.cli.output import OutputFormat, examples
from worker_chart_export.inputs.flow_run import StepStatus

EXAMPLES = examples(
    "steps --status RUNNING,READY --older-than 30m",
    "steps --status FAILED --since 24h --code CHART_API_FAILED",
    "steps --symbol IBM --limit 20 --output json",
)
COLUMNS = {
    "RUN": lambda row: row.run.run_id,
    "STEP": lambda row: row.step.step_id,
    "STATUS": lambda row: row.step.status,
    "AGE": lambda row: age_text(row.age),
    "ATTEMPT": lambda row: "" if row.step.attempt is None else str(row.step.attempt),
    "OWNER": lambda row: row.step.owner,
    "CODE": lambda row: row.step.error.code if row.step.error else "",
    "REASON": lambda row: row.reason,
}


def command(
    status: Annotated[
        str | None, typer.Option(help="Statuses, with commas: RUNNING,READY.", metavar="STATUS,...")
    ] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(help="Only steps at least so old.", parser=parse_duration, metavar="DURATION"),
    ] = None,
    since: Annotated[
        timedelta | None,
        typer.Option(help="Only steps at most so old.", parser=parse_duration, metavar="DURATION"),
    ] = None,
    code: Annotated[str | None, typer.Option(help="Error codes, with commas.", metavar="CODE,...")] = None,
    symbol: Annotated[str | None, typer.Option(help="The symbol of the run.")] = None,
    limit: Annotated[int | None, typer.Option(help="The most lines.", min=1)] = None,
    output: Annotated[OutputFormat, typer.Option(help="Lines, or a JSON array.")] = OutputFormat.TEXT,
) -> None:
    """List the chart steps of all runs, those of the newest run first.

    The age of a RUNNING step counts from its first claim, that of a finished step
    from its end, and that of any other from its creation. A RUNNING step without
    a lease is shown as such. A duration is 90s, 30m, 24h or 7d.

    With --since only runs are read that were created at most 7 days earlier.

    Needs GOOGLE_CLOUD_PROJECT. Exit code 0: the list was printed, even if it is
    empty. 2: bad settings or arguments. 3: Firestore refuses or does not answer.
    """
    from daemon.reports.steps import StepFilter, step_pages

    steps = StepFilter(
        statuses=statuses_of(status, StepStatus),
        codes=codes_of(code),
        symbol=symbol,
        older_than=older_than,
        since=since,
    )
    print_list(
        lambda client: step_pages(client, steps, on_invalid=_warn), COLUMNS, limit=limit, output=output
    )


def _warn(why: str) -> None:
    typer.echo(f"warning: {why}", err=True)
