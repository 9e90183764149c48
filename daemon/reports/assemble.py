"""Assemble the report of a run from the run document, its leases and the bucket. Pure.

Other programs write run documents too. An error in one part is shown, and the other parts stay visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from daemon.reports.document_size import document_size
from daemon.reports.report import FINAL_STATUSES, Charts, Hold, Holding, Problem, RunReport, StepReport, Times
from worker_chart_export.descriptions import describe
from worker_chart_export.errors import RunInvalid, shown
from worker_chart_export.inputs.flow_run import CHART_EXPORT, FlowRun, Step, StepStatus, dependencies
from worker_chart_export.ledger.lease import NEVER
from worker_chart_export.outputs.manifest import claimed_by_of
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from collections.abc import Collection

    from worker_chart_export.ledger.lease import Lease

NOT_COUNTED = Charts(done=None, requested=None, stored={}, failures={})
#: Only these steps have a start time: a step in another status will start again.
STARTED = frozenset({StepStatus.RUNNING, StepStatus.SUCCEEDED, StepStatus.FAILED})
#: The start comes from the server's clock and the end from a worker's. A smaller difference is no error.
CLOCKS_DIFFER_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFacts:
    """What the bucket holds for one step.

    Attributes:
        manifest: A manifest that matches its schema; None if there is none, or if it could not be read.
        stored: How many charts a RUNNING step has stored so far.
        problem: Why one of the two is not known.
    """

    manifest: Mapping[str, Any] | None = None
    stored: int | None = None
    problem: str | None = None


def run_report(
    run: FlowRun,
    leases: Mapping[str, Lease],
    facts: Mapping[str, BucketFacts],
    *,
    read_at: datetime,
    bucket: str | None = None,
    unleased_grace_seconds: float | None = None,
) -> RunReport:
    """Assemble the report of a run.

    Args:
        run: The run document.
        leases: Step id -> lease.
        facts: Step id -> what the bucket holds.
        read_at: The server's time of the read.
        bucket: The charts bucket, if it is known.
        unleased_grace_seconds: `UNLEASED_GRACE_SECONDS`, if it is known.
    """
    depends_on: dict[str, list[str]] = {}
    for step_id, raw in run.document["steps"].items():
        names = as_map(raw).get("dependsOn")
        known = [name for name in names if isinstance(name, str)] if _is_list(names) else []
        depends_on[str(step_id)] = list(dependencies(known, run.document["steps"]))
    return RunReport(
        run_id=run.run_id,
        status=run.status.value if run.status else "",
        symbol=run.symbol,
        flow_key=as_text(run.document.get("flowKey")),
        read_at=read_at,
        is_final=run.is_final,
        steps=tuple(
            step_report(run, name, leases.get(name), facts.get(name, BucketFacts()), read_at)
            for name in reading_order(depends_on)
        ),
        document=document_size(run, bucket),
        unleased_grace_seconds=unleased_grace_seconds,
    )


def reading_order(depends_on: Mapping[str, Collection[str]]) -> list[str]:
    """Sort step ids, but put each step after the steps it depends on.

    Steps that depend on each other in a circle stay in the order in which they are reached.
    """
    ordered: dict[str, None] = {}
    for root in sorted(depends_on):
        # Not recursive: a chain of steps may be longer than Python's stack.
        stack, entered = [root], set[str]()
        while stack:
            step_id = stack[-1]
            before = {name for name in depends_on[step_id] if name in depends_on and name not in ordered}
            new = sorted(before - entered, reverse=True) if step_id not in entered else []
            entered.add(step_id)
            if new:
                stack += new
            else:
                stack.pop()
                ordered.setdefault(step_id)
    return list(ordered)


def step_status(raw_step: object) -> str:
    """Return the step's status as text, whatever its type."""
    return as_text(as_map(raw_step).get("status"))


def manifest_uri(raw_step: object) -> str | None:
    """Return the manifest's URI from the step's outputs, or from the details of its error."""
    step = as_map(raw_step)
    outputs, details = as_map(step.get("outputs")), as_map(as_map(step.get("error")).get("details"))
    names = (outputs.get("gcs_uri"), outputs.get("outputsManifestGcsUri"), details.get("manifestGcsUri"))
    return next((name for name in names if isinstance(name, str) and name), None)


def step_report(
    run: FlowRun, step_id: str, lease: Lease | None, facts: BucketFacts | None, read_at: datetime
) -> StepReport:
    """Assemble the report of one step; the arguments as in `run_report`.

    Without facts its charts are not counted, its manifest is not looked for, and a final step is not checked:
    lists have thousands of them.
    """
    raw = as_map(run.document["steps"][step_id])
    status = step_status(raw)
    is_chart_step = raw.get("stepType") == CHART_EXPORT
    is_checked = facts is not None or status not in FINAL_STATUSES
    step, waits_for, invalid_because = _parse_step(run, step_id) if is_checked else (None, {}, None)
    manifest = facts.manifest if facts else None
    charts = _charts(raw, status, facts) if facts else NOT_COUNTED
    holding = holding_of(lease, status, is_chart_step=is_chart_step, now=read_at)
    attempt, owner = _claim_of(raw, status, holding, manifest)
    return StepReport(
        step_id=step_id,
        step_type=as_text(raw.get("stepType")),
        timeframe=as_text(raw.get("timeframe")),
        status=status,
        waits_for={} if step is None or step.status.is_final else waits_for,
        holding=holding,
        invalid_because=invalid_because,
        times=step_times(raw, status, lease, manifest, read_at=read_at),
        charts=charts if is_chart_step else None,
        error=_problem(raw.get("error")) if raw.get("error") is not None else None,
        manifest_uri=manifest_uri(raw) if is_chart_step and facts else None,
        manifest=manifest,
        attempt=attempt,
        owner=owner,
    )


