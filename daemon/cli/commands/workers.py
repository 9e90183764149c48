"""The command `workers`: list the daemons, and say whether the fleet is paused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.lists.printing import age_text, print_list
from daemon.cli.output import OutputFormat, examples
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from worker_chart_export.fleet.heartbeat import WorkerStatus

EXAMPLES = examples("workers", "workers --output json")
COLUMNS = {
    "OWNER": lambda row: row.status.owner,
    "STATE": lambda row: row.status.state.replace("_", " "),
    "STEPS": lambda row: f"{row.status.steps_running} of {row.status.slots}",
    "UP": lambda row: age_text(row.now - row.status.started_at),
    "SEEN": lambda row: f"{age_text(row.now - row.status.last_seen_at)} ago",
    "VERSION": lambda row: row.status.version,
    "REASON": lambda row: row.status.reason,
}
READ_SECONDS = 10.0
#: More daemons than a fleet has: nearly always all lines are aligned.
ROWS_PER_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A daemon in the list, and the server's time of the read."""

    status: WorkerStatus
    now: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. Its names are stable."""
        status = self.status
        return status.to_document() | {
            "reason": status.reason or None,
            "startedAt": rfc3339(status.started_at),
            "lastSeenAt": rfc3339(status.last_seen_at),
            "lastSeenSeconds": round((self.now - status.last_seen_at).total_seconds(), 3),
        }


def command(
    output: Annotated[OutputFormat, typer.Option(help="Lines, or a JSON array.")] = OutputFormat.TEXT,
) -> None:
    """List the daemons of this database: since when, version, steps, last seen.

    Each daemon shows itself about every 30 s. One that stops disappears at once,
    and one that was killed or hangs after 3 minutes. STEPS is the number of steps
    that run, of the number that messages can start at the same time.

    If the fleet is paused, a line on standard error says who did it and why.

    Exit code 0: the list was printed, even if it is empty. 2: bad settings or
    arguments. 3: Firestore refuses, or does not answer.
    """
    print_list(_pages, COLUMNS, limit=None, output=output)


def _pages(client: Any) -> Iterator[list[WorkerRow]]:
    from worker_chart_export.fleet.heartbeat import live_workers
    from worker_chart_export.fleet.pause import read_pause

    pause = read_pause(client, timeout_seconds=READ_SECONDS).pause
    if pause is not None:
        typer.echo(f"paused: {pause}", err=True)
    page: list[WorkerRow] = []
    for status, now in live_workers(client):
        page.append(WorkerRow(status=status, now=now))
        if len(page) == ROWS_PER_PAGE:
            yield page
            page = []
    yield page
