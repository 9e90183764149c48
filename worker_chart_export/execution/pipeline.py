"""Work on one step, from its claim to its result: claim, charts, manifest, finalize.

Every requested chart ends in exactly one item or failure of the manifest, in the order of the requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.backends.errors import lacks_resources, machine_errors
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import (
    FIRESTORE,
    BackendUnavailable,
    ErrorCode,
    LeaseLost,
    RequestError,
    StepError,
    WorkerError,
)
from worker_chart_export.execution.outcome import Outcome, OutcomeKind, too_few_charts
from worker_chart_export.execution.stored_result import find_stored_result
from worker_chart_export.inputs.export_request import parse_export_request
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.ledger.intents import claim_error, unstorable_error
from worker_chart_export.ledger.releases import outage_error
from worker_chart_export.ledger.step_ledger import Claim
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.observability.observers import Stage, annotate, notify_step_ended, stage
from worker_chart_export.outputs.manifest import ManifestFailure, build_manifest, encode_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.execution.chart_maker import ChartMaker, ChartResult
    from worker_chart_export.execution.step_context import StepContext
    from worker_chart_export.ledger.decisions import FinalizeResult, ReleaseResult
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.ledger.step_ledger import StepLedger
    from worker_chart_export.outputs.artifact_store import ArtifactStore
    from worker_chart_export.timing import Clock

#: The part of the step's time that is kept for manifest and finalize: so long, but at most this share.
MANIFEST_RESERVE_SECONDS = 10.0
MANIFEST_RESERVE_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """The settings of the pipeline.

    Attributes:
        request_concurrency: How many charts of a step are made at a time.
        step_timeout_seconds: Time for the work on one step.
    """

    request_concurrency: int
    step_timeout_seconds: float


class StepPipeline:
    """Works on steps. Shared by all threads; each call of `run` works on one step."""

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
        self._reserve_seconds = min(
            MANIFEST_RESERVE_SECONDS, MANIFEST_RESERVE_SHARE * limits.step_timeout_seconds
        )

    def new_scope(self) -> CancelScope:
        """Start the time of a step. The caller can stop the step through the scope."""
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
            scope: The time and the stop of the step; see `new_scope`. It is stopped when the lease is lost.
            message_id: The Pub/Sub message that names the step; it is noted in the lease.
            snapshot: A recent read of the run. Without it the claim reads the run.

        Raises:
            BackendUnavailable: Firestore or Cloud Storage is unavailable. The step was released.
            BackendRefused: Firestore refuses.
            RunInvalid: The document can't be read as a flow run.
            Interrupted: The step was stopped, and released.
        """
        with (
            bound(runId=run_id, stepId=step_id),
            stage(
                Stage.STEP,
                runId=run_id,
                stepId=step_id,
                messageId=message_id,
                symbol=snapshot.run.symbol if snapshot and snapshot.run else "",
            ),
        ):
            started = self._clock.monotonic()
            with stage(Stage.CLAIM):
                claim = self._ledger.claim(
                    run_id, step_id, scope=scope, message_id=message_id, snapshot=snapshot
                )
            if not isinstance(claim, Claim):
                annotate(result=OutcomeKind.CLAIM_LOST.value, reason=str(claim.reason))
                if claim.has_failed_the_step:  # the ledger has logged it
                    failed = Outcome(kind=OutcomeKind.FAILED, error=claim_error(claim))
                    notify_step_ended(failed, self._clock.monotonic() - started)
                return Outcome(kind=OutcomeKind.CLAIM_LOST, reason=claim.reason)
            annotate(attempt=claim.attempt, takenOver=claim.attempt > 1)
            names = {"owner": self._ledger.owner, "flowKey": claim.run.flow_key, **claim.operators}
            with bound(attempt=claim.attempt, **names):
                started = self._clock.monotonic()
                outcome = self._work(claim, scope, started)
                _report(outcome, self._clock.monotonic() - started)
                return outcome

    def finish_unleased(
        self, snapshot: RunSnapshot, step_id: str, *, scope: CancelScope, message_id: str = ""
    ) -> Outcome | None:
        """Finalize a step that is RUNNING without a lease from the manifest of an earlier result.

        Nothing is paid for. The commit fails if the step has changed since `snapshot` was read, so that a
        worker which has the step and this one can't both finalize it.

        Returns:
            The outcome, or None when there is no manifest for exactly the requests of the step.

        Raises:
            BackendUnavailable: Firestore or Cloud Storage is unavailable.
            BackendRefused: Firestore refuses.
            RunInvalid: The document can't be read as a flow run.
            Interrupted: The worker stops.
        """
        run, started = snapshot.run, self._clock.monotonic()
        step = run.step(step_id) if run else None
        if run is None or step is None:
            return None
        with (
            bound(runId=run.run_id, stepId=step_id, flowKey=run.flow_key),
            stage(
                Stage.STEP,
                runId=run.run_id,
                stepId=step_id,
                messageId=message_id,
                symbol=run.symbol,
            ),
        ):
            outcome = find_stored_result(self._artifacts, run, step, scope=scope)
            if outcome is not None:
                log.warning(
                    Event.STEP_UNLEASED,
                    "The step is RUNNING without a lease, and its manifest is in the bucket",
                    manifestUri=outcome.manifest_uri,
                )
                finalized = self._ledger.finalize_unleased(
                    snapshot, step_id, manifest_uri=outcome.manifest_uri, error=outcome.error
                )
                outcome = _as_stored(outcome, finalized)
                _report(outcome, self._clock.monotonic() - started)
            return outcome

    def _work(self, claim: Claim, scope: CancelScope, started: float) -> Outcome:
        """Export the claimed step while its lease lasts. Release the lease after an error."""
        scope.guard(claim.held.check)
        claim.held.on_lost(scope.stop)
        try:
            self._require_time(scope)
            with machine_errors():
                return self._export(claim, scope)
        except LeaseLost as lost:  # there is no lease to release
            self._ledger.clear(claim, lost)
            return Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=Reason.LEASE_LOST)
        except BackendUnavailable as error:
            if not self._release(claim, started, error).failed:
                raise
            return Outcome(kind=OutcomeKind.FAILED, error=outage_error(error))
        except WorkerError as error:
            self._release(claim, started, error)
            raise
        finally:
            self._ledger.forget(claim)

    def _require_time(self, scope: CancelScope) -> None:
        """Return if there is time for charts. A process that stood still during its claim has none left.

        Raises:
            BackendUnavailable: There is none, so another attempt makes the charts.
            WorkerError: The step was stopped.
        """
        scope.check_stopped()
        if scope.remaining_seconds() <= self._reserve_seconds:
            raise BackendUnavailable(FIRESTORE, "the claim took the time of the step")

    def _release(self, claim: Claim, started: float, cause: WorkerError) -> ReleaseResult:
        with stage(Stage.RELEASE, attempt=claim.attempt):
            result = self._ledger.release(claim, cause=cause)
        if not result.failed:
            kind = OutcomeKind.FINALIZE_REFUSED  # the step is no longer RUNNING under this lease
            if result.released:
                kind = OutcomeKind.RELEASED
            elif result.reason == Reason.UNKNOWN:
                kind = OutcomeKind.NOT_RELEASED
            notify_step_ended(Outcome(kind=kind, reason=result.reason), self._clock.monotonic() - started)
        return result

    def _export(self, claim: Claim, scope: CancelScope) -> Outcome:
        """Make the charts, write the manifest and finalize."""
        outcome = Outcome(kind=OutcomeKind.FAILED)
        limits = self._limits
        try:
            if claim.was_unleased:
                stored = find_stored_result(self._artifacts, claim.run, claim.step, scope=scope)
                if stored is not None:
                    return self._finalize(claim, scope, stored)
            export = parse_export_request(claim.run, claim.step)
            step = self._charts.prepare(
                claim,
                export,
                scope.child(scope.remaining_seconds() - self._reserve_seconds),
                threads=limits.request_concurrency,
            )
            results = self._charts.make_all(step, threads=limits.request_concurrency)
            failures = [result for result in results if isinstance(result, ManifestFailure)]
            made = len(results) - len(failures)
            outcome = replace(outcome, items=made, failures=len(failures), min_images=export.min_images)
            outcome = replace(outcome, manifest_uri=self._write_manifest(step, results, scope))
            if made >= export.min_images:
                return self._finalize(claim, scope, replace(outcome, kind=OutcomeKind.SUCCEEDED))
            first = next(failure for failure in failures if failure.was_tried)
            return self._finalize(claim, scope, too_few_charts(outcome, first))
        except RequestError as failure:
            error = failure.as_step_error()
        except WorkerError:
            raise
        except Exception as bug:  # whatever it is, the step must not stay RUNNING
            if lacks_resources(bug):
                raise
            log.error(Event.INTERNAL_ERROR, f"The step failed: {bug!r:.300}", exc_info=bug)
            message = f"The worker failed on this step: unexpected {type(bug).__name__}."
            error = StepError(code=ErrorCode.CRASH_LOOP, message=message)
        return self._finalize(claim, scope, replace(outcome, error=error))

    def _write_manifest(self, step: StepContext, results: Sequence[ChartResult], scope: CancelScope) -> str:
        manifest = build_manifest(
            run_id=step.folder.run_id,
            step_id=step.folder.step_id,
            created_at=step.claim.held.server_time(),
            export=step.export,
            results=results,
            claimed_by=step.claim.held.lease.claimed_by,
        )
        content = encode_manifest(manifest)
        with stage(Stage.MANIFEST, attempt=step.claim.attempt):
            uri = self._artifacts.write_manifest(
                step.folder.manifest_name,
                content,
                scope=scope,
                confirm_lease=partial(self._ledger.confirm, step.claim),
            )
        log.info(Event.MANIFEST_WRITTEN, f"Wrote {uri}", manifestUri=uri, sizeBytes=len(content))
        return uri

    def _finalize(self, claim: Claim, scope: CancelScope, outcome: Outcome) -> Outcome:
        """Write the step's result, and return the outcome that Firestore now has."""
        error = outcome.error.with_details(claim.held.lease.claimed_by) if outcome.error else None
        with stage(Stage.FINALIZE, attempt=claim.attempt, status=outcome.kind.upper()):
            finalized = self._ledger.finalize(
                claim, scope=scope, manifest_uri=outcome.manifest_uri, error=error
            )
        return _as_stored(outcome, finalized)


