"""The tracing of the daemon: started by the settings, finished by the drain."""

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

#: The longest wait for the last spans at the end of the process.
FINISH_SECONDS = 2.0


class Tracing:
    """The tracing of one daemon. Without OTEL_TRACES_EXPORTER the SDK is not imported.

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
        """Make spans of the work of this lease owner until the block ends.

        Raises:
            SettingsError: The exporter can't use its variables.
        """
        settings = self._settings
        if self._target is TracesExporter.NONE:
            return watched_by(PublishersTrace(project=settings.google_cloud_project))
        from daemon.tracing.export import Export  # noqa: PLC0415 - the SDK

        self._export = Export(self._target, project=settings.google_cloud_project, owner=owner)
        self._export.serve_libraries()
        chart_server, always_calls = _chart_calls(settings)
        return watched_by(
            Spans(
                self._export.tracer,
                subscription=settings.subscription_path,
                project=settings.google_cloud_project,
                chart_server=chart_server,
                always_calls=always_calls,
            )
        )

    def finish(self, *, within_seconds: float) -> None:
        """Send the last spans, within `within_seconds` and at most two seconds."""
        if self._export is not None:
            self._export.finish(within_seconds=min(FINISH_SECONDS, within_seconds))


def _chart_calls(settings: Settings) -> tuple[str | None, bool]:
    """Return the host of the chart provider, if it has one, and True if every chart needs a call to it."""
    mode = settings.charts_api_mode
    if mode not in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        return None, False
    # With a recorder or a fallback, a chart may be made without a call.
    always = mode is ChartsApiMode.REAL and settings.charts_fallback is ChartsFallback.NONE
    return urlsplit(settings.chart_img_base_url).hostname, always
