"""A run, its leases and what is in the bucket, put together to a report. Pure.

Others write runs too: whatever is wrong in one is shown, and hides nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from daemon.cli.status.report import Charts, Hold, Holding, Problem, RunReport, StepReport
from daemon.cli.status.step_order import reading_order
from daemon.cli.status.times import step_times
from worker_chart_export.errors import RunInvalid
from worker_chart_export.inputs.flow_run import CHART_EXPORT, FlowRun, Step, StepStatus
from worker_chart_export.ledger.lease.lease import NEVER

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.ledger.lease.lease import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look into the bucket gave for one step.

    Attributes:
        manifest: It matches its schema; None if there is none or it could not be read.
        stored: Charts stored so far by a step that is RUNNING.
        problem: Why one of them is not known.
    """

    manifest: Mapping[str, Any] | None = None
    stored: int | None = None
    problem: str | None = None


def run_report(
    run: FlowRun, leases: Mapping[str, Lease], found: Mapping[str, Found], *, read_at: datetime
) -> RunReport:
    """The report of a run as it was at `read_at`, the server's time."""
    steps = run.document["steps"]
    order = reading_order({str(name): _depends_on(raw) for name, raw in steps.items()})
    return RunReport(
        run_id=run.run_id,
        status=run.status.value if run.status else "",
        symbol=_text(_map(run.document.get("scope")).get("symbol")),
        flow_key=_text(run.document.get("flowKey")),
        read_at=read_at,
        is_final=run.is_final,
        steps=tuple(
            _step_report(run, name, leases.get(name), found.get(name, Found()), read_at) for name in order
        ),
    )


def step_status(raw_step: object) -> str:
    """The step's status as text, whatever stands there."""
    return _text(_map(raw_step).get("status"))


def manifest_uri(raw_step: object) -> str | None:
    """Where the step's manifest is: in its outputs, or in the details of its error."""
    step = _map(raw_step)
    outputs, details = _map(step.get("outputs")), _map(_map(step.get("error")).get("details"))
    names = (outputs.get("gcs_uri"), outputs.get("outputsManifestGcsUri"), details.get("manifestGcsUri"))
    return next((name for name in names if isinstance(name, str) and name), None)


def _step_report(
    run: FlowRun, step_id: str, lease: Lease | None, found: Found, read_at: datetime
) -> StepReport:
    raw = _map(run.document["steps"][step_id])
    status = step_status(raw)
    is_chart_step = raw.get("stepType") == CHART_EXPORT
    step, waits_for, invalid_because = _parsed(run, step_id)
    return StepReport(
        step_id=step_id,
        step_type=_text(raw.get("stepType")),
        timeframe=_text(raw.get("timeframe")),
        status=status,
        waits_for={} if step is None or step.status.is_final else waits_for,
        holding=holding(lease, is_running=status == StepStatus.RUNNING, leased=is_chart_step, now=read_at),
        invalid_because=invalid_because,
        times=step_times(raw, status, lease, found.manifest, read_at=read_at),
        charts=_charts(raw, status, found) if is_chart_step else None,
        error=_problem(raw.get("error")) if raw.get("error") is not None else None,
        manifest_uri=manifest_uri(raw) if is_chart_step else None,
    )


def holding(lease: Lease | None, *, is_running: bool, leased: bool, now: datetime) -> Holding:
    """Who has a step; `leased` says whether steps of its kind are worked under leases."""
    if lease is None:
        return Holding(hold=Hold.UNLEASED if is_running and leased else Hold.NONE)
    left_seconds = (lease.expires_at - now).total_seconds()
    if not is_running:
        hold = Hold.LEFT_OVER
    elif lease.is_released:
        hold = Hold.RELEASED
    else:
        hold = Hold.LIVE if left_seconds > 0 else Hold.OVER
    return Holding(
        hold=hold,
        owner=lease.owner,
        attempt=lease.attempt,
        released=lease.released,
        age_seconds=None if lease.acquired_at == NEVER else (now - lease.acquired_at).total_seconds(),
        left_seconds=None if lease.expires_at == NEVER else left_seconds,
    )


def _parsed(run: FlowRun, step_id: str) -> tuple[Step | None, dict[str, str], str | None]:
    """The step, what it waits for, and why it can't be read."""
    try:
        step = run.step(step_id)
        if step is None:
            return None, {}, f"steps.{step_id}: expected a map, got nothing"
        steps = run.document["steps"]
        unmet = run.unmet_dependencies(step)
        return step, {name: step_status(steps.get(name)) or "missing" for name in unmet}, None
    except RunInvalid as error:
        return None, {}, str(error)


def _charts(raw: Mapping[str, Any], status: str, found: Found) -> Charts:
    requests = _map(raw.get("inputs")).get("requests")
    asked = len(requests) if _is_list(requests) else None
    manifest = found.manifest
    if manifest is None:
        known = status in {StepStatus.PENDING, StepStatus.READY} or (
            status == StepStatus.FAILED and manifest_uri(raw) is None
        )
        done = 0 if known else found.stored
        return Charts(done=done, requested=asked, stored={}, failures={}, unknown_because=found.problem)
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
    error = _map(raw)
    details = {str(name): value for name, value in _map(error.get("details")).items()}
    return Problem(
        code=_text(error.get("code")) or "no code",
        message=_text(error.get("message")) or ("no message" if error else _text(raw)),
        details=details,
    )


def _depends_on(raw: object) -> list[str]:
    names = _map(raw).get("dependsOn")
    return [name for name in names if isinstance(name, str)] if _is_list(names) else []


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return "" if value is None else str(value)
