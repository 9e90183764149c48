"""Spans of the work, trace propagation, and the end of the export."""

from __future__ import annotations

import logging
import threading
import time
from unittest import mock

import pytest
from google.cloud.pubsub_v1.open_telemetry.context_propagation import OpenTelemetryContextSetter
from google.pubsub_v1 import PubsubMessage
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from daemon.settings import Settings, SettingsError, load_settings
from daemon.settings.tracing import TracesExporter
from daemon.tracing.export import EXPORTER_LOGGERS, Export, RateLimitFilter, resource
from daemon.tracing.propagation import context_of, span_context_in
from daemon.tracing.publishing import PublisherSpans
from daemon.tracing.setup import Tracing, _chart_calls
from daemon.tracing.spans import PublishersTrace, Spans
from localcloud.faults import Fault
from tests.support.cloud.otlp_collector import collecting
from tests.support.deliveries import a_message, deliver
from tests.support.fakes import RUN_ID, STEP_ID, png_bytes
from tests.support.pipeline_bench import Bench
from worker_chart_export.errors import ChartApiFailed, Interrupted
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import Stage, annotate, notify_call, stage, watched_by

KEY = "key-that-must-never-be-seen"
TOPIC = "projects/demo-project/topics/flow-steps"
SUBSCRIPTION = "projects/demo-project/subscriptions/chart-export"
ELSEWHERE = "projects/elsewhere/subscriptions/chart-export"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"


class Recorder:
    """A recorder of ended spans."""

    def __init__(self, chart_server: str | None = "api.chart-img.com", *, always_calls: bool = True) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        tracer = provider.get_tracer("test")
        self.observer = Spans(
            tracer,
            subscription=SUBSCRIPTION,
            project="demo-project",
            chart_server=chart_server,
            always_calls=always_calls,
        )

    def spans(self, name: str):
        """Return the spans of that name as JSON."""
        return [span for span in self._kept.get_finished_spans() if span.name == name]

    def one(self, name: str):
        """Return the only span of that name."""
        (span,) = self.spans(name)
        return span


@pytest.fixture
def recorder():
    """Record spans during the test."""
    found = Recorder()
    with watched_by(found.observer):
        yield found


@pytest.fixture
def bench(cloud, documents, objects):
    """Return a worker's bench."""
    return Bench(cloud, documents, objects)


@pytest.fixture
def set_variables(monkeypatch):
    """Set variables of tracing for the test."""
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


