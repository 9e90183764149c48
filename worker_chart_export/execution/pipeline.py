"""One step from claim to finalize, in short stages.

Claim -> order (checked) -> charts, several at a time -> manifest -> finalize. Every requested chart ends in
exactly one manifest item or failure, in the order asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import (
    BackendUnavailable,
    LeaseLost,
    RequestError,
    StepError,
    WorkerError,
)
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.execution.parallel import make_in_parallel
from worker_chart_export.execution.step_ends import (
    given_back,
    notify_crash_loop,
    report_outcome,
    settled,
    too_few_charts,
    unforeseen,
)
from worker_chart_export.inputs.export_request import parse_export_request
from worker_chart_export.ledger.claim_log import log_refusal
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.ledger.releases import error_of
from worker_chart_export.ledger.step_ledger import Claim
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.observability.observers import Stage, annotate, notify_step_ended, stage
from worker_chart_export.outputs.artifact_store import StepFolder
from worker_chart_export.outputs.manifest import ManifestItem, build_manifest, encode_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.execution.chart_maker import ChartMaker
    from worker_chart_export.execution.parallel import ChartResult
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.ledger.decisions import ReleaseResult
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.ledger.step_ledger import StepLedger
    from worker_chart_export.outputs.artifact_store import ArtifactStore
    from worker_chart_export.timing import Clock

#: Kept of the step's time for the manifest and the finalize, or a fifth of a short budget.
MANIFEST_RESERVE_SECONDS = 10.0
RESERVE_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """The settings the pipeline goes by; see section "Settings" of the README."""

    request_concurrency: int
    step_timeout_seconds: float


class StepPipeline:
    """Works steps. Shared by all threads; each call of `run` works one step."""

    def __init__(
        self,
        *,
        ledger: StepLedger,
        charts: ChartMaker,
        artifacts: ArtifactStore,
        limits: PipelineLimits,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._charts = charts
        self._artifacts = artifacts
        self._limits = limits
        self._clock = clock

    def new_scope(self) -> CancelScope:
        """The time budget of a step that starts now; whoever holds it can stop the step."""
        return CancelScope(seconds=self._limits.step_timeout_seconds, clock=self._clock)

    def run(
        self,
        run_id: str,
        step_id: str,
        *,
        scope: CancelScope,
        message_id: str = "",
        snapshot: RunSnapshot | None = None,
    ) -> Outcome:
        """Claim the step, make its charts, write the manifest, finalize.

        Args:
            run_id: The run.
            step_id: The step.
            scope: The time it may take; stopped when the lease is lost.
            message_id: The message under which the step is claimed.
            snapshot: The read that showed it to be claimable.

        Raises:
            BackendUnavailable: Firestore or Cloud Storage is away; the step was given back.
            BackendRefused: Firestore refuses.
            RunInvalid: The run can't be read as one.
            Interrupted: The step was told to stop, and was given back.
        """
        with (
            bound(runId=run_id, stepId=step_id),
            stage(Stage.STEP, runId=run_id, stepId=step_id, messageId=message_id),
        ):
            started = self._clock.monotonic()
            with stage(Stage.CLAIM):
                claim = self._ledger.claim(
                    run_id, step_id, scope=scope, message_id=message_id, snapshot=snapshot
                )
            if not isinstance(claim, Claim):
                annotate(result=OutcomeKind.CLAIM_LOST.value, reason=str(claim.reason))
                notify_crash_loop(claim, self._clock.monotonic() - started)
                return Outcome(kind=OutcomeKind.CLAIM_LOST, reason=claim.reason)
            annotate(attempt=claim.attempt, takenOver=claim.attempt > 1)
            with bound(attempt=claim.attempt, owner=self._ledger.owner):
                started = self._clock.monotonic()
                outcome = self._work(claim, scope, started)
                report_outcome(outcome, self._clock.monotonic() - started)
                return outcome

    def _work(self, claim: Claim, scope: CancelScope, started: float) -> Outcome:
        """The work under the lease: it ends when the lease does, and the lease never outlives it."""
        scope.guard(claim.held.check)
        claim.held.on_lost(scope.stop)
        try:
            return self._export_or_fail(claim, scope)
        except LeaseLost as lost:
            return self._lost(claim, lost)
        except BackendUnavailable as error:
            if not self._release(claim, started, cause=error).failed:
                raise
            return Outcome(kind=OutcomeKind.FAILED, error=error_of(error))
        except WorkerError:
            self._release(claim, started)
            raise
        finally:
            self._ledger.forget(claim)

    def _release(self, claim: Claim, began: float, cause: BackendUnavailable | None = None) -> ReleaseResult:
        with stage(Stage.RELEASE, attempt=claim.attempt):
            result = self._ledger.release(claim, cause=cause)
        if not result.failed:
            notify_step_ended(given_back(result), self._clock.monotonic() - began)
        return result

    def _lost(self, claim: Claim, lost: LeaseLost) -> Outcome:
        """The step is another worker's, or nobody's: nothing of it is given back."""
        metrics.LEASES_LOST.inc()
        log.warning(Event.LEASE_LOST, f"Stopped working on the step: {lost}")
        self._ledger.clear(claim)
        log_refusal(Reason.LEASE_LOST, None)
        return Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=Reason.LEASE_LOST)

    def _export_or_fail(self, claim: Claim, scope: CancelScope) -> Outcome:
        try:
            return self._export(claim, parse_export_request(claim.run, claim.step), scope)
        except RequestError as error:  # of the step as a whole, before anything was paid for
            return self._fail(claim, Outcome(kind=OutcomeKind.FAILED), error.as_step_error(), scope)
        except WorkerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the step must not stay RUNNING
            log.error(Event.INTERNAL_ERROR, f"The step failed: {error!r:.300}", exc_info=error)
            return self._fail(claim, Outcome(kind=OutcomeKind.FAILED), unforeseen(error), scope)

    def _export(self, claim: Claim, export: ExportRequest, scope: CancelScope) -> Outcome:
        results = self._make_charts(claim, export, scope)
        made = sum(isinstance(result, ManifestItem) for result in results)
        outcome = Outcome(
            kind=OutcomeKind.SUCCEEDED,
            items=made,
            failures=len(results) - made,
            min_images=export.min_images,
        )
        try:
            uri = self._write_manifest(claim, export, results, scope)
        except RequestError as error:
            return self._fail(claim, outcome, error.as_step_error(), scope)
        outcome = replace(outcome, manifest_uri=uri)
        if made < export.min_images:
            return self._fail(claim, outcome, too_few_charts(results, export, uri), scope)
        with stage(Stage.FINALIZE, attempt=claim.attempt, status="SUCCEEDED"):
            finalized = self._ledger.succeed(claim, manifest_uri=uri, scope=scope)
        return settled(finalized, outcome)

    def _fail(self, claim: Claim, outcome: Outcome, error: StepError, scope: CancelScope) -> Outcome:
        with stage(Stage.FINALIZE, attempt=claim.attempt, status="FAILED"):
            finalized = self._ledger.fail(claim, error=error, scope=scope)
        return settled(finalized, replace(outcome, kind=OutcomeKind.FAILED, error=error))

    def _make_charts(self, claim: Claim, export: ExportRequest, step_scope: CancelScope) -> list[ChartResult]:
        reserve = min(MANIFEST_RESERVE_SECONDS, RESERVE_SHARE * self._limits.step_timeout_seconds)
        scope = step_scope.part(reserve_seconds=reserve)
        return make_in_parallel(
            self._charts.of_step(claim, export, scope),
            export.template_ids,
            threads=self._limits.request_concurrency,
            scope=scope,
        )

    def _write_manifest(
        self, claim: Claim, export: ExportRequest, results: Sequence[ChartResult], scope: CancelScope
    ) -> str:
        folder = StepFolder(claim.run.run_id, claim.step.step_id)
        manifest = build_manifest(
            run_id=folder.run_id,
            step_id=folder.step_id,
            created_at=self._clock.now(),
            export=export,
            results=results,
        )
        content = encode_manifest(manifest)
        with stage(Stage.MANIFEST, attempt=claim.attempt):
            uri = self._artifacts.write_manifest(
                folder.manifest_name,
                content,
                scope=scope,
                still_ours=partial(self._ledger.confirm, claim),
            )
        log.info(Event.MANIFEST_WRITTEN, f"Wrote {uri}", manifestUri=uri, sizeBytes=len(content))
        return uri
