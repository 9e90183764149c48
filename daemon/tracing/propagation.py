"""How a trace travels with a message, and how log lines name it.

Formats: W3C Trace Context; under the names Google's own publisher uses (`googclient_traceparent`), under its
plain name, and as CloudEvents' extension "Distributed Tracing" in the Pub/Sub binding (`ce-traceparent`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

GOOGLE_PREFIX = "googclient_"
#: Who is nearest to this delivery comes first: an event keeps the trace in which it arose.
PREFIXES = (GOOGLE_PREFIX, "", "ce-")
_W3C = TraceContextTextMapPropagator()


def context_of(attributes: Mapping[str, str]) -> Context:
    """The trace that a message belongs to; an empty context when it names none that can be read."""
    for prefix in PREFIXES:
        if f"{prefix}traceparent" not in attributes:
            continue
        carrier = {name: attributes.get(f"{prefix}{name}", "") for name in ("traceparent", "tracestate")}
        context = _W3C.extract(carrier, context=Context())
        if span_context_in(context).is_valid:
            return context
    return Context()


def attributes_of_current() -> dict[str, str]:
    """The attributes that make a message part of the current trace, as Google's own publisher writes them."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return {f"{GOOGLE_PREFIX}{name}": value for name, value in carrier.items()}


def span_context_in(context: Context) -> trace.SpanContext:
    """Of the context's span; an invalid one when it has none."""
    return trace.get_current_span(context).get_span_context()


def log_fields(span: trace.SpanContext, *, project: str) -> dict[str, str | int]:
    """The fields by which Cloud Logging puts a line beside its span; none for a span that is none.

    See Cloud Logging's reference, "Special JSON fields".
    """
    if not span.is_valid:
        return {}
    return {
        "logging.googleapis.com/trace": f"projects/{project}/traces/{trace.format_trace_id(span.trace_id)}",
        "logging.googleapis.com/spanId": trace.format_span_id(span.span_id),
        "logging.googleapis.com/trace_sampled": span.trace_flags.sampled,
    }
