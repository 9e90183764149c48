"""One chart of a step: template -> request -> provider -> checked PNG -> stored object -> manifest item.

A chart that an earlier attempt of the step has stored is not made again: it was paid for.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartRequest, check_png
from worker_chart_export.errors import (
    BackendUnavailable,
    ChartApiFailed,
    ObjectRefused,
    StepTimedOut,
    WorkerError,
)
from worker_chart_export.execution.parallel import ReadOnce
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import Stage, notify_chart, stage
from worker_chart_export.outputs.artifact_store import StepFolder
from worker_chart_export.outputs.manifest import ManifestItem
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.base import ChartImage, ChartProvider
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.inputs.template import ChartTemplate, TemplateStore
    from worker_chart_export.ledger.step_ledger import Claim
    from worker_chart_export.outputs.artifact_store import ArtifactStore, StoredPng


class ChartMaker:
    """Makes the charts of steps. Shared by all threads.

    Args:
        templates: Where templates come from.
        provider: Makes pictures.
        artifacts: Stores them.
        timezone: Of the charts' time axes.
        max_png_bytes: Larger pictures are refused.
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

    def of_step(
        self, claim: Claim, export: ExportRequest, scope: CancelScope
    ) -> Callable[[str], ManifestItem]:
        """What makes the chart of one template of this step, and raises what `ChartProvider.chart` does.

        Raises:
            BackendUnavailable: Cloud Storage stays away.
        """
        candles = ReadOnce(partial(self._artifacts.read_candles, export.ohlcv_uri, scope=scope))
        return partial(self._chart, claim, export, self._stored(claim, scope), candles, scope)

    def _stored(self, claim: Claim, scope: CancelScope) -> Mapping[str, StoredPng]:
        """What earlier attempts have stored; a first attempt has none before it."""
        if claim.attempt == 1:
            return {}
        folder = StepFolder(claim.run.run_id, claim.step.step_id)
        try:
            return self._artifacts.stored_pngs(folder, started_at=claim.started_at, scope=scope)
        except ObjectRefused as error:  # may write, but not list: then charts are made again
            log.warning(Event.BACKEND_REFUSED, error.message, backend="storage", **error.details)
            return {}

    def _chart(
        self,
        claim: Claim,
        export: ExportRequest,
        stored: Mapping[str, StoredPng],
        candles: ReadOnce,
        scope: CancelScope,
        template_id: str,
    ) -> ManifestItem:
        asked = len(export.template_ids)
        with stage(Stage.CHART, chartTemplateId=template_id, attempt=claim.attempt, requested=asked):
            return self._stored_chart(claim, export, stored, candles, scope, template_id)

    def _stored_chart(
        self,
        claim: Claim,
        export: ExportRequest,
        stored: Mapping[str, StoredPng],
        candles: ReadOnce,
        scope: CancelScope,
        template_id: str,
    ) -> ManifestItem:
        scope.check()
        template = self._template(template_id, scope)
        name = StepFolder(claim.run.run_id, claim.step.step_id).png_name(
            started_at=claim.started_at,
            symbol=export.symbol,
            timeframe=export.timeframe,
            template_id=template_id,
        )
        item = partial(
            ManifestItem, template_id=template_id, kind=template.kind, generated_at=claim.started_at
        )
        if name in stored:
            return item(png_uri=stored[name].uri, meta=_reused(template_id, stored[name]))
        request = ChartRequest(
            template_id=template_id,
            symbol=export.symbol,
            timeframe=export.timeframe,
            payload=template.payload(export, timezone=self._timezone),
            read_candles=candles,
            scope=scope,
        )
        image = self._ask_provider(request)
        check_png(image.png, width=request.width, height=request.height, max_bytes=self._max_png_bytes)
        uri = self._store(claim, name, template_id, image, scope)
        return item(png_uri=uri, meta={**image.meta, "provider": image.provider})

    def _template(self, template_id: str, scope: CancelScope) -> ChartTemplate:
        """The template; while Firestore is away it is asked for again, until the step's time is over."""
        while True:
            try:
                return self._templates.get(template_id)
            except BackendUnavailable as error:
                log.warning(Event.BACKEND_UNAVAILABLE, str(error), backend=error.backend)
                try:
                    scope.sleep(full_jitter_seconds(low=0.5, high=5.0))
                except StepTimedOut:
                    raise error from None

    def _ask_provider(self, request: ChartRequest) -> ChartImage:
        """The provider's chart; an error that nobody foresaw fails this request and not the whole step."""
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
            raise ChartApiFailed(f"The chart could not be had: unexpected {kind}.") from error
        metrics.CHART_SECONDS.labels(image.provider).observe(time.monotonic() - started)
        return image

    def _store(self, claim: Claim, name: str, template_id: str, image: ChartImage, scope: CancelScope) -> str:
        metadata = {
            "runId": claim.run.run_id,
            "stepId": claim.step.step_id,
            "chartTemplateId": template_id,
            "provider": image.provider,
        }
        size = len(image.png)
        with stage(Stage.UPLOAD, chartTemplateId=template_id, provider=image.provider, sizeBytes=size):
            uri = self._artifacts.upload_png(name, image.png, metadata=metadata, scope=scope)
        notify_chart(template_id=template_id, provider=image.provider, uri=uri, png=image.png)
        metrics.CHARTS.labels(image.provider, "made").inc()
        log.info(
            Event.CHART_STORED,
            f"Stored {uri}",
            chartTemplateId=template_id,
            provider=image.provider,
            sizeBytes=size,
        )
        return uri


def _reused(template_id: str, png: StoredPng) -> dict[str, str]:
    """The manifest's `meta` of a chart that an earlier attempt has stored."""
    provider = png.metadata.get("provider", "chart-img")  # the only one there was before this was noted
    notify_chart(template_id=template_id, provider=provider, uri=png.uri, png=None)
    metrics.CHARTS.labels(provider if provider in metrics.PROVIDERS else "other", "reused").inc()
    log.info(
        Event.CHART_REUSED,
        f"Reused {png.uri}",
        chartTemplateId=template_id,
        provider=provider,
        sizeBytes=png.size,
    )
    return {"provider": provider}
