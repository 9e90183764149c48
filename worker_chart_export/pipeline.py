"""One step from claim to finalize, in short stages.

Claim -> order (checked) -> charts, several at a time -> manifest -> finalize. Every requested chart ends in
exactly one manifest item or failure, in the order asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.artifacts import StepFolder
from worker_chart_export.budget import StepBudget
from worker_chart_export.charts.base import ChartRequest
from worker_chart_export.charts.png import check_png
from worker_chart_export.errors import (
    BackendUnavailable,
    ChartApiFailed,
    ErrorCode,
    RequestError,
    StepError,
    WorkerError,
)
from worker_chart_export.export_order import export_order
from worker_chart_export.ledger import Claim
from worker_chart_export.logs import Event, bound, log
from worker_chart_export.manifest import ManifestFailure, ManifestItem, build_manifest, encode_manifest
from worker_chart_export.outcome import Outcome, OutcomeKind
from worker_chart_export.retry import full_jitter_seconds
from worker_chart_export.side_by_side import ReadOnce, make_side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.artifacts import ArtifactStore
    from worker_chart_export.charts.base import ChartImage, ChartProvider
    from worker_chart_export.clock import Clock
    from worker_chart_export.export_order import ExportOrder
    from worker_chart_export.ledger import StepLedger
    from worker_chart_export.orchestration import FinalizeResult
    from worker_chart_export.side_by_side import ChartResult
    from worker_chart_export.templates import ChartTemplate, TemplateStore

#: Kept of the step's time for the manifest and the finalize, or a fifth of a short budget.
MANIFEST_RESERVE_SECONDS = 10.0
RESERVE_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """The settings the pipeline goes by; see section "Settings" of the README."""

    request_concurrency: int
    step_timeout_seconds: float
    timezone: str
    max_png_bytes: int


class StepPipeline:
    """Works steps. Shared by all threads; each call of `run` works one step."""

    def __init__(
        self,
        *,
        ledger: StepLedger,
        templates: TemplateStore,
        provider: ChartProvider,
        artifacts: ArtifactStore,
        limits: PipelineLimits,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._templates = templates
        self._provider = provider
        self._artifacts = artifacts
        self._limits = limits
        self._clock = clock

    def new_budget(self) -> StepBudget:
        """The time budget of a step that starts now; whoever holds it can stop the step."""
        return StepBudget(seconds=self._limits.step_timeout_seconds, clock=self._clock)

    def run(self, run_id: str, step_id: str, *, budget: StepBudget) -> Outcome:
        """Claim the step, make its charts, write the manifest, finalize.

        Raises:
            BackendUnavailable: Firestore or Cloud Storage is away.
            BackendRefused: Firestore refuses.
            RunInvalid: The run can't be read as one.
            Interrupted: The step was told to stop.
        """
        with bound(runId=run_id, stepId=step_id):
            claim = self._ledger.claim(run_id, step_id)
            if not isinstance(claim, Claim):
                return Outcome(kind=OutcomeKind.CLAIM_LOST, reason=claim.reason)
            started = self._clock.monotonic()
            outcome = self._work(claim, budget)
            _log_completion(outcome, self._clock.monotonic() - started)
            return outcome

    def _work(self, claim: Claim, budget: StepBudget) -> Outcome:
        try:
            order = export_order(claim.run, claim.step)
        except RequestError as error:
            return self._fail(claim, Outcome(kind=OutcomeKind.FAILED), error.as_step_error(), budget)
        try:
            return self._export(claim, order, budget)
        except BackendUnavailable as error:
            self._ledger.give_back(claim, cause=error)
            raise
        except WorkerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the step must not stay RUNNING
            log.error(Event.INTERNAL_ERROR, f"The step failed: {error!r:.300}", exc_info=error)
            return self._fail(claim, Outcome(kind=OutcomeKind.FAILED), _unforeseen(error), budget)

    def _export(self, claim: Claim, order: ExportOrder, budget: StepBudget) -> Outcome:
        results = self._make_charts(claim, order, budget)
        made = sum(isinstance(result, ManifestItem) for result in results)
        outcome = Outcome(
            kind=OutcomeKind.SUCCEEDED,
            items=made,
            failures=len(results) - made,
            min_images=order.min_images,
        )
        try:
            uri = self._write_manifest(claim, order, results, budget)
        except RequestError as error:
            return self._fail(claim, outcome, error.as_step_error(), budget)
        outcome = replace(outcome, manifest_uri=uri)
        if made < order.min_images:
            return self._fail(claim, outcome, _step_error(results, order, uri), budget)
        left = budget.remaining_seconds()
        return _settled(self._ledger.succeed(claim, manifest_uri=uri, within_seconds=left), outcome)

    def _fail(self, claim: Claim, outcome: Outcome, error: StepError, budget: StepBudget) -> Outcome:
        finalized = self._ledger.fail(claim, error=error, within_seconds=budget.remaining_seconds())
        return _settled(finalized, replace(outcome, kind=OutcomeKind.FAILED, error=error))

    def _make_charts(self, claim: Claim, order: ExportOrder, step_budget: StepBudget) -> list[ChartResult]:
        budget = step_budget.part(reserve_seconds=self._reserve_seconds())
        candles = ReadOnce(partial(self._artifacts.read_candles, order.ohlcv_uri, budget=budget))
        return make_side_by_side(
            partial(self._one_chart, claim, order, candles, budget),
            order.template_ids,
            threads=self._limits.request_concurrency,
            budget=budget,
        )

    def _reserve_seconds(self) -> float:
        return min(MANIFEST_RESERVE_SECONDS, RESERVE_SHARE * self._limits.step_timeout_seconds)

    def _one_chart(
        self, claim: Claim, order: ExportOrder, candles: ReadOnce, budget: StepBudget, template_id: str
    ) -> ManifestItem:
        budget.check()
        template = self._template(template_id, budget)
        request = ChartRequest(
            template_id=template_id,
            symbol=order.symbol,
            timeframe=order.timeframe,
            payload=template.payload(order, timezone=self._limits.timezone),
            read_candles=candles,
            budget=budget,
        )
        image = self._ask_provider(request)
        check_png(image.png, width=request.width, height=request.height, max_bytes=self._limits.max_png_bytes)
        return ManifestItem(
            template_id=template_id,
            kind=template.kind,
            png_uri=self._store(claim, order, template_id, image, budget),
            generated_at=claim.started_at,
            meta={**image.meta, "provider": image.provider},
        )

    def _template(self, template_id: str, budget: StepBudget) -> ChartTemplate:
        """The template; while Firestore is away it is asked for again, until the step's time is over."""
        while True:
            try:
                return self._templates.get(template_id)
            except BackendUnavailable as error:
                log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
                budget.sleep(full_jitter_seconds(least=0.5, most=5.0))

    def _ask_provider(self, request: ChartRequest) -> ChartImage:
        """The provider's chart; an error that nobody foresaw fails this request and not the whole step."""
        try:
            return self._provider.chart(request)
        except WorkerError:
            raise
        except Exception as error:
            log.error(Event.INTERNAL_ERROR, f"The chart provider failed: {error!r:.300}", exc_info=error)
            kind = type(error).__name__
            raise ChartApiFailed(f"The chart could not be had: unexpected {kind}.") from error

    def _store(
        self, claim: Claim, order: ExportOrder, template_id: str, image: ChartImage, budget: StepBudget
    ) -> str:
        folder = StepFolder(claim.run.run_id, claim.step.step_id)
        name = folder.png_name(
            started_at=claim.started_at,
            symbol=order.symbol,
            timeframe=order.timeframe,
            template_id=template_id,
        )
        metadata = {
            "runId": folder.run_id,
            "stepId": folder.step_id,
            "chartTemplateId": template_id,
            "provider": image.provider,
        }
        uri = self._artifacts.upload_png(name, image.png, metadata=metadata, budget=budget)
        log.info(
            Event.CHART_STORED,
            f"Stored {uri}",
            chartTemplateId=template_id,
            provider=image.provider,
            sizeBytes=len(image.png),
        )
        return uri

    def _write_manifest(
        self, claim: Claim, order: ExportOrder, results: Sequence[ChartResult], budget: StepBudget
    ) -> str:
        folder = StepFolder(claim.run.run_id, claim.step.step_id)
        manifest = build_manifest(
            run_id=folder.run_id,
            step_id=folder.step_id,
            created_at=self._clock.now(),
            order=order,
            results=results,
        )
        content = encode_manifest(manifest)
        uri = self._artifacts.write_manifest(folder.manifest_name, content, budget=budget)
        log.info(Event.MANIFEST_WRITTEN, f"Wrote {uri}", manifestUri=uri, sizeBytes=len(content))
        return uri


