"""The command `leases`: list the leases of all runs."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli.lists.printing import age_text, print_list
from daemon.cli.output import OutputFormat, examples

EXAMPLES = examples(
    "leases --expired",
    "leases --owner worker-7",
    "leases --output json",
)
COLUMNS = {
    "RUN": lambda row: row.listed.run_id,
    "STEP": lambda row: row.listed.step_id,
    "LEASE": lambda row: row.holding.hold.value.replace("_", " "),
    "AGE": lambda row: age_text(row.age),
    "ATTEMPT": lambda row: str(row.listed.lease.attempt),
    "OWNER": lambda row: row.listed.lease.owner,
    "REASON": lambda row: row.reason,
}


def command(
    owner: Annotated[
        str | None, typer.Option(help="The owner, or its first parts: HOST or HOST:PID.", metavar="HOST")
    ] = None,
    expired: Annotated[bool, typer.Option("--expired", help="Only leases that have ended.")] = False,
    limit: Annotated[int | None, typer.Option(help="The most lines.", min=1)] = None,
    output: Annotated[OutputFormat, typer.Option(help="Lines, or a JSON array.")] = OutputFormat.TEXT,
) -> None:
    """List the leases of all runs, the one that ends first at the top.

    Each RUNNING step that a worker of this kind has claimed has a lease. The age
    counts from the last claim. To end a lease, use release; never delete it.

    Needs GOOGLE_CLOUD_PROJECT and the index in deploy/firestore.indexes.json.
    Exit code 0: the list was printed, even if it is empty. 2: bad settings or
    arguments. 3: Firestore refuses, does not answer, or the index is missing.
    """
    from daemon.cli.lists.leases import lease_row_pages

    print_list(
        lambda client: lease_row_pages(client, owner=owner, is_expired=expired),
        COLUMNS,
        limit=limit,
        output=output,
    )
