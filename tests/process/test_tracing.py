"""Traces of a real daemon process, sent to a collector of the test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from daemon.cli.demo.resources import sample_templates
from localcloud.faults import Fault
from tests.support.cloud.otlp_collector import collecting
from tests.support.cloud.resources import SECRET_KEY, deployment_on
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment
from worker_chart_export.observability.metrics import VERSION

if TYPE_CHECKING:
    from tests.support.cloud.otlp_collector import SeenSpan

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
GOOD, OTHER = (template["id"] for template in sample_templates()[:2])


@pytest.fixture
def collector():
    """Run a collector during the test."""
    with collecting() as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The spans of one step: published by the command, worked by a daemon, three charts, one bad."""

    spans: list[SeenSpan]
    lines: list[dict[str, Any]]
    other_output: list[str]
    project: str
    bucket: str
    run_id: str
    step_id: str
    message_id: str
    sending: str
    working: str

    def named(self, name: str) -> list[SeenSpan]:
        """Return the spans of that name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> SeenSpan:
        """Return the only span of that name."""
        (span,) = self.named(name)
        return span

    def charts(self) -> dict[str, SeenSpan]:
        """Return the charts' spans by template."""
        return {span.attributes["chart_export.chart_template_id"]: span for span in self.named("chart")}


@pytest.fixture(scope="module")
def traced(embedded):
    """Run one traced step."""
    inputs = {"minImages": 2, "requests": [{"chartTemplateId": name} for name in (GOOD, OTHER, "none")]}
    slow = embedded.chart_img.faults.add(Fault(delay_seconds=0.3))  # so that charts overlap
    with deployment_on(embedded.environment(), embedded) as deployment, collecting() as collector:
        run_id, (step_id,) = deployment.put_run(inputs=inputs)
        with deployment.daemon(**collector.settings()).started() as daemon:
            environment = deployment.settings(**collector.settings())
            published = run_command("publish", run_id, step_id, environment=environment)
            assert published.returncode == 0, published.stderr
            daemon.wait_for_event("message_settled")
            assert daemon.terminate() == 0
        yield Traced(
            spans=collector.spans(),
            lines=daemon.events,
            other_output=daemon.other_output,
            project=deployment.project,
            bucket=deployment.bucket,
            run_id=run_id,
            step_id=step_id,
            message_id=published.stdout.split()[2],
            sending=f"publish {deployment.topic.split('/')[-1]}",
            working=f"process {deployment.subscription.split('/')[-1]}",
        )
    embedded.chart_img.faults.remove(slow)


