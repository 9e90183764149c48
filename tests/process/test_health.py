"""The health and metrics of a daemon process while it works and during a Firestore outage."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from pathlib import Path

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from localcloud.faults import Fault
from tests.support.cloud.resources import SECRET_KEY, asked
from tests.support.process.probing_daemon import PROBING

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
PARTS = {"stream": "ok", "drain": "ok", "intake": "ok"}
LOOPS = dict.fromkeys(("main", "heart-beats", "intake", "rescue", "fleet", "steps", "acks"), "ok")


def scraped(daemon):
    """Return each sample of the daemon's metrics by text such as `claims_total{won}`."""
    families = plain_metrics(asked(daemon, "metrics").text)
    return {
        f"{sample.name.removeprefix('chart_export_')}{{{','.join(sample.labels.values())}}}": sample.value
        for family in families
        for sample in family.samples
    }


def test_an_unavailable_firestore_makes_the_daemon_unready_but_not_dead(deployment):
    """During a Firestore outage /readyz is 503 with its name; /livez and /metrics stay available."""
    steps = [deployment.put_run(charts=1) for _ in range(6)]
    with deployment.daemon(module=PROBING).started() as daemon:
        assert asked(daemon, "readyz").json() == {"status": "ok", "parts": PARTS}
        outage = deployment.cloud.firestore.faults.add(Fault(error="DEADLINE_EXCEEDED"))
        for run_id, (step_id,) in steps[:5]:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("intake_paused")

        reason = "firestore is unavailable: DeadlineExceeded: injected fault"
        ready, alive, shown = asked(daemon, "readyz"), asked(daemon, "livez"), scraped(daemon)
        assert (ready.status_code, ready.json()) == (
            503,
            {
                "status": "not ready",
                "reason": f"intake is paused: {reason}",
                "parts": {**PARTS, "intake": f"paused: {reason}"},
            },
        )
        assert (alive.status_code, alive.json()) == (200, {"status": "ok", "parts": LOOPS})
        assert (shown["ready{}"], shown["stream_open{}"], shown["intake_paused{firestore}"]) == (0, 1, 1)
        assert shown["backend_calls_total{firestore,unavailable}"] >= 5

        deployment.cloud.firestore.faults.remove(outage)
        daemon.wait_for_event("intake_resumed", timeout_seconds=40)
        ready, shown = asked(daemon, "readyz"), scraped(daemon)
        assert (ready.status_code, ready.json()) == (200, {"status": "ok", "parts": PARTS})
        assert (shown["ready{}"], shown["intake_paused{firestore}"]) == (1, 0)
        run_id, (step_id,) = steps[5]
        deployment.publish_step(run_id, step_id)
        daemon.wait_until(lambda: run_id in _completed(daemon), "the step", 30)
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def _completed(daemon):
    return [line["runId"] for line in daemon.named("step_completed")]


def parts(daemon):
    """Return the daemon's report of its parts."""
    return asked(daemon, "readyz").json()["parts"]


def _counted(shown):
    """Return the counters that do not depend on the machine's speed."""
    paced = ("commits", "races_lost", "backend_calls", "rescue_looks", "process_")
    return {
        name: value
        for name, value in shown.items()
        if value and name.partition("{")[0].endswith(("_total", "_count")) and not name.startswith(paced)
    }