class TestSpansOfTheWork:
    """Spans of the real pipeline."""

    def test_a_duration_does_not_follow_the_wall_clock(self, recorder, monkeypatch):
        """A span lasts as long as its stage, although the wall clock is set back meanwhile."""
        with stage(Stage.MANIFEST, attempt=1):
            monkeypatch.setattr("opentelemetry.sdk.trace.time_ns", lambda: time.time_ns() - 3600 * 10**9)
        span = recorder.one("manifest")
        assert 0 <= span.end_time - span.start_time < 60 * 10**9

    def test_a_call_that_fails_is_an_error_up_to_its_chart(self, bench, recorder):
        """A failed call marks its span, its chart and the failed step as errors, with their codes."""

        def refuse(_request):
            raise ChartApiFailed("It refuses.")

        bench.provider.script["ctpl_a"] = refuse
        bench.put("ctpl_a")
        bench.run()
        for name in ("call", "chart"):
            span = recorder.one(name)
            assert (span.status.is_ok, span.status.description) == (False, "It refuses.")
            assert span.attributes["error.type"] == "CHART_API_FAILED"
        step = recorder.one("step")
        assert (step.status.is_ok, step.attributes["error.type"]) == (False, "CHART_API_FAILED")
        assert step.attributes["chart_export.result"] == "failed"
        assert "It refuses." in step.status.description
        assert recorder.one("finalize").attributes["chart_export.status"] == "FAILED"
        assert recorder.one("finalize").status.is_ok

    def test_an_unexpected_error_is_named_but_not_quoted(self, bench, recorder):
        """An unexpected error is recorded by type and without its message, which may hold a key."""

        def fail(_request):
            raise RuntimeError(f"bad header {KEY}")

        bench.provider.script["ctpl_a"] = fail
        bench.put("ctpl_a")
        bench.run()
        call = recorder.one("call")
        assert call.attributes["error.type"] == "RuntimeError"
        assert [event.attributes for event in call.events] == [{"exception.type": "builtins.RuntimeError"}]
        names = ("call", "chart", "step", "finalize")
        assert KEY not in "".join(span.to_json() for name in names for span in recorder.spans(name))

    def test_a_released_step_ends_in_an_error(self, bench, recorder):
        """The span of a released step has the error that caused the release."""

        def stop(request):
            request.call_scope.stop(Interrupted("enough"))
            return png_bytes()

        bench.provider.script["ctpl_a"] = stop
        bench.put("ctpl_a")
        with pytest.raises(Interrupted):
            bench.run()
        step = recorder.one("step")
        assert (step.status.description, step.attributes["error.type"]) == ("enough", "Interrupted")
        assert step.attributes["chart_export.result"] == "given_back"
        assert "chart_export.items" not in step.attributes
        assert recorder.one("release").parent.span_id == step.context.span_id

    def test_a_rescued_step_is_a_trace_of_its_own(self, bench, recorder):
        """A rescued step starts its own trace without a publisher, and stored charts are marked as reused."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease()
        bench.run()
        step = recorder.one("step")
        assert step.parent is None
        assert dict(step.attributes) == {
            "chart_export.run_id": RUN_ID,
            "chart_export.step_id": STEP_ID,
            "chart_export.rescued": True,
            "chart_export.attempt": 2,
            "chart_export.taken_over": True,
            "chart_export.result": "succeeded",
            "chart_export.items": 1,
            "chart_export.failures": 0,
        }
        assert recorder.one("claim").attributes == {
            "chart_export.result": "taken_over",
            "chart_export.attempt": 2,
            "chart_export.former_owner": "elsewhere:1:boot",
        }
        assert recorder.one("chart").attributes["chart_export.attempt"] == 2
        assert recorder.one("chart").attributes["chart_export.reused"] is False

    def test_a_won_claim_is_marked(self, bench, recorder):
        """A won claim is marked in its span, and the step's span has the attempt."""
        bench.put("ctpl_a")
        message, _ = a_message({"runId": RUN_ID, "stepId": STEP_ID})
        deliver(bench, message)
        assert recorder.one("claim").attributes == {"chart_export.result": "won", "chart_export.attempt": 1}
        step = recorder.one("step").attributes
        assert (step["chart_export.attempt"], step["chart_export.taken_over"]) == (1, False)
        assert "chart_export.rescued" not in step

    def test_a_lost_claim_has_its_reason(self, bench, recorder):
        """The spans of a lost claim and of its step have the reason and are no errors."""
        bench.put("ctpl_a", status="SUCCEEDED")
        bench.run()
        assert recorder.one("claim").attributes == {"chart_export.result": "step_final"}
        step = recorder.one("step")
        assert step.attributes["chart_export.result"] == "claim_lost"
        assert step.attributes["chart_export.reason"] == "step_final"
        assert "chart_export.attempt" not in step.attributes
        assert step.status.is_ok

    @pytest.mark.parametrize(("attempt", "expected"), [(0, None), (3, 3)])
    def test_a_delivery_has_its_disposition_and_its_id(self, bench, recorder, attempt, expected):
        """A delivery's span has its disposition, message id and, with a dead-letter policy, its attempt."""
        bench.put("ctpl_a", status="SUCCEEDED")
        message, _ = a_message({"runId": RUN_ID, "stepId": STEP_ID}, delivery_attempt=attempt)
        deliver(bench, message)
        delivery = recorder.one("process chart-export")
        assert delivery.attributes["chart_export.disposition"] == "ack"
        assert delivery.attributes["chart_export.reason"] == "final"
        assert delivery.attributes.get("messaging.gcp_pubsub.message.delivery_attempt") == expected
        assert delivery.status.is_ok

    def test_a_delivery_that_a_backend_fails_is_an_error(self, bench, cloud, recorder):
        """A delivery that is deferred because of a backend is an error, although nothing is raised."""
        bench.put("ctpl_a")
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="PERMISSION_DENIED"))
        deliver(bench, a_message({"runId": RUN_ID, "stepId": STEP_ID})[0])
        delivery = recorder.one("process chart-export")
        assert (delivery.status.is_ok, delivery.attributes["error.type"]) == (False, "firestore_refused")
        assert delivery.attributes["chart_export.disposition"] == "defer"

    @pytest.mark.parametrize("reason", ["firestore_unavailable", "quarantine_unavailable", "storage_refused"])
    def test_a_failing_backend_marks_a_delivery_as_an_error(self, recorder, reason):
        """Dispositions because of a failing backend mark a delivery as an error."""
        with stage(Stage.DELIVERY, messageId="m"):
            annotate(disposition="defer", reason=reason)
        assert not recorder.one("process chart-export").status.is_ok

    @pytest.mark.parametrize("reason", ["shutdown", "pending", "duplicate", "out_of_time", "failed"])
    def test_ordinary_deferrals_are_no_errors(self, recorder, reason):
        """Ordinary deferrals and a FAILED step do not mark a delivery as an error."""
        with stage(Stage.DELIVERY, messageId="m"):
            annotate(disposition="nack", reason=reason)
        assert recorder.one("process chart-export").status.is_ok

    def test_a_settlement_that_fails_is_an_error(self, bench, recorder, log_lines):
        """A failed settlement is an error: the message is dropped and redelivered after its deadline."""
        message, asked = a_message({"runId": "../.."})
        message.ack = mock.Mock(side_effect=RuntimeError("gone"))
        deliver(bench, message)
        delivery = recorder.one("process chart-export")
        assert (delivery.status.is_ok, delivery.attributes["error.type"]) == (False, "internal_error")
        assert delivery.attributes["chart_export.disposition"] == "drop"
        assert [line["event"] for line in log_lines()][-1] == "internal_error"
        assert not asked.empty()

    @pytest.mark.parametrize("target", ["console", "none"])
    def test_lines_name_the_project_that_has_the_spans(self, set_variables, monkeypatch, target, log_lines):
        """Log lines name the project of the spans and not that of the subscription."""
        monkeypatch.setattr(
            Export, "serve_libraries", lambda _export: None
        )  # is for the whole process, for ever
        set_variables(GOOGLE_CLOUD_PROJECT="ours", PUBSUB_SUBSCRIPTION=ELSEWHERE, CHARTS_BUCKET="gs://charts")
        set_variables(CHARTS_API_MODE="local", OTEL_TRACES_EXPORTER=target)
        tracing = Tracing(load_settings(Settings))
        with tracing.watching("owner"), stage(Stage.DELIVERY, carrier={"traceparent": TRACEPARENT}):
            log.info(Event.MESSAGE_RECEIVED, "in")
        tracing.finish(within_seconds=5)
        line = log_lines()[0]
        assert line["logging.googleapis.com/trace"] == f"projects/ours/traces/{TRACE_ID}"

    def test_a_step_that_is_failed_in_the_place_of_a_claim_is_an_error(self, bench, recorder):
        """A step that is failed in place of a claim, after too many attempts, is an error."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(attempt=5)
        bench.run()
        assert recorder.one("claim").attributes["chart_export.result"] == "crash_loop"
        step = recorder.one("step")
        assert (step.status.is_ok, step.attributes["error.type"]) == (False, "CRASH_LOOP")
        assert step.attributes["chart_export.result"] == "failed"

    @pytest.mark.parametrize(
        ("variables", "server", "always"),
        [
            ({}, "api.chart-img.com", True),
            ({"CHARTS_FALLBACK": "local"}, "api.chart-img.com", False),
            ({"CHARTS_API_MODE": "local"}, None, False),
        ],
    )
    def test_only_requests_of_charts_are_client_spans(self, set_variables, variables, server, always):
        """Only a provider's request is a client span; a chart of the fallback is drawn locally."""
        set_variables(
            GOOGLE_CLOUD_PROJECT="demo-project", PUBSUB_SUBSCRIPTION="charts", CHARTS_BUCKET="gs://charts"
        )
        set_variables(CHARTS_API_MODE="real", CHART_IMG_ACCOUNTS_JSON='[{"id": "a", "apiKey": "k"}]')
        set_variables(**variables)
        settings = load_settings(Settings)
        assert _chart_calls(settings) == (server, always)

    @pytest.mark.parametrize(("always", "kind"), [(True, SpanKind.CLIENT), (False, SpanKind.INTERNAL)])
    def test_a_call_keeps_its_kind(self, always, kind):
        """A call keeps the kind that it had at its begin, when it is not known whether a request follows."""
        found = Recorder(always_calls=always)
        with watched_by(found.observer), stage(Stage.CALL, symbol="IBM"):
            pass
        assert found.one("call").kind is kind

    def test_a_call_has_the_account_and_each_status(self, recorder):
        """A call's span has the account and the status of each request, once there was one."""
        with stage(Stage.CALL, symbol="IBM"):
            notify_call(accountId="main", callNumber=1, httpStatus=503, outcome="trouble", durationMs=7)
            notify_call(accountId="main", callNumber=2, httpStatus=0, outcome="no_answer", durationMs=9)
        with stage(Stage.CALL, symbol="MSFT"):
            pass
        asked, drawn = recorder.spans("call")
        assert (asked.attributes["server.address"], asked.kind) == ("api.chart-img.com", SpanKind.CLIENT)
        assert [(event.name, dict(event.attributes)) for event in asked.events] == [
            (
                "chart_api_call",
                {
                    "chart_export.account_id": "main",
                    "chart_export.call_number": 1,
                    "http.response.status_code": 503,
                    "chart_export.outcome": "trouble",
                    "chart_export.duration_ms": 7,
                },
            ),
            (
                "chart_api_call",
                {
                    "chart_export.account_id": "main",
                    "chart_export.call_number": 2,
                    "chart_export.outcome": "no_answer",
                    "chart_export.duration_ms": 9,
                },
            ),
        ]
        assert "server.address" not in drawn.attributes
        assert drawn.attributes["chart_export.symbol"] == "MSFT"

    def test_an_unsampled_trace_of_a_publisher_is_respected(self, recorder, log_lines):
        """A publisher's unsampled trace is sent nowhere, and log lines name it as not sampled."""
        with stage(Stage.DELIVERY, messageId="m", carrier={"googclient_traceparent": UNSAMPLED}):
            log.info(Event.MESSAGE_RECEIVED, "here")
        assert recorder.spans("process chart-export") == []
        (line,) = log_lines()
        assert line["logging.googleapis.com/trace"] == f"projects/demo-project/traces/{TRACE_ID}"
        assert line["logging.googleapis.com/trace_sampled"] is False

    def test_nothing_is_left_bound_after_a_stage(self, recorder, log_lines):
        """After a stage its span is no longer bound, also after an error."""
        with pytest.raises(KeyError), stage(Stage.READ, runId="r"):
            raise KeyError("gone")
        log.info(Event.MESSAGE_RECEIVED, "after")
        assert recorder.one("read").attributes["error.type"] == "KeyError"
        assert not [name for name in log_lines()[-1] if name.startswith("logging.")]


