"""An OpenTelemetry collector for tests: it receives OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpan:
    """A received span; times in nanoseconds since 1970."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    begin: int
    end: int
    is_error: bool
    error_message: str
    attributes: dict[str, Any]
    exceptions: list[dict[str, Any]]
    resource: dict[str, Any]


class Collector:
    """The received spans. It sends no responses while `hangs` is set."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.asked = threading.Event()
        self.closed = threading.Event()
        self._spans: list[SeenSpan] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def settings(self) -> dict[str, str]:
        """Return the variables that make a process send its spans here soon."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def run(self) -> None:
        """Serve until closed."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Stop serving."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def spans(self, name: str = "") -> list[SeenSpan]:
        """Return the spans so far, of that name or all, in the order of their begin."""
        with self._changed:
            found = [span for span in self._spans if name in ("", span.name)]
        return sorted(found, key=lambda span: span.begin)

    def wait_for(self, name: str, *, count: int = 1, timeout_seconds: float = 10.0) -> list[SeenSpan]:
        """Wait for this number of spans of that name."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while sum(span.name == name for span in self._spans) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"waited for {count} x {name}; here: {[span.name for span in self._spans]}"
                    )
                self._changed.wait(left)
        return self.spans(name)

    def take(self, body: bytes) -> None:
        """Store the spans of an export."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for of_resource in request.resource_spans:
                resource = _values(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    self._spans += [_seen(span, resource) for span in of_scope.spans]
            self._changed.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.asked.set()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.hangs.is_set():
                    collector.closed.wait()
                    return
                assert self.path == "/v1/traces"
                collector.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        return Handler


@contextmanager
def collecting() -> Iterator[Collector]:
    """Return a collector on a free port."""
    collector = Collector()
    thread = threading.Thread(target=collector.run, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.close()
        thread.join()


def _seen(span: Span, resource: dict[str, Any]) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        error_message=span.status.message,
        attributes=_values(span.attributes),
        exceptions=[_values(event.attributes) for event in span.events if event.name == "exception"],
        resource=resource,
    )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:
    return getattr(value, str(value.WhichOneof("value")))
