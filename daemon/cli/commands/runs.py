"""The command `runs`: list the runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from daemon.cli.durations import parse_duration
from daemon.cli.lists.filters import statuses_of
from daemon.cli.lists.printing import age_text, print_list
from daemon.cli.output import OutputFormat, examples
from worker_chart_export.inputs.flow_run import RunStatus

EXAMPLES = examples(
    "runs --since 24h",
    "runs --status RUNNING,FAILED --symbol IBM",
    "runs --limit 20 --output json",
)
COLUMNS = {
    "RUN": lambda row: row.run_id,
    "STATUS": lambda row: row.status,
    "SYMBOL": lambda row: row.symbol,
    "AGE": lambda row: age_text(row.age),
    "CHART STEPS": lambda row: row.counts,
}


def command(
    status: Annotated[
        str | None, typer.Option(help="Statuses, with commas: RUNNING,FAILED.", metavar="STATUS,...")
    ] = None,
    since: Annotated[
        timedelta | None,
        typer.Option(
            help="Only runs that were created within this time: 90s, 30m, 24h or 7d.",
            parser=parse_duration,
            metavar="DURATION",
        ),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="The symbol of the run.")] = None,
    limit: Annotated[int | None, typer.Option(help="The most lines.", min=1)] = None,
    output: Annotated[OutputFormat, typer.Option(help="Lines, or a JSON array.")] = OutputFormat.TEXT,
) -> None:
    """List the runs, the newest first, with the number of chart steps in each status.

    Needs GOOGLE_CLOUD_PROJECT. Exit code 0: the list was printed, even if it is
    empty. 2: bad settings or arguments. 3: Firestore refuses or does not answer.
    """
    from daemon.cli.lists.runs import run_row_pages

    statuses = statuses_of(status, RunStatus)
    print_list(
        lambda client: run_row_pages(client, statuses=statuses, symbol=symbol, since=since),
        COLUMNS,
        limit=limit,
        output=output,
    )
