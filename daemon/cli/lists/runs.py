"""List the runs that match a filter, with the number of their chart steps in each status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from daemon.reports.assemble import as_map, as_text, parse_instant
from worker_chart_export.inputs.flow_run import CHART_EXPORT, StepStatus
from worker_chart_export.ledger.listing import run_pages
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run in a list. Its texts are those of the document, whatever their type.

    Attributes:
        steps: Status -> how many chart steps have it.
    """

    run_id: str
    status: str
    symbol: str
    flow_key: str
    created_at: datetime | None
    read_at: datetime
    steps: Mapping[str, int]

    @property
    def age(self) -> timedelta | None:
        """The time since the run was created."""
        return None if self.created_at is None else self.read_at - self.created_at

    @property
    def counts(self) -> str:
        """The number of chart steps in each status: `2 SUCCEEDED, 1 RUNNING`."""
        known = [*StepStatus]
        names = sorted(self.steps, key=lambda name: (known.index(name) if name in known else 99, name))
        return ", ".join(f"{self.steps[name]} {name}" for name in names) or "no chart steps"

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. Its names are stable."""
        return {
            "runId": self.run_id,
            "status": self.status or None,
            "symbol": self.symbol or None,
            "flowKey": self.flow_key or None,
            "createdAt": None if self.created_at is None else rfc3339(self.created_at),
            "ageSeconds": None if self.age is None else round(self.age.total_seconds(), 3),
            "chartSteps": dict(self.steps),
        }


def run_row_pages(
    client: Any, *, statuses: frozenset[str], symbol: str | None, since: timedelta | None
) -> Iterator[list[RunRow]]:
    """Yield the runs that match, page by page, the newest first.

    Args:
        client: A Firestore client.
        statuses: Runs with one of these statuses; empty: with any.
        symbol: Runs with this `scope.symbol`; None: with any.
        since: The largest age.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    created_since = None if since is None else datetime.now(UTC) - since
    for page in run_pages(client, created_since=created_since):
        rows = [_row(listed.run_id, listed.fields, listed.read_at) for listed in page]
        yield [
            row
            for row in rows
            if (not statuses or row.status in statuses)
            and symbol in (None, row.symbol)
            and (since is None or (row.age is not None and row.age <= since))
        ]


def _row(run_id: str, fields: Mapping[str, Any], read_at: datetime) -> RunRow:
    steps = as_map(fields.get("steps")).values()
    statuses = (
        as_text(step.get("status")) for step in map(as_map, steps) if step.get("stepType") == CHART_EXPORT
    )
    return RunRow(
        run_id=run_id,
        status=as_text(fields.get("status")),
        symbol=as_text(as_map(fields.get("scope")).get("symbol")),
        flow_key=as_text(fields.get("flowKey")),
        created_at=parse_instant(fields.get("createdAt")),
        read_at=read_at,
        steps=Counter(statuses),
    )
