"""Decide whether a step may be claimed or finalized, and build the patches for it. Pure, without leases.

`intents` adds the leases to these decisions.
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from google.cloud import firestore

from worker_chart_export.inputs.flow_run import (
    CHART_EXPORT,
    FlowRun,
    RunStatus,
    Step,
    StepStatus,
    why_step_id_refused,
)
from worker_chart_export.ledger.lease import OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker_chart_export.errors import StepError
    from worker_chart_export.ledger.lease import Lease, StoredLease

FLOW_RUNS = "flow_runs"
#: The guard of a lease that must not exist yet.
ABSENT: Any = object()


class Reason(StrEnum):
    """Why a step was not claimed, finalized or released."""

    RUN_MISSING = "run_missing"
    RUN_FINAL = "run_final"
    STEP_MISSING = "step_missing"
    OTHER_TYPE = "other_type"
    STEP_FINAL = "step_final"
    STEP_RUNNING = "step_running"
    STEP_PENDING = "step_pending"
    DEPENDS_ON = "depends_on"
    NOT_RUNNING = "not_running"
    UNLEASED = "unleased"
    CRASH_LOOP = "crash_loop"
    REFUSED = "refused"
    FENCED = "fenced"
    LEASE_LOST = "lease_lost"
    NOT_FAILED = "not_failed"
    CHANGED = "changed"
    RELEASED = "released"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The result of a claim.

    Attributes:
        claimed: Whether this caller now has the step.
        status: The step's status after the call, or None when there is no such step.
        reason: Why the step was not claimed, or None.
        run: The run that the decision was made from.
        taken_over: The expired lease that was replaced or deleted, if there was one.
        lease_seconds_left: The time until the lease of another worker expires unless it is renewed, if that
            is why the step was not claimed.
    """

    claimed: bool
    status: str | None
    reason: str | None = None
    run: FlowRun | None = field(default=None, repr=False)
    taken_over: Lease | None = None
    lease_seconds_left: float | None = field(default=None, repr=False)

    @property
    def has_failed_the_step(self) -> bool:
        """Whether the claim has made the step FAILED, because no worker can work on it."""
        return self.reason in (Reason.CRASH_LOOP, Reason.REFUSED)


@dataclass(frozen=True, slots=True)
class FinalizeResult:
    """The result of a finalize.

    Attributes:
        updated: Whether the step has the result of this call.
        status: The step's status after the call, or None when there is no such step.
        reason: Why the result was not written, or None.
    """

    updated: bool
    status: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The result of a release.

    Attributes:
        released: Whether the lease was released.
        failed: Whether the step was failed instead.
        reason: Why neither was done, or None.
    """

    released: bool
    failed: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The facts that a decision is made from.

    Attributes:
        run: The run, or None when there is none.
        lease: The step's lease. None when there is none, or when it was not read.
        lease_is_known: Whether the lease was read.
        read_time: The server's time of the newest read. Leases are judged and computed by it.
        outcome_unknown: Whether an earlier commit for the same intent got no clear answer.
    """

    run: FlowRun | None
    lease: StoredLease | None = None
    lease_is_known: bool = False
    read_time: datetime | None = None
    outcome_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWrite:
    """A write to the lease document of a step.

    Attributes:
        lease: The new content. None deletes the document.
        guard: The `update_time` that the document must still have. `ABSENT`: there must be no document. None:
            delete it in any case.
    """

    lease: Lease | None
    guard: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A result, and the writes that must be committed before it is true."""

    result: Any
    run_patch: Mapping[str, Any] | None = None
    lease_write: LeaseWrite | None = None


def decide_claim(run: FlowRun | None, step_id: str, *, step_type: str | None = CHART_EXPORT) -> ClaimResult:
    """Decide whether the step may be claimed now. Leases are not considered.

    Args:
        run: The run.
        step_id: The step.
        step_type: The type that the caller works on. None: any type.

    Raises:
        RunInvalid: The step, or one that it depends on, can't be read.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        reason = Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        return ClaimResult(claimed=False, status=None, reason=reason, run=run)
    refusal = _why_not_claimable(run, step, step_type)
    status = step.status if refusal else StepStatus.RUNNING
    return ClaimResult(claimed=refusal is None, status=status.value, reason=refusal, run=run)


def _why_not_claimable(run: FlowRun, step: Step, step_type: str | None) -> Reason | None:
    if step_type is not None and step.step_type not in (None, step_type):
        return Reason.OTHER_TYPE
    if step.status.is_final:
        return Reason.STEP_FINAL
    if run.is_final:
        return Reason.RUN_FINAL
    if step.status is StepStatus.RUNNING:
        return Reason.STEP_RUNNING
    if step.status is StepStatus.PENDING:
        return Reason.STEP_PENDING
    return Reason.DEPENDS_ON if run.unmet_dependencies(step) else None


