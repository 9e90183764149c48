"""Send spans: the provider of the SDK, an exporter in its own thread, and an end with a time limit."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from daemon.settings import SettingsError
from daemon.settings.tracing import OTLP_MODULE, TracesExporter
from worker_chart_export.errors import shown
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.metrics import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

NAME = "worker-chart-export"
#: The loggers of the exporter and of its queue: each kind of their lines is logged once in this time.
EXPORTER_LOGGERS = (f"{OTLP_MODULE}.trace_exporter", "opentelemetry.sdk._shared_internal")
REPEAT_SECONDS = 60.0


class Export:
    """The spans of this process and their exporter.

    Args:
        target: Which exporter, not `none`.
        project: The Google Cloud project, which the Telemetry API needs.
        owner: The lease owner, which identifies this process; None for a command.

    Raises:
        SettingsError: The SDK or the exporter can't work with its variables.
    """

    def __init__(self, target: TracesExporter, *, project: str | None, owner: str | None) -> None:
        try:
            # The SDK's own shutdown at exit would wait for half a minute.
            self._provider = TracerProvider(resource=resource(project, owner), shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(_exporter(target)))
        except Exception as error:  # of the SDK, or of a plugin that its variables load
            expected = "OTEL_*: expected variables that OpenTelemetry's SDK can work with"
            raise SettingsError([f"{expected}, got {shown(str(error), 200)}"]) from error
        self.tracer = self._provider.get_tracer(NAME, VERSION)

    def serve_libraries(self) -> None:
        """Send the spans of other libraries in this process too, if they make any."""
        trace.set_tracer_provider(self._provider)

    def finish(self, *, within_seconds: float) -> None:
        """Send the remaining spans; those that can't be sent in time are lost."""
        sending = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        try:
            sending.start()
        except RuntimeError:  # the system has no more threads
            log.warning(Event.LIBRARY, "The last spans could not be sent: there are no more threads")
            return
        sending.join(within_seconds)
        if sending.is_alive():
            log.warning(Event.LIBRARY, f"The last spans could not be sent within {within_seconds:.1f} s")


def resource(project: str | None, owner: str | None) -> Resource:
    """Describe this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it."""
    ours = {
        "service.name": NAME,
        "service.version": VERSION,
        "service.instance.id": owner,
        "gcp.project_id": project,
    }
    known = Resource({name: value for name, value in ours.items() if value is not None})
    return Resource.create(known.merge(OTELResourceDetector().detect()).attributes)


def _exporter(target: TracesExporter) -> SpanExporter:
    if target is TracesExporter.CONSOLE:
        return LoggedSpans()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    for name in EXPORTER_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, RateLimitFilter) for known in logger.filters):
            logger.addFilter(RateLimitFilter())
    return OTLPSpanExporter()


class LoggedSpans(SpanExporter):
    """The exporter `console`: a log line for each span, because the daemon writes nothing but log lines."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Log the spans."""
        for span in spans:
            log.info(Event.LIBRARY, f"Span: {span.name}", span=json.loads(span.to_json()))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing: there is nothing to close."""


class RateLimitFilter(logging.Filter):
    """Passes each kind of line once a minute: a collector may be unavailable for long."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if the line is to be written."""
        now = time.monotonic()
        kind = str(record.msg)
        if now - self._last.get(kind, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._last[kind] = now
        return True
