"""Make the charts of a step: template, request, provider, check of the PNG, upload, manifest item.

A chart that an earlier attempt of the step has stored is used again, because it was paid for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.base import FALLBACK_FROM, ChartRequest, check_png
from worker_chart_export.concurrency.parallel import run_in_parallel
from worker_chart_export.concurrency.single_flight import ReadOnce
from worker_chart_export.errors import (
    BackendUnavailable,
    ChartApiFailed,
    ObjectRefused,
    RequestError,
    StepTimedOut,
    WorkerError,
)
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import Stage, notify_chart, stage
from worker_chart_export.outputs.artifact_store import StepFolder
from worker_chart_export.outputs.manifest import ManifestFailure, ManifestItem
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker_chart_export.charts.base import ChartImage, ChartProvider
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.inputs.template import ChartTemplate, TemplateStore
    from worker_chart_export.ledger.step_ledger import Claim
    from worker_chart_export.outputs.artifact_store import ArtifactStore, StoredPng

OUT_OF_TIME = "The step's time ended before this chart was made."

ChartResult = ManifestItem | ManifestFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """A claimed step, and what its charts share.

    Attributes:
        claim: The claim of the step.
        export: The checked export request of the step.
        scope: The time and the stop of the charts. It ends before the step's own scope.
        folder: The step's place in the charts bucket.
        stored: The charts that earlier attempts have stored, by object name.
        read_candles: Reads the OHLCV file, once for all charts.
    """

    claim: Claim
    export: ExportRequest
    scope: CancelScope
    folder: StepFolder
    stored: Mapping[str, StoredPng]
    read_candles: Callable[[], bytes]


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

    def prepare(self, claim: Claim, export: ExportRequest, scope: CancelScope) -> StepContext:
        """Collect what all charts of a step share. List the stored charts, unless this is the first attempt.

        Raises:
            ValidationFailed: The name of a chart would be too long.
            BackendUnavailable: Cloud Storage stays unavailable.
            WorkerError: The step was stopped, or its time ended.
        """
        folder, stored = StepFolder(claim.run.run_id, claim.step.step_id), {}
        folder.check_names(export, started_at=claim.started_at)
        if claim.attempt > 1:
            try:
                stored = self._artifacts.stored_pngs(folder, started_at=claim.started_at, scope=scope)
            except ObjectRefused as error:  # no right to list objects: the charts are made again
                log.warning(Event.BACKEND_REFUSED, error.message, backend="storage", **error.details)
        return StepContext(
            claim=claim,
            export=export,
            scope=scope,
            folder=folder,
            stored=stored,
            read_candles=ReadOnce(partial(self._artifacts.read_candles, export.ohlcv_uri, scope=scope)),
        )

    def make(self, step: StepContext, template_id: str) -> ManifestItem:
        """Make and store the chart of one template, or use the stored one.

        Raises:
            RequestError: This chart failed.
            WorkerError: The step as a whole can't go on; see `ChartProvider.chart`.
        """
        claim, export = step.claim, step.export
        requested = len(export.template_ids)
        with stage(Stage.CHART, chartTemplateId=template_id, attempt=claim.attempt, requested=requested):
            step.scope.check()
            template = self._template(template_id, step.scope)
            name = step.folder.png_name(
                started_at=claim.started_at,
                symbol=export.symbol,
                timeframe=export.timeframe,
                template_id=template_id,
            )
            meta: Mapping[str, Any]
            if png := step.stored.get(name):
                uri, meta = png.uri, _reused(template_id, png)
            else:
                request = ChartRequest(
                    template_id=template_id,
                    symbol=export.symbol,
                    timeframe=export.timeframe,
                    payload=template.payload(export, timezone=self._timezone),
                    read_candles=step.read_candles,
                    scope=step.scope,
                )
                image = self._call_provider(request)
                uri = self._store(step, name, request, image)
                meta = {**image.meta, "provider": image.provider}
            return ManifestItem(
                template_id=template_id,
                kind=template.kind,
                png_uri=uri,
                generated_at=claim.started_at,
                meta=meta,
            )

    def _template(self, template_id: str, scope: CancelScope) -> ChartTemplate:
        """Read the template. While Firestore is unavailable, try again until the charts' time ends."""
        while True:
            try:
                return self._templates.get(template_id)
            except BackendUnavailable as error:
                log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
                try:
                    scope.sleep(full_jitter_seconds(low=0.5, high=5.0))
                except StepTimedOut:
                    raise error from None

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
            log.error(Event.INTERNAL_ERROR, f"The chart provider failed: {error!r:.300}", exc_info=error)
            kind = type(error).__name__
            raise ChartApiFailed(f"The chart could not be made: unexpected {kind}.") from error
        metrics.CHART_SECONDS.labels(image.provider).observe(time.monotonic() - started)
        png = check_png(image.png, width=request.width, height=request.height, max_bytes=self._max_png_bytes)
        return replace(image, png=png)

    def _store(self, step: StepContext, name: str, request: ChartRequest, image: ChartImage) -> str:
        about = {"chartTemplateId": request.template_id, "provider": image.provider}
        metadata = {"runId": step.folder.run_id, "stepId": step.folder.step_id, **about}
        if FALLBACK_FROM in image.meta:
            metadata[FALLBACK_FROM] = image.meta[FALLBACK_FROM]
        size = len(image.png)
        with stage(
            Stage.UPLOAD, chartTemplateId=request.template_id, provider=image.provider, sizeBytes=size
        ):
            uri = self._artifacts.upload_png(name, image.png, metadata=metadata, scope=step.scope)
        notify_chart(template_id=request.template_id, provider=image.provider, uri=uri, png=image.png)
        metrics.CHARTS.labels(image.provider, "made").inc()
        log.info(Event.CHART_STORED, f"Stored {uri}", **about, sizeBytes=size)
        return uri


def _reused(template_id: str, png: StoredPng) -> dict[str, str]:
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
    meta = {"provider": provider}
    if FALLBACK_FROM in png.metadata:
        meta[FALLBACK_FROM] = png.metadata[FALLBACK_FROM]
    return meta


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
