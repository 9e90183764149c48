"""The worker's book of claims: who works which step, from claim to finalize.

The daemon's way to the decisions of `orchestration`. A claim is the plain conditional commit without a lease:
a step left RUNNING by a crash is not taken over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.clock import rfc3339
from worker_chart_export.conditional_commit import GIVE_UP_AFTER_SECONDS, create_document
from worker_chart_export.errors import ErrorCode, StepError
from worker_chart_export.logs import Event, log
from worker_chart_export.orchestration import FLOW_RUNS, claim_step_transaction, finalize_step, read_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker_chart_export.clock import Clock
    from worker_chart_export.errors import BackendUnavailable
    from worker_chart_export.flow_run import FlowRun, Step
    from worker_chart_export.orchestration import ClaimResult, FinalizeResult

#: What a step fails with when this backend stays away and the step can't be given back.
CODE_OF_BACKEND = {"storage": ErrorCode.GCS_WRITE_FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A step that is this worker's to work.

    Attributes:
        run: The run as the claim saw it.
        step: The step, still as it was before the claim.
        started_at: When the step was first claimed; part of its objects' names.
    """

    run: FlowRun
    step: Step
    started_at: datetime


class StepLedger:
    """Claims and finalizes steps. Shared by all threads.

    Args:
        client: A Firestore client.
        clock: Gives the times that are written.
    """

    def __init__(self, *, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    def read(self, run_id: str) -> FlowRun | None:
        """The run as it is now; errors as `orchestration.read_run`."""
        return read_run(client=self._client, run_id=run_id)

    def create_run(self, run_id: str, document: Mapping[str, Any]) -> bool:
        """Put a run there if there is none of that id; whether it was put.

        Raises:
            BackendUnavailable: Firestore is away.
            BackendRefused: Firestore refuses.
        """
        return create_document(self._client, FLOW_RUNS, run_id, document)

    def claim(self, run_id: str, step_id: str) -> Claim | ClaimResult:
        """Claim a step; a `ClaimResult` says why it was not had. Errors as `claim_step_transaction`."""
        result = claim_step_transaction(client=self._client, run_id=run_id, step_id=step_id)
        log.info(
            Event.CLAIM_ATTEMPT,
            "Claimed the step" if result.claimed else f"Did not claim the step: {result.reason}",
            claimed=result.claimed,
            status=result.status,
            reason=result.reason,
        )
        step = result.run.step(step_id) if result.run else None
        if not result.claimed or result.run is None or step is None:
            return result
        return Claim(run=result.run, step=step, started_at=self._clock.now())

    def succeed(self, claim: Claim, *, manifest_uri: str, within_seconds: float = 0.0) -> FinalizeResult:
        """RUNNING -> SUCCEEDED; errors as `finalize_step`. Tried for `within_seconds`, 30 s at least."""
        return self._finalize(
            claim, within_seconds, status="SUCCEEDED", outputs_manifest_gcs_uri=manifest_uri
        )

    def fail(self, claim: Claim, *, error: StepError, within_seconds: float = 0.0) -> FinalizeResult:
        """RUNNING -> FAILED; errors as `finalize_step`. Tried for `within_seconds`, 30 s at least."""
        return self._finalize(claim, within_seconds, status="FAILED", error=error)

    def give_back(self, claim: Claim, *, cause: BackendUnavailable) -> FinalizeResult | None:
        """End a claim whose work a backend made impossible.

        Without a lease nobody could take the step over, so it fails with that backend's code rather than stay
        RUNNING for ever. With Firestore itself away nothing can be written: None.
        """
        code = CODE_OF_BACKEND.get(cause.backend)
        return self.fail(claim, error=StepError(code=code, message=str(cause))) if code else None

    def _finalize(self, claim: Claim, within_seconds: float, **result: Any) -> FinalizeResult:
        finalized = finalize_step(
            client=self._client,
            run_id=claim.run.run_id,
            step_id=claim.step.step_id,
            finished_at=rfc3339(self._clock.now()),
            give_up_after_seconds=max(within_seconds, GIVE_UP_AFTER_SECONDS),
            **result,
        )
        if not finalized.updated:
            log.warning(
                Event.FINALIZE_REFUSED,
                f"The step's result was not written: {finalized.reason}",
                reason=finalized.reason,
                status=finalized.status,
            )
        return finalized
