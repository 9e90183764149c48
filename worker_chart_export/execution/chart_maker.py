"""Make the charts of a step: template, request, provider, check of the PNG, upload, manifest item.

A chart that an earlier attempt of the step has stored is used again, because it was paid for.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from worker_chart_export.backends.errors import lacks_resources
from worker_chart_export.charts.base import ChartRequest, check_png
from worker_chart_export.concurrency.parallel import run_in_parallel
from worker_chart_export.concurrency.single_flight import LoadOnce
from worker_chart_export.errors import (
    AccountsExhausted,
    ChartApiFailed,
    ErrorCode,
    ObjectRefused,
    OutOfReach,
    RequestError,
    StepError,
    StepTimedOut,
    WorkerError,
)
from worker_chart_export.execution.reach import Reach
from worker_chart_export.execution.step_context import StepContext, meta_of
from worker_chart_export.execution.stored_meta import meta_from, metadata_of
from worker_chart_export.execution.template_reads import OUT_OF_TIME, read_templates
from worker_chart_export.inputs.template import ChartTemplate
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import Stage, notify_chart, stage
from worker_chart_export.outputs.artifact_store import StepFolder
from worker_chart_export.outputs.manifest import (
    ManifestFailure,
    ManifestItem,
    build_manifest,
    check_fits,
    surely_fits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker_chart_export.charts.base import ChartImage, ChartProvider
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.inputs.template import TemplateStore
    from worker_chart_export.ledger.step_ledger import Claim
    from worker_chart_export.outputs.artifact_store import ArtifactStore, StoredPng

#: Which provider makes a chart is not known before. This name takes the fewest bytes of a manifest.
SHORTEST_PROVIDER = "mock"

ChartResult: TypeAlias = ManifestItem | ManifestFailure


class ChartMaker:
    """Makes the charts of steps. Shared by all threads.

    Args:
        templates: Reads the chart templates.
        provider: Makes the pictures.
        artifacts: Stores the pictures.
        timezone: The time zone of the charts' time axes.
        max_png_bytes: Larger pictures fail their request.
    """

    def __init__(
        self,
        *,
        templates: TemplateStore,
        provider: ChartProvider,
        artifacts: ArtifactStore,
        timezone: str,
        max_png_bytes: int,
    ) -> None:
        self._templates = templates
        self._provider = provider
        self._artifacts = artifacts
        self._timezone = timezone
        self._max_png_bytes = max_png_bytes

    def prepare(
        self, claim: Claim, export: ExportRequest, scope: CancelScope, *, threads: int
    ) -> StepContext:
        """Collect what all charts of a step share, and check what can be known before one is paid for.

        The stored charts are listed, unless no earlier attempt can have stored any.

        Args:
            claim: The claim of the step.
            export: Its request.
            scope: The time and the stop of the charts.
            threads: How many templates are read at a time.

        Raises:
            ValidationFailed: The name of a chart would be too long, or the manifest too large.
            BackendUnavailable: Firestore or Cloud Storage stays unavailable.
            WorkerError: The step was stopped, or its time ended.
        """
        folder, reach = StepFolder(claim.run.run_id, claim.step.step_id), Reach(export, scope)
        folder.check_names(export, started_at=claim.started_at)
        cached = {name: found for name in export.template_ids if (found := self._templates.cached(name))}
        step = StepContext(
            claim=claim,
            export=export,
            scope=scope,
            reach=reach,
            folder=folder,
            templates=cached,
            stored={},
            candles=LoadOnce(partial(self._artifacts.read_candles, export.ohlcv_uri, scope=scope)),
        )
        missing = [name for name in export.template_ids if name not in cached]
        if missing:
            check_fits(self._smallest_manifest(step))  # before thousands of templates are read
            step = replace(
                step, templates=cached | read_templates(self._templates, missing, scope, threads=threads)
            )
        kinds = [template.kind for template in step.templates.values() if isinstance(template, ChartTemplate)]
        if len(kinds) < len(export.template_ids) or not surely_fits(kinds):
            check_fits(self._smallest_manifest(step))
        if claim.held.lease.may_have_charts:
            try:
                stored = self._artifacts.stored_pngs(folder, started_at=claim.started_at, scope=scope)
                step = replace(step, stored=stored)
            except ObjectRefused as error:  # no right to list objects: the charts are made again
                log.warning(Event.BACKEND_REFUSED, error.message, backend="storage", **error.details)
        return replace(step, templates=self._without_known_failures(step))

    def _without_known_failures(self, step: StepContext) -> dict[str, ChartTemplate | RequestError]:
        """Replace the templates of charts that are known to fail by their errors, and count these.

        Raises:
            AccountsExhausted: A chart waits for an account, and the step can still get enough charts.
        """
        templates: dict[str, ChartTemplate | RequestError] = {}
        waits: AccountsExhausted | None = None
        for template_id, template in step.templates.items():
            templates[template_id] = template
            try:
                failure = self._known_failure(step, template)
            except AccountsExhausted as error:
                waits = error
                continue
            if failure is not None:
                step.reach.record_failure(template_id, failure)
                templates[template_id] = failure
        if waits is not None and not step.reach.is_lost:
            raise waits
        return templates

    def _known_failure(
        self, step: StepContext, template: ChartTemplate | RequestError
    ) -> RequestError | None:
        if isinstance(template, RequestError):
            return template
        if step.png_name(template.template_id) in step.stored:
            return None
        return self._provider.known_failure(self._request(step, template))

    def _request(self, step: StepContext, template: ChartTemplate) -> ChartRequest:
        return ChartRequest(
            template_id=template.template_id,
            symbol=step.export.symbol,
            timeframe=step.export.timeframe,
            payload=template.payload(step.export, timezone=self._timezone),
            candles=step.candles,
            scope=step.reach.wanted,
            call_scope=step.scope,
        )

    def _smallest_manifest(self, step: StepContext) -> dict[str, Any]:
        """Build the manifest of a step whose charts are all made, as far as their templates are known."""
        results: list[ChartResult] = []
        for template_id in step.export.template_ids:
            template = step.templates.get(template_id)
            if isinstance(template, ChartTemplate):
                uri = self._artifacts.uri(step.png_name(template_id))
                results.append(step.item(template, uri, meta_of(SHORTEST_PROVIDER, template)))
            else:
                error = template.as_step_error() if template else StepError(code="", message="")
                results.append(ManifestFailure(template_id=template_id, error=error))
        return build_manifest(
            run_id=step.folder.run_id,
            step_id=step.folder.step_id,
            created_at=step.claim.started_at,
            export=step.export,
            results=results,
            claimed_by=step.claim.held.lease.claimed_by,
        )

    def make_all(self, step: StepContext, *, threads: int) -> list[ChartResult]:
        """Make the charts of a step, in at most `threads` threads, while enough of them can be made.

        Returns:
            An item or a failure for each request, in the same order.

        Raises:
            WorkerError: The step as a whole can't go on; see `make_in_parallel`.
        """
        results = make_in_parallel(
            partial(self.make, step), step.export.template_ids, threads=threads, scope=step.scope
        )
        return _with_first_code(results, min_images=step.export.min_images)

    def make(self, step: StepContext, template_id: str) -> ManifestItem:
        """Make and store the chart of one template, or use the stored one.

        Raises:
            RequestError: This chart failed.
            OutOfReach: It was not tried, because the step can't get enough charts any more.
            WorkerError: The step as a whole can't go on; see `ChartProvider.chart`.
        """
        claim, requested = step.claim, len(step.export.template_ids)
        with stage(Stage.CHART, chartTemplateId=template_id, attempt=claim.attempt, requested=requested):
            step.scope.check()
            template = step.templates[template_id]
            if isinstance(template, RequestError):
                raise copy(template)  # the traceback of `template` itself would hold the step in a cycle
            try:
                uri, meta = self._png(step, template)
            except OutOfReach:
                raise
            except RequestError as error:
                step.reach.record_failure(template_id, error)
                raise
            return step.item(template, uri, meta)

    def _png(self, step: StepContext, template: ChartTemplate) -> tuple[str, Mapping[str, Any]]:
        """Return the URI of the stored chart and its `meta`."""
        template_id, name = template.template_id, step.png_name(template.template_id)
        if png := step.stored.get(name):
            return png.uri, _reused(template_id, png)
        step.reach.wanted.check()
        request = self._request(step, template)
        self._artifacts.require_bucket(step.scope)
        image = self._call_provider(request)
        meta = {**image.meta, **meta_of(image.provider, template)}
        return self._store(step, name, request, image, meta), meta

    def _call_provider(self, request: ChartRequest) -> ChartImage:
        """Get the picture and check it. An unexpected error fails this request, not the whole step."""
        started = time.monotonic()
        try:
            with stage(
                Stage.CALL,
                chartTemplateId=request.template_id,
                symbol=request.symbol,
                timeframe=request.timeframe,
            ):
                image = self._provider.chart(request)
        except WorkerError:
            raise
        except Exception as error:
            if lacks_resources(error):
                raise
            log.error(Event.INTERNAL_ERROR, f"The chart provider failed: {error!r:.300}", exc_info=error)
            kind = type(error).__name__
            raise ChartApiFailed(f"The chart could not be made: unexpected {kind}.") from error
        metrics.CHART_SECONDS.labels(image.provider).observe(time.monotonic() - started)
        png = check_png(image.png, width=request.width, height=request.height, max_bytes=self._max_png_bytes)
        return replace(image, png=png)

    def _store(
        self,
        step: StepContext,
        name: str,
        request: ChartRequest,
        image: ChartImage,
        meta: Mapping[str, Any],
    ) -> str:
        about = {"chartTemplateId": request.template_id, "provider": image.provider}
        metadata = {"runId": step.folder.run_id, "stepId": step.folder.step_id, **about, **metadata_of(meta)}
        size = len(image.png)
        with stage(
            Stage.UPLOAD, chartTemplateId=request.template_id, provider=image.provider, sizeBytes=size
        ):
            uri = self._artifacts.upload_png(name, image.png, metadata=metadata, scope=step.scope)
        notify_chart(template_id=request.template_id, provider=image.provider, uri=uri, png=image.png)
        metrics.CHARTS.labels(image.provider, "made").inc()
        log.info(Event.CHART_STORED, f"Stored {uri}", **about, sizeBytes=size)
        return uri


def _reused(template_id: str, png: StoredPng) -> dict[str, Any]:
    """Report a chart that is used again, and return its `meta` for the manifest."""
    provider = png.metadata.get("provider", "chart-img")  # early versions had no other
    notify_chart(template_id=template_id, provider=provider, uri=png.uri, png=None)
    metrics.CHARTS.labels(provider if provider in metrics.PROVIDERS else "other", "reused").inc()
    log.info(
        Event.CHART_REUSED,
        f"Reused {png.uri}",
        chartTemplateId=template_id,
        provider=provider,
        sizeBytes=png.size,
    )
    return {"provider": provider, **meta_from(png.metadata)}


def make_in_parallel(
    make: Callable[[str], ManifestItem], template_ids: Sequence[str], *, threads: int, scope: CancelScope
) -> list[ChartResult]:
    """Call `make` for each template, in at most `threads` threads.

    Returns:
        An item or a failure for each template, in the same order.

    Raises:
        WorkerError: The error that the scope was stopped with, or that a call raised, unless it is a
            `RequestError`.
    """
    out_of_time = StepTimedOut(OUT_OF_TIME)
    futures = run_in_parallel(make, template_ids, threads=threads, scope=scope, timeout_error=out_of_time)
    results: list[ChartResult] = []
    for template_id, future in zip(template_ids, futures, strict=True):
        error = future.exception() if future.done() else out_of_time
        if error is None:
            results.append(future.result())
        elif isinstance(error, OutOfReach):
            results.append(_not_tried(template_id, error))
        elif isinstance(error, RequestError):
            results.append(_failed(template_id, error))
        else:
            raise error
    return results


def _failed(template_id: str, error: RequestError) -> ManifestFailure:
    metrics.CHART_FAILURES.labels(error.code.value).inc()
    log.warning(
        Event.CHART_FAILED, error.message, chartTemplateId=template_id, code=error.code, details=error.details
    )
    return ManifestFailure(template_id=template_id, error=error.as_step_error())


def _not_tried(template_id: str, error: OutOfReach) -> ManifestFailure:
    return ManifestFailure(template_id=template_id, error=error.as_step_error(), was_tried=False)


def _with_first_code(results: Sequence[ChartResult], *, min_images: int) -> list[ChartResult]:
    """Give the requests that were not tried the code of the first failure. Log all of them in one line."""
    failures = [result for result in results if isinstance(result, ManifestFailure)]
    not_tried = {failure.template_id for failure in failures if not failure.was_tried}
    if not not_tried:
        return list(results)
    first = next(failure for failure in failures if failure.was_tried)
    code = ErrorCode(first.error.code)
    error = OutOfReach.after(code, first.template_id, min_images=min_images)
    metrics.CHART_FAILURES.labels(code.value).inc(len(not_tried))
    log.warning(
        Event.CHARTS_NOT_MADE, f"{len(not_tried)} charts: {error.message}", charts=len(not_tried), code=code
    )
    return [
        _not_tried(result.template_id, error) if result.template_id in not_tried else result
        for result in results
    ]