class TestOneTraceOfOneStep:
    """The trace from the span of `publish` to the last write."""

    def test_its_spans_are_a_tree(self, traced):
        """The spans are a tree under the publisher's span, each stage under its outer one."""
        names = {span.span_id: span.name for span in traced.spans}
        children = defaultdict(list)
        for span in traced.spans:
            children[names.get(span.parent_id, span.parent_id)].append(span.name)
        assert children[""] == [traced.sending]
        assert children[traced.sending] == [traced.working]
        assert children[traced.working] == ["read", "step"]
        assert children["step"] == ["claim", "chart", "chart", "chart", "manifest", "finalize"]
        assert sorted(children["chart"]) == ["call", "call", "upload", "upload"]
        assert len({span.trace_id for span in traced.spans}) == 1

    def test_each_is_of_its_kind(self, traced):
        """A call of another service is a client span; a commit shared by many steps is not."""
        inner = dict.fromkeys(("read", "step", "claim", "chart", "manifest", "finalize"), "INTERNAL")
        outer = {traced.sending: "PRODUCER", traced.working: "CONSUMER", "call": "CLIENT", "upload": "CLIENT"}
        assert {span.name: span.kind for span in traced.spans} == inner | outer

    def test_the_delivery_follows_the_messaging_conventions(self, traced):
        """The delivery has the attributes of the messaging conventions and the worker."""
        delivery = traced.one(traced.working)
        subscription = traced.working.removeprefix("process ")
        assert delivery.attributes == {
            "messaging.system": "gcp_pubsub",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": subscription,
            "messaging.destination.subscription.name": subscription,
            "messaging.message.id": traced.message_id,
            "gcp.project_id": traced.project,
            "chart_export.disposition": "ack",
            "chart_export.run_id": traced.run_id,
            "chart_export.step_id": traced.step_id,
            "chart_export.reason": "succeeded",
        }
        (owner,) = {line["owner"] for line in traced.lines if "owner" in line}
        assert delivery.resource == delivery.resource | {
            "service.name": "worker-chart-export",
            "service.version": VERSION,
            "service.instance.id": owner,
            "gcp.project_id": traced.project,
        }

    def test_the_step_and_the_message_name_the_run(self, traced):
        """Step and message have the run id, and the step has its outcome."""
        named = {"chart_export.run_id": traced.run_id, "chart_export.step_id": traced.step_id}
        assert traced.one(traced.sending).attributes == {
            "messaging.system": "gcp_pubsub",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": traced.sending.removeprefix("publish "),
            "messaging.message.id": traced.message_id,
            "gcp.project_id": traced.project,
            **named,
        }
        assert traced.one("step").attributes == {
            **named,
            "messaging.message.id": traced.message_id,
            "chart_export.symbol": "IBM",
            "chart_export.attempt": 1,
            "chart_export.taken_over": False,
            "chart_export.result": "succeeded",
            "chart_export.items": 2,
            "chart_export.failures": 1,
        }

    def test_charts_are_made_in_parallel(self, traced):
        """The charts' spans overlap."""
        one, other = traced.charts()[GOOD], traced.charts()[OTHER]
        assert one.begin < other.end
        assert other.begin < one.end
        assert one.attributes["chart_export.chart_uri"].startswith(f"gs://{traced.bucket}/charts/")
        assert {
            (
                call.attributes["server.address"],
                call.attributes["chart_export.symbol"],
                call.attributes["chart_export.timeframe"],
            )
            for call in traced.named("call")
        } == {("127.0.0.1", "IBM", "1d")}

    def test_the_chart_that_failed_is_an_error_and_nothing_else(self, traced):
        """Only the failed chart is an error, with its code and the worker's message."""
        failed = traced.charts()["none"]
        assert [span for span in traced.spans if span.is_error] == [failed]
        assert "none" in failed.error_message
        assert failed.attributes["error.type"] == "VALIDATION_FAILED"
        assert failed.exceptions == [
            {
                "exception.type": "worker_chart_export.errors.ValidationFailed",
                "exception.message": failed.error_message,
            }
        ]

    def test_the_lines_of_the_step_name_their_span(self, traced):
        """All log lines of the step have the trace, and each has its span."""
        lines = [line for line in traced.lines if line.get("messageId")]
        trace_id = traced.one("step").trace_id
        assert {line["logging.googleapis.com/trace"] for line in lines} == {
            f"projects/{traced.project}/traces/{trace_id}"
        }
        assert {line["logging.googleapis.com/trace_sampled"] for line in lines} == {True}
        names = {span.span_id: span.name for span in traced.spans}
        found = {(line["event"], names[line["logging.googleapis.com/spanId"]]) for line in lines}
        assert found >= {
            ("message_received", traced.working),
            ("claim_attempt", "claim"),
            ("chart_api_call_finished", "call"),
            ("chart_stored", "chart"),
            ("manifest_written", "step"),
            ("step_completed", "step"),
            ("message_settled", traced.working),
        }
        assert traced.other_output == []

    def test_no_key_is_in_it(self, traced):
        """No span contains a key."""
        assert traced.spans
        assert SECRET_KEY not in repr(traced.spans)


