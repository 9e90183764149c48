"""When a step was worked, as its run, its lease and its manifest say. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from daemon.cli.status.report import Times
from daemon.cli.status.wording import span
from worker_chart_export.errors import shown
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease.lease import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.ledger.lease.lease import Lease

#: A step that is to be worked anew starts anew.
BEGUN = frozenset({StepStatus.RUNNING, StepStatus.SUCCEEDED, StepStatus.FAILED})
#: The start is told by the server's clock, the end by a worker's: so much is no mistake.
CLOCKS_DIFFER_SECONDS = 1.0


def step_times(
    step: Mapping[str, Any],
    status: str,
    lease: Lease | None,
    manifest: Mapping[str, Any] | None,
    *,
    read_at: datetime,
) -> Times:
    """The times of a step as its run has it, with what is wrong in them."""
    written = step.get("finishedAt")
    finished_at = _instant(written)
    started_at = _started_at(lease, manifest) if status in BEGUN else None
    until = read_at if status == StepStatus.RUNNING else finished_at
    took_seconds = (until - started_at).total_seconds() if until and started_at else None
    wrong = f"finishedAt is no time: {shown(written)}" if written is not None and not finished_at else None
    if took_seconds is not None and took_seconds <= -CLOCKS_DIFFER_SECONDS:
        wrong = wrong or _backwards(took_seconds, is_running=status == StepStatus.RUNNING)
        took_seconds = None
    return Times(
        started_at=started_at,
        finished_at=finished_at,
        took_seconds=None if took_seconds is None else max(took_seconds, 0.0),
        wrong=wrong,
    )


def _backwards(took_seconds: float, *, is_running: bool) -> str:
    early = span(-took_seconds)
    what = f"it starts {early} from now" if is_running else f"it finished {early} before it started"
    return f"{what}: a clock was wrong"


def _started_at(lease: Lease | None, manifest: Mapping[str, Any] | None) -> datetime | None:
    if lease is not None and lease.started_at != NEVER:
        return lease.started_at
    # A chart's time of generation is that of the step's first claim, whoever made it.
    items = manifest["items"] if manifest else ()
    return min((made for item in items if (made := _instant(item["generatedAt"]))), default=None)


def _instant(value: object) -> datetime | None:
    """A time as orchestrators write it, RFC 3339 or a Firestore timestamp; None for anything else."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC) if isinstance(moment, datetime) and moment.tzinfo else None
    except (ValueError, OverflowError):  # the second: in UTC it lies before the year 1, or after 9999
        return None
