"""What the worker writes into a flow run, and the one guarded way it writes it.

Decisions and patches are pure: they take the run as read and say what to write. `claim_step_transaction` and
`finalize_step` read, ask them, and commit with the run's `update_time` as precondition: one atomic
compare-and-commit, read again after a lost race. Not a Firestore transaction, because those serialise through
locks: losers wait seconds each and then fail outright, while a lost conditional commit costs one read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from google.cloud import firestore

from worker_chart_export.conditional_commit import (
    GIVE_UP_AFTER_SECONDS,
    DocumentSnapshot,
    Verdict,
    compare_and_commit,
    document_of,
    read_document,
)
from worker_chart_export.errors import BackendUnavailable, StepError
from worker_chart_export.flow_run import FlowRun, Step, StepStatus
from worker_chart_export.identifiers import why_step_id_refused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ClaimResult",
    "FinalizeResult",
    "Reason",
    "StepError",
    "build_claim_update",
    "build_finalize_failure_update",
    "build_finalize_success_update",
    "claim_step_transaction",
    "decide_claim",
    "decide_finalize",
    "finalize_step",
    "read_run",
]

FLOW_RUNS = "flow_runs"


class Reason(StrEnum):
    """Why a claim or a finalize was not made."""

    RUN_MISSING = "run_missing"
    RUN_FINAL = "run_final"
    STEP_MISSING = "step_missing"
    OTHER_TYPE = "other_type"
    STEP_FINAL = "step_final"
    STEP_RUNNING = "step_running"
    STEP_PENDING = "step_pending"
    DEPENDS_ON = "depends_on"
    NOT_RUNNING = "not_running"


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The end of a claim.

    Attributes:
        claimed: Whether the step is now this caller's.
        status: The step's status after the call, or None when there is no such step.
        reason: Why it was not claimed, or None.
        run: The run as the decision saw it.
    """

    claimed: bool
    status: str | None
    reason: str | None = None
    run: FlowRun | None = None


@dataclass(frozen=True, slots=True)
class FinalizeResult:
    """The end of a finalize; `updated` says whether this call's result is the one that stands."""

    updated: bool
    status: str | None
    reason: str | None = None


def build_claim_update(step_id: str) -> dict[str, Any]:
    """READY -> RUNNING as a field-path patch."""
    return _step_patch(step_id, {"status": StepStatus.RUNNING.value})


def build_finalize_success_update(
    *, step_id: str, finished_at: str, outputs_manifest_gcs_uri: str
) -> dict[str, Any]:
    """RUNNING -> SUCCEEDED; names the manifest under its old and its new key and deletes a stale error."""
    return _step_patch(
        step_id,
        {
            "status": StepStatus.SUCCEEDED.value,
            "finishedAt": finished_at,
            "outputs.outputsManifestGcsUri": outputs_manifest_gcs_uri,
            "outputs.gcs_uri": outputs_manifest_gcs_uri,
            "error": firestore.DELETE_FIELD,
        },
    )


def build_finalize_failure_update(*, step_id: str, finished_at: str, error: StepError) -> dict[str, Any]:
    """RUNNING -> FAILED with its error; `outputs` stay untouched."""
    return _step_patch(
        step_id, {"status": StepStatus.FAILED.value, "finishedAt": finished_at, "error": error.to_dict()}
    )


