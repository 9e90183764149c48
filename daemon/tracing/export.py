"""Where spans go: the SDK's provider, an exporter in a thread of its own, and an end that holds nobody up."""

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
#: Loggers of the exporter and of the queue before it: each kind of complaint is logged once in so long.
COMPLAINERS = (f"{OTLP_MODULE}.trace_exporter", "opentelemetry.sdk._shared_internal")
COMPLAINT_SECONDS = 60.0


class Export:
    """The spans of this process on their way out.

    Args:
        target: Which exporter, not `none`.
        project: The Google Cloud project, which its Telemetry API wants to be told.
        owner: What tells this process from others of the same service; None for a command.

    Raises:
        SettingsError: The SDK or the exporter can't work with its variables.
    """

    def __init__(self, target: TracesExporter, *, project: str | None, owner: str | None) -> None:
        try:
            # Its own end at the interpreter's would wait for half a minute.
            self._provider = TracerProvider(resource=resource(project, owner), shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(_exporter(target)))
        except Exception as error:  # whatever the SDK, or what its variables make it load, has to say
            expected = "OTEL_*: expected variables that OpenTelemetry's SDK can work with"
            raise SettingsError([f"{expected}, got {shown(str(error), 200)}"]) from error
        self.tracer = self._provider.get_tracer(NAME, VERSION)

    def serve_libraries(self) -> None:
        """Send the spans of other libraries in this process too, as far as they were told to make any."""
        trace.set_tracer_provider(self._provider)

    def finish(self, *, within_seconds: float) -> None:
        """Send what there is; what can't be sent in time is given up."""
        sending = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        sending.start()
        sending.join(within_seconds)
        if sending.is_alive():
            log.warning(Event.LIBRARY, f"The last spans could not be sent within {within_seconds:.1f} s")


def resource(project: str | None, owner: str | None) -> Resource:
    """Who sends; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
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

    for name in COMPLAINERS:
        complaints = logging.getLogger(name)
        if not any(isinstance(known, Calm) for known in complaints.filters):
            complaints.addFilter(Calm())
    return OTLPSpanExporter()


class LoggedSpans(SpanExporter):
    """`console`: each span is a log line, because nothing else may appear on the daemon's output."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Log them."""
        for span in spans:
            log.info(Event.LIBRARY, f"Span: {span.name}", span=json.loads(span.to_json()))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to let go of."""


class Calm(logging.Filter):
    """Lets each kind of line through once in a minute: a collector may be away for long."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        now = time.monotonic()
        kind = str(record.msg)
        if now - self._last.get(kind, -COMPLAINT_SECONDS) < COMPLAINT_SECONDS:
            return False
        self._last[kind] = now
        return True
