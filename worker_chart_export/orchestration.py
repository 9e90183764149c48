"""Claim and finalize steps: the public functions, and the patches that they write.

Workers use `claim_step`, which holds a step of any type while they work on it: see docs/library.md.
`claim_step_transaction` and `finalize_step` are the two ends of that, without heartbeats.

The decisions and patches are pure: they take a run as it was read and return what to write.
`claim_step_transaction` and `finalize_step` read the run, decide, and commit. The commit names the
`update_time` of each document that the decision used as its precondition. After a lost race they read again.
The daemon's ledger does the same, for many steps at once.

This is one atomic compare-and-commit, and not a Firestore transaction. Transactions take locks: the losers of
a race wait seconds each, and then fail. A lost conditional commit costs one read.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google_errors

from worker_chart_export.errors import (
    FIRESTORE,
    BackendRefused,
    BackendUnavailable,
    Interrupted,
    LeaseLost,
    NotClaimedReason,
    RunInvalid,
    StepEnded,
    StepError,
    StepNotClaimed,
    StepNotFinished,
    StepStatusName,
    WorkerError,
)
from worker_chart_export.inputs.flow_run import FlowRun, why_run_id_refused
from worker_chart_export.ledger.claimed_step import GS_URI, ClaimedStep, claim_step
from worker_chart_export.ledger.commit.group_commit import RETRY, GroupCommits
from worker_chart_export.ledger.decisions import (
    FLOW_RUNS,
    ClaimResult,
    FinalizeResult,
    Observation,
    Reason,
    build_claim_update,
    build_finalize_failure_update,
    build_finalize_success_update,
)
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent
from worker_chart_export.ledger.lease import LeaseTerms
from worker_chart_export.timing import SystemClock, is_rfc3339

if TYPE_CHECKING:
    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.lease import HeldLease, LeaseOffer

__all__ = [
    "BackendRefused",
    "BackendUnavailable",
    "ClaimResult",
    "ClaimedStep",
    "FinalizeResult",
    "Interrupted",
    "LeaseLost",
    "LeaseTerms",
    "NotClaimedReason",
    "Reason",
    "RunInvalid",
    "StepEnded",
    "StepError",
    "StepNotClaimed",
    "StepNotFinished",
    "StepStatusName",
    "WorkerError",
    "build_claim_update",
    "build_finalize_failure_update",
    "build_finalize_success_update",
    "claim_step",
    "claim_step_transaction",
    "finalize_step",
]


#: The most attempts of a claim or finalize with a client that has no commits of several documents.
MAX_LOST_RACES = 5


def claim_step_transaction(
    *, client: Any, run_id: str, step_id: str, lease: LeaseOffer | None = None
) -> ClaimResult:
    """Claim a step, READY -> RUNNING. Exactly one caller wins it.

    Args:
        client: A Firestore client, or a minimal one with `collection().document().get()/update()`. If that
            has `write_option()`, its `update()` must take an `option`.
        run_id: The run.
        step_id: The step.
        lease: The lease to take in the same commit. With it the step is also taken over from a worker whose
            own lease has expired. None: claim a READY step without a lease. A minimal client has no leases.

    Raises:
        ValueError: `run_id` can't be one.
        RunInvalid: The document can't be read as a flow run, or is so full that it can't store the claim.
        BackendUnavailable: Firestore is unavailable, or the race could not be decided in time. Or the commit
            got no clear answer and the step is RUNNING: without a lease, the winner is unknown.
        BackendRefused: Firestore refuses.
    """
    result: ClaimResult = _submit(client, run_id, ClaimIntent(step_id=step_id, offer=lease))
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
    """Finalize a RUNNING step, once. A step that is not RUNNING is not changed.

    Args:
        client: As in `claim_step_transaction`.
        run_id: The run.
        step_id: The step.
        status: `SUCCEEDED` (needs `outputs_manifest_gcs_uri`) or `FAILED` (needs `error`).
        finished_at: RFC 3339, with a time zone. Made once for each claim.
        outputs_manifest_gcs_uri: The manifest of a SUCCEEDED step, `gs://bucket/object`.
        error: The error of a FAILED step.
        lease: The caller's lease; deleted in the same commit. None: the caller has no lease. Then the step
            is not changed (`fenced`) while another worker has a valid lease of it.

    Raises:
        ValueError: `status` does not match the other arguments, or an argument has the wrong form.
        RunInvalid: The document can't be read as a flow run.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    if {"SUCCEEDED": outputs_manifest_gcs_uri, "FAILED": error}.get(status) is None:
        raise ValueError(f"{status!r}: expected SUCCEEDED with outputs_manifest_gcs_uri or FAILED with error")
    if not is_rfc3339(finished_at):
        raise ValueError(
            f"finished_at: expected RFC 3339, e.g. 2025-12-15T10:26:15Z, got {finished_at!r:.80}"
        )
    if status == "SUCCEEDED" and not GS_URI.fullmatch(str(outputs_manifest_gcs_uri)):
        got = f"{outputs_manifest_gcs_uri!r:.80}"
        raise ValueError(f"outputs_manifest_gcs_uri: expected gs://bucket/object, got {got}")
    intent = FinalizeIntent(
        step_id=step_id,
        finished_at=finished_at,
        manifest_uri=outputs_manifest_gcs_uri,
        error=error if status == "FAILED" else None,
        token=lease.lease.token if lease else None,
    )
    result: FinalizeResult = _submit(client, run_id, intent, held=lease)
    return result


def _submit(client: Any, run_id: str, intent: Intent, held: HeldLease | None = None) -> Any:
    if problem := why_run_id_refused(run_id):  # "a/b/c" is a path to another document
        raise ValueError(problem)
    if hasattr(client, "batch"):  # atomic commits of a run and its leases
        commits = GroupCommits(client=client, clock=SystemClock()).of(run_id)
        return commits.submit(intent, held=held).result
    return _apply_unguarded(client, run_id, intent)


def _apply_unguarded(client: Any, run_id: str, intent: Intent) -> Any:
    """Decide and write with a minimal client, which has no commits of several documents, thus no leases.

    The write has a precondition if the client has preconditions and its snapshot has an update time.

    Raises:
        BackendUnavailable: Each race was lost.
    """
    if isinstance(intent, ClaimIntent):
        intent = replace(intent, offer=None)
    reference = client.collection(FLOW_RUNS).document(run_id)
    lost = 0
    while True:
        snapshot = reference.get()
        document = snapshot.to_dict() if getattr(snapshot, "exists", True) else None
        run = None if document is None else FlowRun.parse(run_id, document)
        decision = intent.decide(Observation(run=run, lease_is_known=True))
        if decision is None:
            raise AssertionError("unreachable: claims without a lease and finalizes need no read time")
        try:
            if decision.run_patch:
                reference.update(dict(decision.run_patch), **_precondition(client, snapshot))
        except (google_errors.FailedPrecondition, google_errors.Aborted) as error:
            lost += 1
            if lost >= MAX_LOST_RACES:
                raise BackendUnavailable(FIRESTORE, f"run {run_id} is contended") from error
            threading.Event().wait(RETRY.delay_seconds(lost))
        else:
            return decision.result


def _precondition(client: Any, snapshot: Any) -> dict[str, Any]:
    update_time = getattr(snapshot, "update_time", None)
    if update_time is None or not hasattr(client, "write_option"):
        return {}
    return {"option": client.write_option(last_update_time=update_time)}
