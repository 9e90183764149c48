"""Spans of the work, how a trace travels, and how its export ends."""

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

from daemon.settings import SettingsError
from daemon.tracing.export import Calm, Export, resource
from daemon.tracing.published import PublisherSpans
from daemon.tracing.spans import PublishersTrace, Spans
from daemon.tracing.trace_context import context_of, span_context_in
from daemon.tracing_settings import OTLP_MODULE, TracesExporter
from tests.collector import collecting
from tests.unit.bench import Bench
from tests.unit.doubles import RUN_ID, STEP_ID, png_bytes
from worker_chart_export.errors import ChartApiFailed, Interrupted
from worker_chart_export.logs import Event, log
from worker_chart_export.stages import Stage, stage, watched_by

KEY = "key-that-must-never-be-seen"
TOPIC = "projects/demo-project/topics/flow-steps"
SUBSCRIPTION = "projects/demo-project/subscriptions/chart-export"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"


class Recorder:
    """Watches with real spans and keeps those that ended."""

    def __init__(self, chart_server: str | None = "api.chart-img.com") -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        tracer = provider.get_tracer("test")
        self.observer = Spans(tracer, subscription=SUBSCRIPTION, chart_server=chart_server)

    def spans(self, name: str):
        """The spans of that name, as JSON would tell them."""
        return [span for span in self._kept.get_finished_spans() if span.name == name]

    def one(self, name: str):
        """The only span of that name."""
        (span,) = self.spans(name)
        return span


@pytest.fixture
def recorder():
    """Spans during the test."""
    found = Recorder()
    with watched_by(found.observer):
        yield found


@pytest.fixture
def bench(cloud, documents, objects):
    """A worker's bench."""
    return Bench(cloud, documents, objects)


@pytest.fixture
def told(monkeypatch):
    """Sets variables of tracing for the test."""
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