def _step_patch(step_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Field paths for the client's `update()`, which quotes what stands between the dots itself.

    Raises:
        ValueError: The step id would make them paths to something else.
    """
    if why := why_step_id_refused(step_id):
        raise ValueError(why)
    return {f"steps.{step_id}.{name}": value for name, value in fields.items()}


def decide_claim(run: FlowRun | None, step_id: str) -> ClaimResult:
    """Whether the step may be claimed now.

    Raises:
        RunInvalid: The step or one it depends on can't be read.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        reason = Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        return ClaimResult(claimed=False, status=None, reason=reason, run=run)
    refusal = _why_not_claimable(run, step)
    status = step.status if refusal else StepStatus.RUNNING
    return ClaimResult(claimed=refusal is None, status=status.value, reason=refusal, run=run)


def _why_not_claimable(run: FlowRun, step: Step) -> Reason | None:
    if not step.is_chart_export and step.step_type is not None:
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
    """The verdict on a finalize, or None when the step is RUNNING and the patch is to be committed.

    Args:
        run: The run as just read.
        step_id: The step.
        finished_at: This claim's own finishing time, which marks its patch in the document.
        outcome_unknown: Whether an earlier commit of this very patch got no clear answer; only then does
            finding `finished_at` in the step mean that it was ours.
    """
    step = run.step(step_id) if run else None
    if run is None or step is None:
        return FinalizeResult(
            updated=False, status=None, reason=Reason.RUN_MISSING if run is None else Reason.STEP_MISSING
        )
    if step.status is StepStatus.RUNNING:
        return None
    landed = outcome_unknown and step.finished_at == finished_at
    reason = Reason.STEP_FINAL if step.status.is_final else Reason.NOT_RUNNING
    return FinalizeResult(updated=landed, status=step.status.value, reason=None if landed else reason)


def claim_step_transaction(*, client: Any, run_id: str, step_id: str, lease: None = None) -> ClaimResult:
    """Claim a step, READY -> RUNNING, so that one caller alone wins it.

    Args:
        client: A Firestore client, or anything with its `collection().document().get()/update()`.
        run_id: The run.
        step_id: The step.
        lease: None: the claim is made without a lease.

    Raises:
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is away, the race could not be decided in time, or the commit got no
            clear answer and the step is RUNNING: a claim without a lease can't be told from somebody else's.
        BackendRefused: Firestore refuses.
    """
    del lease

    def decide(snapshot: DocumentSnapshot, *, outcome_unknown: bool) -> Verdict[ClaimResult]:
        result = decide_claim(_parse(run_id, snapshot), step_id)
        if outcome_unknown and result.reason is Reason.STEP_RUNNING:
            raise BackendUnavailable("firestore", "it is unknown whether the claim was committed")
        return Verdict(result=result, patch=build_claim_update(step_id) if result.claimed else None)

    return compare_and_commit(client, FLOW_RUNS, run_id, decide)


def finalize_step(
    *,
    client: Any,
    run_id: str,
    step_id: str,
    status: str,
    finished_at: str,
    outputs_manifest_gcs_uri: str | None = None,
    error: StepError | None = None,
    lease: None = None,
    give_up_after_seconds: float = GIVE_UP_AFTER_SECONDS,
) -> FinalizeResult:
    """Finalize a RUNNING step, once; a step that is not RUNNING is left as it is.

    Args:
        client: As in `claim_step_transaction`.
        run_id: The run.
        step_id: The step.
        status: `SUCCEEDED` (needs `outputs_manifest_gcs_uri`) or `FAILED` (needs `error`).
        finished_at: RFC 3339; made once per claim.
        outputs_manifest_gcs_uri: The manifest of a SUCCEEDED step.
        error: The error of a FAILED step.
        lease: None: the finalize is guarded by the step's status alone.
        give_up_after_seconds: How long it is tried while Firestore is away or contended.

    Raises:
        ValueError: `status` and its companion argument don't go together.
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    del lease
    patch = _finalize_patch(step_id, status, finished_at, outputs_manifest_gcs_uri, error)

    def decide(snapshot: DocumentSnapshot, *, outcome_unknown: bool) -> Verdict[FinalizeResult]:
        refusal = decide_finalize(
            _parse(run_id, snapshot), step_id, finished_at=finished_at, outcome_unknown=outcome_unknown
        )
        if refusal is not None:
            return Verdict(result=refusal, patch=None)
        return Verdict(result=FinalizeResult(updated=True, status=status), patch=patch)

    return compare_and_commit(client, FLOW_RUNS, run_id, decide, give_up_after_seconds=give_up_after_seconds)


def _finalize_patch(
    step_id: str, status: str, finished_at: str, manifest_uri: str | None, error: StepError | None
) -> dict[str, Any]:
    if status == StepStatus.SUCCEEDED and manifest_uri is not None:
        return build_finalize_success_update(
            step_id=step_id, finished_at=finished_at, outputs_manifest_gcs_uri=manifest_uri
        )
    if status == StepStatus.FAILED and error is not None:
        return build_finalize_failure_update(step_id=step_id, finished_at=finished_at, error=error)
    raise ValueError(f"{status!r}: expected SUCCEEDED with outputs_manifest_gcs_uri or FAILED with error")


def read_run(*, client: Any, run_id: str) -> FlowRun | None:
    """The run as it is now, or None when there is none.

    Raises:
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    return _parse(run_id, read_document(client, FLOW_RUNS, run_id))


def _parse(run_id: str, snapshot: DocumentSnapshot) -> FlowRun | None:
    document = document_of(snapshot)
    return None if document is None else FlowRun.parse(run_id, document)