def test_work_is_counted_once_without_ids(deployment):
    """Steps, charts, a duplicate and a bad message are each counted once, without ids in labels."""
    run_id, step_ids = deployment.put_run(steps=3, charts=2)
    bad_run, (bad_step,) = deployment.put_run(inputs={"requests": []})
    began = time.time()
    with deployment.daemon().started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        deployment.publish_step(bad_run, bad_step)
        deployment.publish(b"not json")
        daemon.wait_for_event("message_settled", count=5)
        deployment.publish_step(run_id, step_ids[0])
        lines = daemon.wait_for_event("message_settled", count=6)
        shown, response = scraped(daemon), asked(daemon, "metrics", Accept=OPEN_METRICS)
        assert daemon.terminate() == 0

    assert _counted(shown) == {
        "streams_opened_total{start}": 1,
        "messages_received_total{}": 6,
        "messages_settled_total{ack,succeeded}": 3,
        "messages_settled_total{ack,failed}": 1,
        "messages_settled_total{ack,final}": 1,
        "messages_settled_total{ack,rejected}": 1,
        "messages_rejected_total{body_not_json}": 1,
        "claims_total{won}": 4,
        "finalizes_total{written}": 4,
        "steps_finished_total{none,succeeded}": 3,
        "steps_finished_total{VALIDATION_FAILED,failed}": 1,
        "step_duration_seconds_count{succeeded}": 3,
        "step_duration_seconds_count{failed}": 1,
        "charts_total{chart-img,made}": 6,
        "chart_duration_seconds_count{chart-img}": 6,
        "chart_img_calls_total{first,ok}": 6,
    }
    assert shown["commits_total{landed}"] >= 4
    assert shown["backend_calls_total{firestore,answered}"] >= 8
    assert shown["backend_calls_total{storage,answered}"] >= 9  # six pictures and three manifests
    assert shown["backend_calls_total{pubsub,answered}"] >= 1  # the call for the subscription's settings
    assert (shown["chart_img_quota_used{first}"], shown["chart_img_quota_limit{first}"]) == (6, 10**6)
    assert (shown["steps_running{}"], shown["steps_capacity{}"], shown["leases_held{}"]) == (0, 8, 0)
    assert (shown["ready{}"], shown["stream_open{}"], shown["drain_seconds{}"]) == (1, 1, 0)
    assert began <= shown["last_success_timestamp_seconds{}"] <= time.time()
    assert shown["process_resident_memory_bytes{}"] > 0

    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    families = list(open_metrics(response.text))
    assert all(family.name.startswith(("chart_export_", "process_", "python_")) for family in families)
    labels = json.dumps([sample.labels for family in families for sample in family.samples])
    for secret in (run_id, bad_run, *step_ids, SECRET_KEY, *(line["messageId"] for line in lines)):
        assert f'"{secret}"' not in labels
        assert len(secret) < 6 or secret not in response.text


def test_a_draining_daemon_reports_what_it_waits_for(deployment):
    """A draining daemon reports the running step; HEAD is answered like GET."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=2.5))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("claim_attempt")
        daemon.signal(signal.SIGTERM)
        daemon.wait_until(lambda: parts(daemon)["stream"] == "closed", "the end of the stream", 10)
        answer, alive, shown = asked(daemon, "readyz"), asked(daemon, "livez"), scraped(daemon)
        head = httpx.head(answer.request.url)
        assert daemon.wait() == 0
    assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
    assert answer.json()["parts"] == {**PARTS, "drain": "draining", "stream": "closed"}
    assert alive.status_code == 200
    assert (head.status_code, head.content, head.headers["Cache-Control"]) == (503, b"", "no-store")
    assert (shown["steps_running{}"], shown["leases_held{}"], shown["stream_open{}"]) == (1, 1, 0)
    ages = [
        shown["drain_seconds{}"],
        shown["oldest_step_age_seconds{}"],
    ]  # the values are read one after the other
    assert all(0 < age < shown["drain_limit_seconds{}"] for age in ages)
    assert 0 < shown["lease_renewal_age_seconds{}"] < 10


def _processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_file_descriptors_the_health_server_waits(deployment):
    """Out of file descriptors the server does not try again and again, and answers once there are some."""
    with deployment.daemon().started() as daemon:
        pid = daemon.process.pid
        port = daemon.named("daemon_started")[0]["healthPort"]
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))  # no new ones, the others stay
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            used = _processor_seconds(pid)
            time.sleep(3)  # the time that is measured
            assert _processor_seconds(pid) - used < 1.0
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            client.settimeout(10)
            assert client.recv(100).startswith(b"HTTP/1.0 200")
        assert daemon.terminate() == 0