class TestHowATraceTravels:
    """Trace propagation in a message's attributes."""

    @pytest.mark.parametrize("prefix", ["googclient_", "", "ce-"])
    def test_each_name_of_it_is_known(self, prefix):
        """Google's attribute, the plain one and that of a CloudEvent are read."""
        attributes = {f"{prefix}traceparent": TRACEPARENT, f"{prefix}tracestate": "vendor=1"}
        found = span_context_in(context_of(attributes))
        assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE_ID, SPAN_ID)
        assert found.trace_state.get("vendor") == "1"
        assert found.is_remote

    def test_it_is_read_as_google_s_own_publisher_writes_it(self, recorder):
        """A trace is read as Google's own publisher class writes it."""
        message = PubsubMessage()
        with stage(Stage.STEP, runId="r"):
            TraceContextTextMapPropagator().inject(carrier=message, setter=OpenTelemetryContextSetter())
        found = span_context_in(context_of(dict(message.attributes)))
        assert found.span_id == recorder.one("step").context.span_id

    def test_the_nearest_publisher_wins(self):
        """The nearest publisher's trace is used; an event keeps its own, and an invalid one is skipped."""
        other = f"00-{'1' * 32}-{'2' * 16}-01"
        assert span_context_in(
            context_of({"ce-traceparent": other, "traceparent": TRACEPARENT})
        ).trace_id == int(TRACE_ID, 16)
        broken = {"googclient_traceparent": "00-nonsense", "ce-traceparent": other}
        assert span_context_in(context_of(broken)).trace_id == int("1" * 32, 16)

    @pytest.mark.parametrize(
        "value", ["", "x", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", TRACEPARENT + "-more", "\x00"]
    )
    def test_an_invalid_trace_starts_a_new_one(self, recorder, value):
        """An invalid trace starts a new one for the delivery."""
        with stage(Stage.DELIVERY, messageId="m", carrier={"traceparent": value}):
            pass
        assert recorder.one("process chart-export").parent is None

    @pytest.mark.parametrize(
        "state", ["bad member", f"a={'x' * 300}", ",".join(f"k{n}=1" for n in range(40))]
    )
    def test_a_hostile_tracestate_is_no_log_line(self, recorder, log_lines, state):
        """A hostile `tracestate` is not logged."""
        carrier = {"traceparent": TRACEPARENT, "tracestate": state}
        with stage(Stage.DELIVERY, messageId="m", carrier=carrier):
            pass
        assert f"{recorder.one('process chart-export').context.trace_id:032x}" == TRACE_ID
        with watched_by(PublishersTrace(project="demo-project")), stage(Stage.DELIVERY, carrier=carrier):
            pass
        assert log_lines() == []

    def test_without_tracing_the_lines_of_a_delivery_name_the_publisher_s(self, log_lines):
        """Without tracing, log lines of a delivery name the publisher's trace."""
        with watched_by(PublishersTrace(project="demo-project")):
            with stage(Stage.DELIVERY, carrier={"traceparent": TRACEPARENT}), stage(Stage.STEP):
                log.info(Event.MESSAGE_RECEIVED, "in")
            with stage(Stage.DELIVERY, carrier={}):
                log.info(Event.MESSAGE_RECEIVED, "without")
        inside, without = log_lines()
        assert inside["logging.googleapis.com/spanId"] == SPAN_ID
        assert not [name for name in without if name.startswith("logging.")]


class TestPublishing:
    """The spans of a publishing command."""

    def test_without_tracing_a_message_gets_no_attribute(self):
        """Without tracing a message gets no attribute and nothing is loaded."""
        with PublisherSpans(TOPIC) as spans, spans.message({"runId": "r"}) as attributes:
            assert attributes == {}

    def test_a_publish_that_fails_is_an_error(self, set_variables, log_lines):  # noqa: ARG002 - restores the logs
        """The span of a failed publish is an error and is sent."""
        with collecting() as collector:
            set_variables(**collector.settings())
            with (
                pytest.raises(KeyError),
                PublisherSpans(TOPIC) as spans,
                spans.message({"runId": "r"}) as attributes,
            ):
                raise KeyError
            (span,) = collector.wait_for("publish flow-steps")
        assert (span.kind, span.is_error, span.attributes["error.type"]) == ("PRODUCER", True, "KeyError")
        assert attributes["googclient_traceparent"].startswith(f"00-{span.trace_id}-{span.span_id}-")


class TestExport:
    """The export of spans."""

    def test_the_environment_s_names_win(self, set_variables):
        """The environment's names of the service and its resource replace ours."""
        set_variables(
            OTEL_SERVICE_NAME="mine",
            OTEL_RESOURCE_ATTRIBUTES="gcp.project_id=other,deployment.environment.name=x",
        )
        found = dict(resource("demo-project", "host:1:boot").attributes)
        assert found == found | {
            "service.name": "mine",
            "gcp.project_id": "other",
            "deployment.environment.name": "x",
            "service.instance.id": "host:1:boot",
        }

    def test_on_the_console_a_span_is_a_log_line(self, log_lines):
        """On the console a span is one JSON log line."""
        export = Export(TracesExporter.CONSOLE, project="demo-project", owner=None)
        with export.tracer.start_as_current_span("a span"):
            pass
        export.finish(within_seconds=5)
        (line,) = log_lines()
        assert (line["event"], line["message"], line["span"]["name"]) == ("library", "Span: a span", "a span")

    def test_an_end_waits_no_longer_than_it_may(self, set_variables, log_lines):
        """The end of the export waits no longer than its limit for a hanging collector."""
        with collecting() as collector:
            collector.hangs.set()
            set_variables(**collector.settings(), OTEL_EXPORTER_OTLP_TIMEOUT="1")
            export = Export(TracesExporter.OTLP, project="demo-project", owner=None)
            export.tracer.start_span("a span").end()
            assert collector.asked.wait(5)
            started = time.monotonic()
            export.finish(within_seconds=0.2)
            assert 0.2 <= time.monotonic() - started < 1
            lines = log_lines()
            for thread in threading.enumerate():
                if thread.name == "last-spans":
                    thread.join()
        assert [line["message"] for line in lines] == ["The last spans could not be sent within 0.2 s"]

    def test_an_unavailable_collector_is_one_line_a_minute(self, set_variables, log_lines):
        """An unavailable collector is logged once a minute per kind of message."""
        with collecting() as gone:
            set_variables(**gone.settings(), OTEL_EXPORTER_OTLP_TIMEOUT="0.2")
        for _ in range(3):
            export = Export(TracesExporter.OTLP, project="demo-project", owner=None)
            export.tracer.start_span("a span").end()
            export.finish(within_seconds=5)
        lines = log_lines()
        assert [line["event"] for line in lines] == ["library"]
        assert "Failed to export span" in lines[0]["message"]

    def test_the_queue_s_messages_are_limited_too(self, log_lines):
        """Messages of the full queue are limited too, with other lines in between."""
        Export(TracesExporter.OTLP, project="demo-project", owner=None).finish(within_seconds=5)
        queue = logging.getLogger("opentelemetry.sdk._shared_internal")
        for _ in range(3):
            queue.warning("Queue full, dropping %s.", "Span")
            queue.warning("Exception while exporting %s.", "Span")
        said = [line["message"] for line in log_lines()]
        assert said == ["Queue full, dropping Span.", "Exception while exporting Span."]

    def test_a_message_comes_again_after_a_minute(self):
        """A limited message is logged again after a minute."""
        limited = RateLimitFilter()
        record = logging.makeLogRecord({"msg": "unavailable: %s"})
        with mock.patch("daemon.tracing.export.time.monotonic", side_effect=[0.0, 59.0, 61.0, 62.0]):
            assert [limited.filter(record) for _ in range(4)] == [True, False, True, False]

    @pytest.mark.parametrize(
        "variables",
        [
            {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"},
            {"OTEL_BSP_MAX_QUEUE_SIZE": "5"},  # below the size of a batch
            {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": "unknown"},
        ],
    )
    def test_a_value_that_the_sdk_refuses_is_a_setting_error(self, set_variables, variables):
        """A value that the SDK refuses is reported as a wrong setting."""
        set_variables(**variables)
        with pytest.raises(
            SettingsError, match=r"^OTEL_\*: expected variables that OpenTelemetry's SDK can work"
        ):
            Export(TracesExporter.OTLP, project="demo-project", owner=None)


@pytest.fixture(autouse=True)
def _same_loggers_after():
    """Reset the loggers' memory of logged messages."""
    yield
    for complaints in map(logging.getLogger, EXPORTER_LOGGERS):
        complaints.filters[:] = [
            known for known in complaints.filters if not isinstance(known, RateLimitFilter)
        ]
