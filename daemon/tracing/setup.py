"""The daemon's tracing as a whole: decided by the settings, watching the work, ended with the drain."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from daemon.settings import ChartsApiMode, ChartsFallback, load_settings
from daemon.settings.tracing import TracesExporter, TracingSettings
from daemon.tracing.spans import PublishersTrace, Spans
from worker_chart_export.observability.observers import watched_by

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from daemon.settings import Settings
    from daemon.tracing.export import Export

#: The most that the end of the process waits for the last spans.
FINISH_SECONDS = 2.0


class Tracing:
    """The tracing of one daemon. Without OTEL_TRACES_EXPORTER the SDK is not even imported.

    Raises:
        SettingsError: Tracing is on, and its variables are wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._target = settings.traces_go_to
        self._export: Export | None = None
        if self._target is not TracesExporter.NONE:
            load_settings(TracingSettings)

    def watching(self, owner: str) -> AbstractContextManager[None]:
        """Make spans of the work, in the name of this owner, until the block ends.

        Raises:
            SettingsError: The exporter can't work with its variables.
        """
        settings = self._settings
        if self._target is TracesExporter.NONE:
            return watched_by(PublishersTrace(project=settings.google_cloud_project))
        from daemon.tracing.export import Export  # noqa: PLC0415 - the SDK

        self._export = Export(self._target, project=settings.google_cloud_project, owner=owner)
        self._export.serve_libraries()
        return watched_by(
            Spans(
                self._export.tracer,
                subscription=settings.subscription_path,
                project=settings.google_cloud_project,
                chart_server=_chart_server(settings),
                asks_always=_asks_always(settings),
            )
        )

    def finish(self, *, within_seconds: float) -> None:
        """Send the last spans, in the time given and at most two seconds."""
        if self._export is not None:
            self._export.finish(within_seconds=min(FINISH_SECONDS, within_seconds))


def _asks_always(settings: Settings) -> bool:
    """A chart that is recorded already, or drawn here for want of an account, asks nobody."""
    return settings.charts_api_mode is ChartsApiMode.REAL and settings.charts_fallback is ChartsFallback.NONE


def _chart_server(settings: Settings) -> str | None:
    if settings.charts_api_mode not in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        return None
    return urlsplit(settings.chart_img_base_url).hostname