def _step_error(results: Sequence[ChartResult], order: ExportOrder, manifest_uri: str) -> StepError:
    """The step's error when too few charts were made: the first failure's code and words."""
    failures = [result for result in results if isinstance(result, ManifestFailure)]
    first = failures[0].error
    made = len(results) - len(failures)
    return StepError(
        code=first.code,
        message=f"{made} of {order.min_images} needed charts were made: {first.message}",
        details={
            "manifestGcsUri": manifest_uri,
            "chartTemplateId": failures[0].template_id,
            **(first.details or {}),
        },
    )


def _unforeseen(error: Exception) -> StepError:
    """The worker's own fault: no chart's failure, so the step fails as a whole."""
    kind = type(error).__name__
    return StepError(code=ErrorCode.CRASH_LOOP, message=f"The worker failed on this step: unexpected {kind}.")


def _settled(finalized: FinalizeResult, outcome: Outcome) -> Outcome:
    if finalized.updated:
        return outcome
    return replace(outcome, kind=OutcomeKind.FINALIZE_REFUSED, reason=finalized.reason)


def _log_completion(outcome: Outcome, seconds: float) -> None:
    if outcome.kind is OutcomeKind.FINALIZE_REFUSED:
        return
    log.info(
        Event.STEP_COMPLETED,
        f"The step has {outcome.kind}",
        status=outcome.kind.upper(),
        items=outcome.items,
        failures=outcome.failures,
        minImages=outcome.min_images,
        manifestUri=outcome.manifest_uri,
        code=outcome.error.code if outcome.error else None,
        durationMs=round(seconds * 1000),
    )
