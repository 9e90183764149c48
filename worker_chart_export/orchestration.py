"""What the worker writes into a flow run, and the one guarded way it writes it.

The names that others rely on. Decisions and patches are pure: they take the run as read and say what to
write. `claim_step_transaction` and `finalize_step` read, ask them, and commit with the `update_time` of every
document the decision used as precondition: one atomic compare-and-commit, read again after a lost race. Not a
Firestore transaction, because those serialise through locks: losers wait seconds each and then fail outright,
while a lost conditional commit costs one read. The daemon's ledger goes the same way, for many steps at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import StepError
from worker_chart_export.ledger.commit.group_commit import GroupCommits
from worker_chart_export.ledger.decisions import (
    ClaimResult,
    FinalizeResult,
    Reason,
    build_claim_update,
    build_finalize_failure_update,
    build_finalize_success_update,
)
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from worker_chart_export.ledger.lease import HeldLease, LeaseOffer

__all__ = [
    "ClaimResult",
    "FinalizeResult",
    "Reason",
    "StepError",
    "build_claim_update",
    "build_finalize_failure_update",
    "build_finalize_success_update",
    "claim_step_transaction",
    "finalize_step",
]


def claim_step_transaction(
    *, client: Any, run_id: str, step_id: str, lease: LeaseOffer | None = None
) -> ClaimResult:
    """Claim a step, READY -> RUNNING, so that one caller alone wins it.

    Args:
        client: A Firestore client, or anything with its `collection().document().get()/update()`.
        run_id: The run.
        step_id: The step.
        lease: The lease to take in the same commit, also from a holder whose own is over; None claims a READY
            step without one.

    Raises:
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is away, the race could not be decided in time, or the commit got no
            clear answer and the step is RUNNING: a claim without a lease can't be told from somebody else's.
        BackendRefused: Firestore refuses.
    """
    intent = ClaimIntent(step_id=step_id, offer=lease)
    result: ClaimResult = _commits(client, run_id).submit(intent).result
    return result


def finalize_step(
    *,
    client: Any,
    run_id: str,
    step_id: str,
    status: str,
    finished_at: str,
    outputs_manifest_gcs_uri: str | None = None,
    error: StepError | None = None,
    lease: HeldLease | None = None,
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
        lease: The lease that guards it, deleted in the same commit; None: the step's status alone does.

    Raises:
        ValueError: `status` and its companion argument don't go together.
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    intent = FinalizeIntent(
        step_id=step_id,
        status=status,
        finished_at=finished_at,
        manifest_uri=outputs_manifest_gcs_uri,
        error=error,
        token=lease.lease.token if lease else None,
    )
    result: FinalizeResult = _commits(client, run_id).submit(intent, held=lease).result
    return result


def _commits(client: Any, run_id: str) -> Any:
    return GroupCommits(client=client, clock=SystemClock()).of(run_id)