def _as_stored(outcome: Outcome, finalized: FinalizeResult) -> Outcome:
    """Return the outcome that Firestore now has."""
    if not finalized.updated:
        return replace(outcome, kind=OutcomeKind.FINALIZE_REFUSED, reason=finalized.reason)
    if finalized.status == "FAILED" and outcome.error is None:
        # Firestore can't store the result. The ledger has stored this failure in its place.
        error = unstorable_error(ErrorCode.CRASH_LOOP, manifest_uri=outcome.manifest_uri)
        return replace(outcome, kind=OutcomeKind.FAILED, error=error)
    return outcome


def _report(outcome: Outcome, seconds: float) -> None:
    """Notify the observers of the outcome. Count and log a step that SUCCEEDED or FAILED."""
    notify_step_ended(outcome, seconds)
    if outcome.kind is OutcomeKind.FINALIZE_REFUSED:
        return
    error = outcome.error
    metrics.STEP_SECONDS.labels(outcome.kind.value).observe(seconds)
    metrics.STEPS_FINISHED.labels(outcome.kind.value, str(error.code) if error else "none").inc()
    if outcome.kind is OutcomeKind.SUCCEEDED:
        metrics.LAST_SUCCESS.set_to_current_time()
    (log.warning if error else log.info)(
        Event.STEP_COMPLETED,
        f"The step has {outcome.kind}{f': {error.message}' if error else ''}",
        status=outcome.kind.upper(),
        items=outcome.items,
        failures=outcome.failures,
        minImages=outcome.min_images,
        manifestUri=outcome.manifest_uri,
        code=error.code if error else None,
        details=error.details if error else None,
        durationMs=round(seconds * 1000),
    )