def _claim_of(
    raw: Mapping[str, Any], status: str, holding: Holding, manifest: Mapping[str, Any] | None
) -> tuple[int | None, str]:
    """Return attempt and owner of the claim that has the step, or that has finished it.

    A finished step has no lease. The items of its manifest say it, and the details of its error.
    """
    if status not in FINAL_STATUSES:
        return holding.attempt, holding.owner or ""
    details = as_map(as_map(raw.get("error")).get("details"))
    said = {**details, **(claimed_by_of(manifest) if manifest else {})}
    attempt, owner = said.get("attempt"), said.get("owner") or said.get("lastOwner")
    return (
        attempt if isinstance(attempt, int) else holding.attempt,
        owner if isinstance(owner, str) else holding.owner or "",
    )


def _parse_step(run: FlowRun, step_id: str) -> tuple[Step | None, dict[str, str], str | None]:
    """Return the step, the steps it waits for, and why it can't be read."""
    try:
        step = run.step(step_id)
        if step is None:
            return None, {}, f"steps.{step_id}: expected a map, got nothing"
        steps = run.document["steps"]
        unmet = run.unmet_dependencies(step)
        return step, {name: step_status(steps.get(name)) or "missing" for name in unmet}, None
    except RunInvalid as error:
        return None, {}, str(error)


def holding_of(lease: Lease | None, status: str, *, is_chart_step: bool, now: datetime) -> Holding:
    """Describe who holds a step of this status at `now`, the server's time."""
    is_running = status == StepStatus.RUNNING
    if lease is None:
        return Holding(hold=Hold.UNLEASED if is_running and is_chart_step else Hold.NONE)
    left_seconds = (lease.expires_at - now).total_seconds()
    if not is_running:
        hold = Hold.RETRY if lease.is_for_retry and status == StepStatus.READY else Hold.LEFT_OVER
    elif lease.is_released:
        hold = Hold.RELEASED
    else:
        hold = Hold.LIVE if left_seconds > 0 else Hold.EXPIRED
    return Holding(
        hold=hold,
        owner=lease.owner,
        attempt=lease.attempt,
        released=lease.released,
        age_seconds=None if lease.acquired_at == NEVER else (now - lease.acquired_at).total_seconds(),
        left_seconds=None if lease.expires_at == NEVER else left_seconds,
    )


def step_times(
    step: Mapping[str, Any],
    status: str,
    lease: Lease | None,
    manifest: Mapping[str, Any] | None,
    *,
    read_at: datetime,
) -> Times:
    """Return when the step started and finished, and what is wrong with these times."""
    written = step.get("finishedAt")
    finished_at = parse_instant(written)
    wrong = f"finishedAt is no time: {shown(written)}" if written is not None and not finished_at else None
    is_running = status == StepStatus.RUNNING
    started_at = _started_at(lease, manifest) if status in STARTED else None
    until = read_at if is_running else finished_at
    took_seconds = (until - started_at).total_seconds() if until and started_at else None
    if took_seconds is not None and took_seconds <= -CLOCKS_DIFFER_SECONDS:
        early = span(-took_seconds)
        what = f"it starts {early} from now" if is_running else f"it finished {early} before it started"
        wrong = wrong or f"{what}: a clock was wrong"
        took_seconds = None
    return Times(
        started_at=started_at,
        finished_at=finished_at,
        took_seconds=None if took_seconds is None else max(took_seconds, 0.0),
        wrong=wrong,
    )


def _started_at(lease: Lease | None, manifest: Mapping[str, Any] | None) -> datetime | None:
    if lease is not None and lease.started_at != NEVER:
        return lease.started_at
    # `generatedAt` of a chart is the time of the step's first claim, whichever attempt stored it.
    items = manifest["items"] if manifest else ()
    return min((time for item in items if (time := parse_instant(item["generatedAt"]))), default=None)


def parse_instant(value: object) -> datetime | None:
    """Parse a time as orchestrators write it: RFC 3339 or a Firestore timestamp; None for anything else."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC) if isinstance(moment, datetime) and moment.tzinfo else None
    except (ValueError, OverflowError):  # OverflowError: in UTC the year is below 1 or above 9999
        return None


def _charts(raw: Mapping[str, Any], status: str, facts: BucketFacts) -> Charts:
    manifest = facts.manifest
    if manifest is None:
        requests = as_map(raw.get("inputs")).get("requests")
        has_none = status in {StepStatus.PENDING, StepStatus.READY} or (
            status == StepStatus.FAILED and manifest_uri(raw) is None
        )
        return Charts(
            done=0 if has_none else facts.stored,
            requested=len(requests) if _is_list(requests) else None,
            stored={},
            failures={},
            unknown_because=facts.problem,
        )
    return Charts(
        done=len(manifest["items"]),
        requested=len(manifest["requested"]),
        stored={item["chartTemplateId"]: item["png_gcs_uri"] for item in manifest["items"]},
        failures={
            failure["request"]["chartTemplateId"]: _problem(failure["error"])
            for failure in manifest.get("failures", ())
        },
    )


def _problem(raw: object) -> Problem:
    error = as_map(raw)
    code = as_text(error.get("code"))
    return Problem(
        code=code or "no code",
        message=as_text(error.get("message")) or describe(code) or ("no message" if error else as_text(raw)),
        details={str(name): value for name, value in as_map(error.get("details")).items()},
    )


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def as_map(value: object) -> Mapping[str, Any]:
    """Return a map of a stored document; what is no map counts as an empty one."""
    if value is None:  # the most frequent one
        return {}
    return value if isinstance(value, Mapping) else {}


def as_text(value: object) -> str:
    """Return a value of a stored document as text; a missing one is empty."""
    return "" if value is None else str(value)