def decide_finalize(
    run: FlowRun | None, step_id: str, *, finished_at: str, outcome_unknown: bool
) -> FinalizeResult | None:
    """Decide whether the step may be finalized. Leases are not considered.

    Args:
        run: The run.
        step_id: The step.
        finished_at: The finishing time of this claim. It marks the claim's patch in the document.
        outcome_unknown: Whether an earlier commit of the same patch got no clear answer. Only then does
            `finished_at` in the step prove that the patch was written.

    Returns:
        The result, or None when the step is RUNNING and may be finalized.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        reason = Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        return FinalizeResult(updated=False, status=None, reason=reason)
    if step.status is StepStatus.RUNNING:
        return None
    landed = outcome_unknown and step.finished_at == finished_at
    reason = Reason.STEP_FINAL if step.status.is_final else Reason.NOT_RUNNING
    return FinalizeResult(updated=landed, status=step.status.value, reason=None if landed else reason)


def build_claim_update(step_id: str) -> dict[str, Any]:
    """Build the patch for READY -> RUNNING."""
    return _step_patch(step_id, {"status": StepStatus.RUNNING.value})


def build_finalize_success_update(
    *, step_id: str, finished_at: str, outputs_manifest_gcs_uri: str
) -> dict[str, Any]:
    """Build the patch for RUNNING -> SUCCEEDED.

    It names the manifest under its old and its new key, and deletes an error of an earlier failure.
    """
    outputs = {"outputsManifestGcsUri": outputs_manifest_gcs_uri, "gcs_uri": outputs_manifest_gcs_uri}
    return build_success_update(step_id=step_id, finished_at=finished_at, outputs=outputs)


def build_success_update(*, step_id: str, finished_at: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Build the patch for RUNNING -> SUCCEEDED of any type of step. It keeps other fields in `outputs`."""
    return _step_patch(
        step_id,
        {
            "status": StepStatus.SUCCEEDED.value,
            "finishedAt": finished_at,
            **{f"outputs.{name}": value for name, value in outputs.items()},
            "error": firestore.DELETE_FIELD,
        },
    )


def build_finalize_failure_update(*, step_id: str, finished_at: str, error: StepError) -> dict[str, Any]:
    """Build the patch for RUNNING -> FAILED. It does not change `outputs`."""
    return _step_patch(
        step_id, {"status": StepStatus.FAILED.value, "finishedAt": finished_at, "error": error.to_dict()}
    )


def build_failed_status_update(step_id: str) -> dict[str, Any]:
    """Build the shortest patch for a FAILED step, for a run document that is nearly full.

    FAILED is shorter than RUNNING, so this patch always fits. It removes what an earlier failure has left.
    """
    deleted = firestore.DELETE_FIELD
    return _step_patch(step_id, {"status": StepStatus.FAILED.value, "finishedAt": deleted, "error": deleted})


def build_retry_update(step_id: str) -> dict[str, Any]:
    """Build the patch for FAILED -> READY, which only an operator writes."""
    deleted = firestore.DELETE_FIELD
    return _step_patch(step_id, {"status": StepStatus.READY.value, "finishedAt": deleted, "error": deleted})


def build_reopen_update() -> dict[str, Any]:
    """Build the patch of a final run whose steps are to be worked on again."""
    deleted = firestore.DELETE_FIELD
    return {"status": RunStatus.RUNNING.value, "finishedAt": deleted, "error": deleted}


def build_lease_update(lease: Lease) -> dict[str, Any]:
    """Build the patch that makes an existing lease document equal to `lease`."""
    return dict.fromkeys(OPTIONAL, firestore.DELETE_FIELD) | lease.to_document()


def _step_patch(step_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Build the field paths for the client's `update()`, which quotes the parts between the dots itself.

    Raises:
        ValueError: With this step id the paths would lead to other fields.
    """
    if why := why_step_id_refused(step_id):
        raise ValueError(why)
    return {f"steps.{step_id}.{name}": value for name, value in fields.items()}


def patched(run: FlowRun, patch: Mapping[str, Any]) -> FlowRun:
    """Return the run as it is after `patch`: one of the patches above, or several of them merged."""
    steps, changed = run.document["steps"], dict[str, Any]()
    of_run = {path: value for path, value in patch.items() if "." not in path}
    of_steps = {path: value for path, value in patch.items() if path not in of_run}
    for path, value in of_steps.items():
        _, step_id, name = path.split(".", 2)
        changed[step_id] = _with_field(changed.get(step_id, steps[step_id]), name, value)
    document = _overlaid(run.document, {"steps": _overlaid(steps, changed), **of_run})
    return FlowRun(run_id=run.run_id, status=of_run.get("status", run.status), document=document)


def _overlaid(base: Mapping[str, Any], changed: Mapping[str, Any]) -> ChainMap[str, Any]:
    """Return `base` with changed entries. It is not copied: its other entries may still be undecoded."""
    if isinstance(base, ChainMap):
        earlier, base = base.maps
        changed = {**earlier, **changed}
    return ChainMap(dict(changed), cast("dict[str, Any]", base))


def _with_field(fields: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest:
        inner = fields.get(name)
        value = _with_field(inner if isinstance(inner, dict) else {}, rest, value)
    elif value is firestore.DELETE_FIELD:
        return {key: kept for key, kept in fields.items() if key != name}
    return {**fields, name: value}
