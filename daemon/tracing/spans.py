"""Spans of the work, one for each stage that an observer sees, in the form of OpenTelemetry.

Names of attributes: OpenTelemetry's semantic conventions for messaging, Google Cloud and errors, where they
have one; else `chart_export.` and the name the logs use.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from daemon.tracing.propagation import context_of, log_fields, span_context_in
from worker_chart_export.errors import RequestError, WorkerError
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.observability.logs import bound
from worker_chart_export.observability.observers import Observer, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from worker_chart_export.execution.outcome import Outcome
    from worker_chart_export.observability.observers import About, StoredChart

MAX_WORDS = 500
#: Of others nobody has counted the charts.
COUNTED = frozenset({OutcomeKind.SUCCEEDED, OutcomeKind.FAILED})
#: Why a delivery came to grief. Whoever handles and settles it raises nothing: it only comes back.
TROUBLE = re.compile(r"internal_error|\w+_unavailable|\w+_refused")
#: Those of the semantic conventions, by the names the logs use.
CONVENTIONAL = {
    "messageId": "messaging.message.id",
    "deliveryAttempt": "messaging.gcp_pubsub.message.delivery_attempt",
    "httpStatus": "http.response.status_code",
}


class Spans(Observer):
    """Makes a span of each stage, under the span of the stage around it.

    A claim, a finalize and the like are spans of the worker itself and of no client: their commit may be
    shared by many steps.

    Args:
        tracer: Where spans begin.
        subscription: The subscription's full path.
        project: The project that the spans are sent to, where Cloud Logging looks for them; the subscription
            may be another's.
        chart_server: The host that is asked for charts; None when none is.
        asks_always: Whether every chart is asked for there, and none is made here.
    """

    def __init__(
        self,
        tracer: trace.Tracer,
        *,
        subscription: str,
        project: str,
        chart_server: str | None,
        asks_always: bool,
    ) -> None:
        _, self._subscription_project, _, self._subscription = subscription.split("/")
        self._tracer = tracer
        self._project = project
        self._chart_server = chart_server
        self._asks_always = asks_always

    @contextmanager
    def stage(self, stage: Stage, about: About, carrier: Mapping[str, str]) -> Iterator[None]:
        """A span, and the lines logged meanwhile with it; an error ends it as one."""
        with (
            self._tracer.start_as_current_span(
                self._name(stage),
                context=context_of(carrier) if stage is Stage.DELIVERY else None,
                kind=self._kind(stage),
                attributes=self._attributes(stage, about),
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            bound(**log_fields(span.get_span_context(), project=self._project)),
        ):
            try:
                yield
            except BaseException as error:
                note_error(span, error)
                raise

    def chart_stored(self, chart: StoredChart) -> None:
        """Noted at the chart's span."""
        trace.get_current_span().set_attributes(
            {
                "chart_export.provider": chart.provider,
                "chart_export.chart_uri": chart.uri,
                "chart_export.reused": chart.png is None,
            }
        )

    def step_ended(self, outcome: Outcome, seconds: float) -> None:  # noqa: ARG002 - the span knows its time
        """Noted at the step's span; a failed step is an error."""
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
            words = outcome.error.message[:MAX_WORDS] if outcome.error else None
            span.set_status(Status(StatusCode.ERROR, words))

    def annotated(self, about: About) -> None:
        """At the span of the stage; a delivery that came to grief is an error, though nothing was raised."""
        span = trace.get_current_span()
        span.set_attributes({attribute_of(name): value for name, value in about.items()})
        reason = str(about.get("reason", ""))
        if "disposition" in about and TROUBLE.fullmatch(reason):
            span.set_attribute("error.type", reason)
            span.set_status(Status(StatusCode.ERROR))

    def call_ended(self, about: About) -> None:
        """An event of the call. Only now is it known whom it asks: a chart that is made here asks nobody."""
        span = trace.get_current_span()
        if self._chart_server:
            span.set_attribute("server.address", self._chart_server)
        known = {name: value for name, value in about.items() if (name, value) != ("httpStatus", 0)}
        span.add_event("chart_api_call", {attribute_of(name): value for name, value in known.items()})

    def _name(self, stage: Stage) -> str:
        return f"process {self._subscription}" if stage is Stage.DELIVERY else stage.value

    def _kind(self, stage: Stage) -> SpanKind:
        match stage:
            case Stage.DELIVERY:
                return SpanKind.CONSUMER
            case Stage.UPLOAD:
                return SpanKind.CLIENT
            case Stage.CALL if self._asks_always:
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
    """Without spans of our own: the lines of a delivery name the publisher's trace, if it has one."""

    def __init__(self, *, project: str) -> None:
        self._project = project

    def stage(
        self,
        stage: Stage,
        about: About,  # noqa: ARG002 - an observer's signature
        carrier: Mapping[str, str],
    ) -> AbstractContextManager[None]:
        """Bound for the delivery as a whole."""
        if stage is not Stage.DELIVERY:
            return nullcontext()
        fields = log_fields(span_context_in(context_of(carrier)), project=self._project)
        return bound(**fields) if fields else nullcontext()


def note_error(span: trace.Span, error: BaseException) -> None:
    """The span has ended in this error. Others' words are left out: they may quote a key."""
    kind = type(error)
    words = str(error)[:MAX_WORDS] if isinstance(error, WorkerError) else None
    span.set_attribute("error.type", error.code.value if isinstance(error, RequestError) else kind.__name__)
    span.set_status(Status(StatusCode.ERROR, words))
    event = {"exception.type": f"{kind.__module__}.{kind.__qualname__}"}
    span.add_event("exception", event | ({"exception.message": words} if words else {}))


def attribute_of(name: str) -> str:
    """What the logs call `runId` is `chart_export.run_id` here."""
    ours = "chart_export." + re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
    return CONVENTIONAL.get(name, ours)