def test_a_released_step_continues_in_its_publisher_s_trace(deployment, collector):
    """A released step continues in its publisher's trace, and the drain sends the first spans."""
    slow = deployment.cloud.chart_img.faults.add(Fault(delay_seconds=60))
    run_id, (step_id,) = deployment.put_run(charts=1)
    seldom = {**collector.settings(), "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    with deployment.daemon(DRAIN_SECONDS="1", **seldom).started() as first:
        body = json.dumps({"runId": run_id, "stepId": step_id}).encode()
        deployment.publish(body, googclient_traceparent=TRACEPARENT)
        first.wait_for_event("claim_attempt")
        assert first.terminate() == 0
    (released,) = collector.spans("step")
    assert (released.is_error, released.attributes["error.type"]) == (True, "Interrupted")
    (release,) = collector.spans("release")
    assert (release.parent_id, release.is_error) == (released.span_id, False)

    deployment.cloud.chart_img.faults.remove(slow)
    with deployment.daemon(**collector.settings()).started() as second:
        second.wait_for_event("step_completed")
        assert second.terminate() == 0
    deliveries = collector.spans(f"process {deployment.subscription.split('/')[-1]}")
    assert len(deliveries) >= 2
    assert {span.parent_id for span in deliveries} == {PARENT_ID}
    assert (deliveries[0].attributes["chart_export.disposition"], deliveries[0].is_error) == ("nack", False)
    assert deliveries[0].attributes["chart_export.reason"] == "shutdown"
    assert {span.trace_id for span in collector.spans()} == {TRACE_ID}
    assert [span.attributes["chart_export.attempt"] for span in collector.spans("finalize")] == [2]
    assert [span.attributes["chart_export.taken_over"] for span in collector.spans("step")] == [False, True]
    assert [span.resource["service.instance.id"] for span in collector.spans("step")] == [
        first.named("claim_attempt")[0]["owner"],
        second.named("step_completed")[0]["owner"],
    ]


def test_a_collector_that_hangs_holds_neither_a_step_nor_the_exit(deployment, collector):
    """A hanging collector delays no step; the drain waits two seconds and logs the unsent spans."""
    collector.hangs.set()
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon(DRAIN_SECONDS="20", **collector.settings()).started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("message_settled", timeout_seconds=5)
        assert collector.asked.wait(5)
        started = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - started < 5
    assert "The last spans could not be sent within 2.0 s" in [
        line["message"] for line in daemon.named("library")
    ]
    assert daemon.other_output == []


def test_without_tracing_lines_still_name_the_publisher_s_trace(deployment):
    """Without tracing, log lines still name the publisher's trace, and other messages' lines none."""
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    with deployment.daemon().started() as daemon:
        for step_id, attributes in zip(step_ids, ({"traceparent": TRACEPARENT}, {}), strict=True):
            body = json.dumps({"runId": run_id, "stepId": step_id}).encode()
            deployment.publish(body, **attributes)
        daemon.wait_for_event("message_settled", count=2)
        assert daemon.terminate() == 0
    lines = [line for line in daemon.events if line.get("stepId") == step_ids[0]]
    assert {line["logging.googleapis.com/trace"] for line in lines} == {
        f"projects/{deployment.project}/traces/{TRACE_ID}"
    }
    assert {line["logging.googleapis.com/spanId"] for line in lines} == {PARENT_ID}
    others = [line for line in daemon.events if line.get("stepId") == step_ids[1]]
    assert others
    assert not [name for line in others for name in line if name.startswith("logging.")]


def test_without_tracing_nothing_is_loaded_or_started(deployment):
    """Without tracing the daemon loads no SDK and no exporter and starts no thread."""
    script = (
        "import sys, threading\n"
        "from daemon.main import Daemon\n"
        "from daemon.settings import Settings, load_settings\n"
        "from daemon.tracing.setup import Tracing\n"
        "tracing = Tracing(load_settings(Settings))\n"
        "with tracing.watching('owner'):\n"
        "    tracing.finish(within_seconds=1)\n"
        "    print(threading.active_count())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(deployment.settings()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["1", "[]", "[]"]
