"""A claimed step: what its charts share, and the parts of the manifest that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.outputs.manifest import ManifestItem
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.concurrency.single_flight import LoadOnce
    from worker_chart_export.errors import RequestError
    from worker_chart_export.execution.reach import Reach
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.inputs.template import ChartTemplate
    from worker_chart_export.ledger.step_ledger import Claim
    from worker_chart_export.outputs.artifact_store import StepFolder, StoredPng


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """A claimed step, and what its charts share.

    Attributes:
        claim: The claim of the step.
        export: The checked export request of the step.
        scope: The time and the stop of the charts. It ends before the step's own scope.
        reach: Whether enough charts can still be made.
        folder: The step's place in the charts bucket.
        templates: The template of each request, or why its chart can't be made. Later changes of a template
            have no effect.
        stored: The charts that earlier attempts have stored, by object name.
        candles: The OHLCV file, for all charts.
    """

    claim: Claim
    export: ExportRequest
    scope: CancelScope
    reach: Reach
    folder: StepFolder
    templates: Mapping[str, ChartTemplate | RequestError]
    stored: Mapping[str, StoredPng]
    candles: LoadOnce

    def png_name(self, template_id: str) -> str:
        """Return the object name of a chart."""
        return self.folder.png_name(
            started_at=self.claim.started_at,
            symbol=self.export.symbol,
            timeframe=self.export.timeframe,
            template_id=template_id,
        )

    def item(self, template: ChartTemplate, uri: str, meta: Mapping[str, Any]) -> ManifestItem:
        """Return the manifest's entry of a chart that is stored under `uri`."""
        return ManifestItem(
            template_id=template.template_id,
            kind=template.kind,
            png_uri=uri,
            generated_at=self.claim.started_at,
            meta=meta,
        )


def meta_of(provider: str, template: ChartTemplate) -> dict[str, str]:
    """Return the `meta` that every chart has."""
    version = template.updated_at
    return {"provider": provider} | ({"templateVersion": rfc3339(version)} if version else {})
