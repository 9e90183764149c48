"""Read and write the trace context of a message, and name it in log lines.

The format is W3C Trace Context. The attribute has the name that Google's own publisher uses
(`googclient_traceparent`), the plain name, or the name of the CloudEvents extension "Distributed Tracing" in
the Pub/Sub binding (`ce-traceparent`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

GOOGLE_PREFIX = "googclient_"
#: The publisher of this message comes first; an event keeps the trace context of its origin.
PREFIXES = (GOOGLE_PREFIX, "", "ce-")
_W3C = TraceContextTextMapPropagator()


def context_of(attributes: Mapping[str, str]) -> Context:
    """Return the trace context of a message, or an empty context if it has no valid one."""
    for prefix in PREFIXES:
        if f"{prefix}traceparent" not in attributes:
            continue
        carrier = {name: attributes.get(f"{prefix}{name}", "") for name in ("traceparent", "tracestate")}
        context = _W3C.extract(carrier, context=Context())
        if span_context_in(context).is_valid:
            return context
    return Context()


def attributes_of_current() -> dict[str, str]:
    """Return the attributes that connect a message to the current trace, named as by Google's publisher."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return {f"{GOOGLE_PREFIX}{name}": value for name, value in carrier.items()}


def span_context_in(context: Context) -> trace.SpanContext:
    """Return the span context of a context; an invalid one if the context has no span."""
    return trace.get_current_span(context).get_span_context()


def log_fields(span: trace.SpanContext, *, project: str) -> dict[str, str | int]:
    """Return the fields by which Cloud Logging connects a line to its span; none for an invalid span.

    See Cloud Logging's reference, "Special JSON fields".
    """
    if not span.is_valid:
        return {}
    return {
        "logging.googleapis.com/trace": f"projects/{project}/traces/{trace.format_trace_id(span.trace_id)}",
        "logging.googleapis.com/spanId": trace.format_span_id(span.span_id),
        "logging.googleapis.com/trace_sampled": span.trace_flags.sampled,
    }