class TestSpansOfTheWork:
    """By the real pipeline."""

    def test_a_call_that_fails_is_an_error_up_to_its_chart(self, bench, recorder):
        """The step, which had not enough charts then, is one too, with its code."""

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

    def test_an_error_that_nobody_foresaw_is_named_but_not_quoted(self, bench, recorder):
        """Its words may hold a key."""

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

    def test_a_step_that_is_given_back_ends_in_an_error(self, bench, recorder):
        """It has no result."""

        def stop(request):
            request.budget.stop(Interrupted("enough"))
            return png_bytes()

        bench.provider.script["ctpl_a"] = stop
        bench.put("ctpl_a")
        with pytest.raises(Interrupted):
            bench.run()
        step = recorder.one("step")
        assert (step.status.description, step.attributes["error.type"]) == ("enough", "Interrupted")
        assert "chart_export.result" not in step.attributes
        assert recorder.one("release").parent.span_id == step.context.span_id

    def test_a_rescued_step_is_a_trace_of_its_own(self, bench, recorder):
        """There is no message, so no publisher to join; and what was stored before is told as reused."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease()
        bench.run()
        step = recorder.one("step")
        assert step.parent is None
        assert dict(step.attributes) == {
            "chart_export.run_id": RUN_ID,
            "chart_export.step_id": STEP_ID,
            "chart_export.result": "succeeded",
            "chart_export.items": 1,
            "chart_export.failures": 0,
        }
        assert recorder.one("chart").attributes["chart_export.attempt"] == 2
        assert recorder.one("chart").attributes["chart_export.reused"] is False

    @pytest.mark.parametrize(("server", "kind"), [("host", SpanKind.CLIENT), (None, SpanKind.INTERNAL)])
    def test_only_a_call_that_asks_somebody_is_a_client_s(self, server, kind):
        """A chart that is drawn here is not."""
        found = Recorder(chart_server=server)
        with watched_by(found.observer), stage(Stage.CALL, symbol="IBM"):
            pass
        call = found.one("call")
        assert (call.kind, call.attributes.get("server.address")) == (kind, server)
        assert call.attributes["chart_export.symbol"] == "IBM"

    def test_a_publisher_that_samples_nothing_is_obeyed_and_named(self, recorder, log_lines):
        """Nothing is sent; the lines name the trace and that it is not sampled."""
        with stage(Stage.DELIVERY, messageId="m", carrier={"googclient_traceparent": UNSAMPLED}):
            log.info(Event.MESSAGE_RECEIVED, "here")
        assert recorder.spans("process chart-export") == []
        (line,) = log_lines()
        assert line["logging.googleapis.com/trace"] == f"projects/demo-project/traces/{TRACE_ID}"
        assert line["logging.googleapis.com/trace_sampled"] is False

    def test_nothing_is_left_bound_after_a_stage(self, recorder, log_lines):
        """However it ended."""
        with pytest.raises(KeyError), stage(Stage.READ, runId="r"):
            raise KeyError("gone")
        log.info(Event.MESSAGE_RECEIVED, "after")
        assert recorder.one("read").attributes["error.type"] == "KeyError"
        assert not [name for name in log_lines()[-1] if name.startswith("logging.")]


class TestHowATraceTravels:
    """In a message's attributes."""

    @pytest.mark.parametrize("prefix", ["googclient_", "", "ce-"])
    def test_each_name_of_it_is_known(self, prefix):
        """Google's own, the plain one, and the one of a CloudEvent."""
        attributes = {f"{prefix}traceparent": TRACEPARENT, f"{prefix}tracestate": "vendor=1"}
        found = span_context_in(context_of(attributes))
        assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE_ID, SPAN_ID)
        assert found.trace_state.get("vendor") == "1"
        assert found.is_remote

    def test_it_is_read_as_google_s_own_publisher_writes_it(self, recorder):
        """By its own class."""
        message = PubsubMessage()
        with stage(Stage.STEP, runId="r"):
            TraceContextTextMapPropagator().inject(carrier=message, setter=OpenTelemetryContextSetter())
        found = span_context_in(context_of(dict(message.attributes)))
        assert found.span_id == recorder.one("step").context.span_id

    def test_the_nearest_publisher_wins(self):
        """An event keeps the trace in which it arose; one that can't be read is passed over."""
        other = f"00-{'1' * 32}-{'2' * 16}-01"
        assert span_context_in(
            context_of({"ce-traceparent": other, "traceparent": TRACEPARENT})
        ).trace_id == int(TRACE_ID, 16)
        broken = {"googclient_traceparent": "00-nonsense", "ce-traceparent": other}
        assert span_context_in(context_of(broken)).trace_id == int("1" * 32, 16)

    @pytest.mark.parametrize(
        "value", ["", "x", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", TRACEPARENT + "-more", "\x00"]
    )
    def test_nonsense_is_no_trace(self, recorder, value):
        """A message can't break anything: its delivery begins a trace."""
        with stage(Stage.DELIVERY, messageId="m", carrier={"traceparent": value}):
            pass
        assert recorder.one("process chart-export").parent is None

    def test_without_tracing_the_lines_of_a_delivery_name_the_publisher_s(self, log_lines):
        """Of the delivery alone."""
        with watched_by(PublishersTrace(project="demo-project")):
            with stage(Stage.DELIVERY, carrier={"traceparent": TRACEPARENT}), stage(Stage.STEP):
                log.info(Event.MESSAGE_RECEIVED, "in")
            with stage(Stage.DELIVERY, carrier={}):
                log.info(Event.MESSAGE_RECEIVED, "without")
        inside, without = log_lines()
        assert inside["logging.googleapis.com/spanId"] == SPAN_ID
        assert not [name for name in without if name.startswith("logging.")]


class TestPublishing:
    """A command's own spans."""

    def test_off_a_message_gets_nothing(self):
        """And nothing is loaded for it."""
        with PublisherSpans(TOPIC) as spans, spans.message({"runId": "r"}) as attributes:
            assert attributes == {}

    def test_a_publish_that_fails_is_an_error(self, told, log_lines):  # noqa: ARG002 - restores the logs
        """And is sent all the same."""
        with collecting() as collector:
            told(**collector.settings())
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
    """On the way out."""

    def test_the_environment_s_names_win(self, told):
        """Of the service and of all else that is said of who sends."""
        told(
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
        """One JSON object, as everything else."""
        export = Export(TracesExporter.CONSOLE, project="demo-project", owner=None)
        with export.tracer.start_as_current_span("a span"):
            pass
        export.finish(within_seconds=5)
        (line,) = log_lines()
        assert (line["event"], line["message"], line["span"]["name"]) == ("library", "Span: a span", "a span")

    def test_an_end_waits_no_longer_than_it_may(self, told, log_lines):
        """For a collector that hangs."""
        with collecting() as collector:
            collector.hangs.set()
            told(**collector.settings(), OTEL_EXPORTER_OTLP_TIMEOUT="1")
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

    def test_a_collector_that_is_away_is_one_line_a_minute(self, told, log_lines):
        """Of each kind; the rest is left out."""
        with collecting() as gone:
            told(**gone.settings(), OTEL_EXPORTER_OTLP_TIMEOUT="0.2")
        for _ in range(3):
            export = Export(TracesExporter.OTLP, project="demo-project", owner=None)
            export.tracer.start_span("a span").end()
            export.finish(within_seconds=5)
        lines = log_lines()
        assert [line["event"] for line in lines] == ["library"]
        assert "Failed to export span" in lines[0]["message"]

    def test_a_complaint_comes_again_after_a_minute(self):
        """So that nobody forgets it."""
        calm = Calm()
        record = logging.makeLogRecord({"msg": "away: %s"})
        with mock.patch("daemon.tracing.export.time.monotonic", side_effect=[0.0, 59.0, 61.0, 62.0]):
            assert [calm.filter(record) for _ in range(4)] == [True, False, True, False]

    @pytest.mark.parametrize(
        "variables",
        [
            {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"},
            {"OTEL_BSP_MAX_QUEUE_SIZE": "5"},  # below the size of a batch
            {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": "unknown"},
        ],
    )
    def test_what_the_sdk_can_t_work_with_is_a_setting(self, told, variables):
        """Whatever it is."""
        told(**variables)
        with pytest.raises(
            SettingsError, match=r"^OTEL_\*: expected variables that OpenTelemetry's SDK can work"
        ):
            Export(TracesExporter.OTLP, project="demo-project", owner=None)


@pytest.fixture(autouse=True)
def _same_loggers_after():
    """The exporter's logger forgets what it has said."""
    yield
    complaints = logging.getLogger(f"{OTLP_MODULE}.trace_exporter")
    complaints.filters[:] = []
