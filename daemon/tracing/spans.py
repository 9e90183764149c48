"""Make OpenTelemetry spans of the work, one for each stage that an observer gets.

Attributes have the names of OpenTelemetry's semantic conventions for messaging, Google Cloud and errors where
there is one. Otherwise they have the name that the logs use, with the prefix `chart_export.`.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from daemon.tracing.propagation import context_of, log_fields, span_context_in
from worker_chart_export.errors import RequestError, WorkerError
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.observability.logs import bound
from worker_chart_export.observability.observers import Observer, Stage
from worker_chart_export.timing import boot_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from worker_chart_export.execution.outcome import Outcome
    from worker_chart_export.observability.observers import About, StoredChart

MAX_MESSAGE_CHARS = 500
NANOSECONDS = 10**9
#: Other outcomes have no count of charts.
COUNTED = frozenset({OutcomeKind.SUCCEEDED, OutcomeKind.FAILED})
#: Reasons of a disposition that are errors. The handler raises none of them: the message is redelivered.
ERROR_REASONS = re.compile(r"internal_error|\w+_unavailable|\w+_refused")
#: Names of the semantic conventions, by the names that the logs use.
CONVENTIONAL = {
    "messageId": "messaging.message.id",
    "deliveryAttempt": "messaging.gcp_pubsub.message.delivery_attempt",
    "httpStatus": "http.response.status_code",
}


class Spans(Observer):
    """Makes a span of each stage, under the span of the stage around it.

    A claim or a finalize is an internal span, not a client span: its commit may serve many steps.

    Args:
        tracer: Creates the spans.
        subscription: The subscription's full path.
        project: The project that gets the spans, where Cloud Logging finds them. The subscription may belong
            to another project.
        chart_server: The host of the chart provider; None for a provider without a server.
        always_calls: True if every chart needs a call to that host.
    """

    def __init__(
        self,
        tracer: trace.Tracer,
        *,
        subscription: str,
        project: str,
        chart_server: str | None,
        always_calls: bool,
    ) -> None:
        _, self._subscription_project, _, self._subscription = subscription.split("/")
        self._tracer = tracer
        self._project = project
        self._chart_server = chart_server
        self._always_calls = always_calls

    @contextmanager
    def stage(self, stage: Stage, about: About, carrier: Mapping[str, str]) -> Iterator[None]:
        """Make a span of the stage, and bind it to the log lines of the stage.

        Its duration is measured, because the wall clock may be set meanwhile.
        """
        start, began = time.time_ns(), boot_seconds()
        with (
            self._tracer.start_as_current_span(
                f"process {self._subscription}" if stage is Stage.DELIVERY else stage.value,
                context=context_of(carrier) if stage is Stage.DELIVERY else None,
                kind=self._kind(stage),
                attributes=self._attributes(stage, about),
                start_time=start,
                record_exception=False,
                set_status_on_exception=False,
                end_on_exit=False,
            ) as span,
            bound(**log_fields(span.get_span_context(), project=self._project)),
        ):
            try:
                yield
            except BaseException as error:
                note_error(span, error)
                raise
            finally:
                span.end(start + round((boot_seconds() - began) * NANOSECONDS))

    def chart_stored(self, chart: StoredChart) -> None:
        """Add the chart to its span."""
        trace.get_current_span().set_attributes(
            {
                "chart_export.provider": chart.provider,
                "chart_export.chart_uri": chart.uri,
                "chart_export.reused": chart.png is None,
            }
        )

    def step_ended(self, outcome: Outcome, seconds: float) -> None:  # noqa: ARG002 - the span has its own times
        """Add the outcome to the span of the step; a failed step is an error."""
        span = trace.get_current_span()
        span.set_attribute("chart_export.result", outcome.kind.value)
        if outcome.kind in COUNTED:
            span.set_attribute("chart_export.items", outcome.items)
            span.set_attribute("chart_export.failures", outcome.failures)
        if outcome.reason:
            span.set_attribute("chart_export.reason", outcome.reason)
        if outcome.error:
            span.set_attribute("error.type", str(outcome.error.code))
        if outcome.kind is OutcomeKind.FAILED:
            message = outcome.error.message[:MAX_MESSAGE_CHARS] if outcome.error else None
            span.set_status(Status(StatusCode.ERROR, message))

    def annotated(self, about: About) -> None:
        """Add the facts to the span of the stage. A failed delivery is an error; it raises nothing."""
        span = trace.get_current_span()
        span.set_attributes({attribute_of(name): value for name, value in about.items()})
        reason = str(about.get("reason", ""))
        if "disposition" in about and ERROR_REASONS.fullmatch(reason):
            span.set_attribute("error.type", reason)
            span.set_status(Status(StatusCode.ERROR))

    def call_ended(self, about: About) -> None:
        """Add an event for the call, and its server, which the span gets only with the first call."""
        span = trace.get_current_span()
        if self._chart_server:
            span.set_attribute("server.address", self._chart_server)
        known = {name: value for name, value in about.items() if (name, value) != ("httpStatus", 0)}
        span.add_event("chart_api_call", {attribute_of(name): value for name, value in known.items()})

    def _kind(self, stage: Stage) -> SpanKind:
        match stage:
            case Stage.DELIVERY:
                return SpanKind.CONSUMER
            case Stage.UPLOAD:
                return SpanKind.CLIENT
            case Stage.CALL if self._always_calls:
                return SpanKind.CLIENT
            case _:
                return SpanKind.INTERNAL

    def _attributes(self, stage: Stage, about: About) -> dict[str, str | int]:
        known = {attribute_of(name): value for name, value in about.items() if value != ""}
        match stage:
            case Stage.DELIVERY:
                return {
                    "messaging.system": "gcp_pubsub",
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": self._subscription,
                    "messaging.destination.subscription.name": self._subscription,
                    "gcp.project_id": self._subscription_project,
                    **known,
                }
            case Stage.STEP if not about.get("messageId"):
                return {"chart_export.rescued": True, **known}
            case Stage.UPLOAD:
                return {"gcp.client.service": "storage", **known}
            case _:
                return known


class PublishersTrace(Observer):
    """Without tracing: bind the publisher's trace, if there is one, to the log lines of a delivery."""

    stages = frozenset({Stage.DELIVERY})

    def __init__(self, *, project: str) -> None:
        self._project = project

    def stage(
        self,
        stage: Stage,  # noqa: ARG002 - an observer's signature
        about: About,  # noqa: ARG002 - the same
        carrier: Mapping[str, str],
    ) -> AbstractContextManager[None] | None:
        """Bind the trace while the delivery lasts."""
        fields = log_fields(span_context_in(context_of(carrier)), project=self._project)
        return bound(**fields) if fields else None


def note_error(span: trace.Span, error: BaseException) -> None:
    """Mark the span as failed. Messages of other libraries are left out: they may quote a key."""
    kind = type(error)
    message = str(error)[:MAX_MESSAGE_CHARS] if isinstance(error, WorkerError) else None
    span.set_attribute("error.type", error.code.value if isinstance(error, RequestError) else kind.__name__)
    span.set_status(Status(StatusCode.ERROR, message))
    event = {"exception.type": f"{kind.__module__}.{kind.__qualname__}"}
    span.add_event("exception", event | ({"exception.message": message} if message else {}))


def attribute_of(name: str) -> str:
    """Return the attribute for a name of the logs: `chart_export.run_id` for `runId`."""
    ours = "chart_export." + re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
    return CONVENTIONAL.get(name, ours)
