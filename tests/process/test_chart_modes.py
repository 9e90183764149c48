"""The chart modes of real processes."""

from __future__ import annotations

import json

import pytest

from localcloud.faults import Fault
from tests.support.charts.local_chart_samples import raw_candles
from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.commands import run_command
from tests.support.process.daemons import DaemonUnderTest


@pytest.mark.parametrize("name", ["ENV", "TDA_ENV"])
def test_record_is_refused_in_production(deployment, tmp_path, name):
    """`record` in production ends with exit code 2 and the variable's name before anything is opened."""
    settings = deployment.settings(
        CHARTS_API_MODE="record", CHARTS_FIXTURES_DIR=str(tmp_path), LOG_FORMAT="json", **{name: "prod"}
    )
    with DaemonUnderTest(settings) as daemon:
        assert daemon.wait() == 2
    assert "CHARTS_API_MODE" in json.dumps(daemon.events)
    assert SECRET_KEY not in json.dumps([daemon.events, daemon.other_output])
    assert run_command("daemon", "--check", environment=settings).returncode == 2


def test_mock_answers_with_what_record_has_stored(deployment, tmp_path):
    """A daemon in `mock` mode works from the files that one in `record` mode has stored."""
    folder = {"CHARTS_FIXTURES_DIR": str(tmp_path)}
    for mode in ("record", "mock"):
        run_id, (step_id,) = deployment.put_run(charts=2)
        with deployment.daemon(CHARTS_API_MODE=mode, **folder).started() as daemon:
            deployment.publish_step(run_id, step_id)
            (line,) = daemon.wait_for_event("step_completed")
            assert (line["status"], line["items"]) == ("SUCCEEDED", 2)
            assert daemon.terminate() == 0
    assert deployment.cloud.chart_img.calls["advanced-chart"] == 2
    assert [item["meta"]["provider"] for item in deployment.manifest(run_id, step_id)["items"]] == [
        "mock"
    ] * 2
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_the_fallback_is_marked_in_the_manifest_and_in_the_logs(deployment):
    """When every account is used up, charts are drawn and marked in manifest and logs."""
    deployment.cloud.chart_img.faults.add(Fault(answer="limit_exceeded"))
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw_candles())
    run_id, (step_id,) = deployment.put_run(charts=2)
    with deployment.daemon(CHARTS_FALLBACK="local").started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert line["status"] == "SUCCEEDED"
    assert len(daemon.named("chart_fallback")) == 2
    for item in deployment.manifest(run_id, step_id)["items"]:
        assert (item["meta"]["provider"], item["meta"]["fallbackFrom"]) == ("local", "chart-img")
    assert deployment.cloud.chart_img.calls["advanced-chart"] == 1


def test_a_reused_chart_of_the_fallback_keeps_its_mark(deployment):
    """A daemon dies before the manifest; the one that takes the step over marks the stored charts too."""
    deployment.cloud.chart_img.faults.add(Fault(answer="limit_exceeded"))
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw_candles())
    run_id, (step_id,) = deployment.put_run(charts=2)
    settings = {"CHARTS_FALLBACK": "local", "LEASE_SECONDS": "3", "CLOCK_SKEW_SECONDS": "1"}
    storage = deployment.cloud.storage
    hang = storage.faults.add(Fault(method="objects.insert", match="manifest.json", delay_seconds=600))
    with deployment.daemon(**settings).started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("chart_stored", count=2)
        daemon.wait_until(lambda: storage.faults.fired(hang) == 1, "the manifest", 20)
        daemon.kill()
    storage.faults.remove(hang)
    with deployment.daemon(**settings, RESCUE_INTERVAL_SECONDS="1").started() as daemon:
        daemon.wait_for_event("step_completed")
        assert len(daemon.named("chart_reused")) == 2
        assert daemon.terminate() == 0
    for item in deployment.manifest(run_id, step_id)["items"]:
        assert (item["meta"]["provider"], item["meta"]["fallbackFrom"]) == ("local", "chart-img")


def test_a_422_is_called_once_and_the_step_s_error_names_the_parameter(deployment):
    """A 422 is requested once, and the step's error names the parameter."""
    deployment.cloud.chart_img.faults.add(Fault(answer="invalid_fields"))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert deployment.cloud.chart_img.calls["advanced-chart"] == 1
    step = deployment.step(run_id, step_id)
    assert (step["status"], step["error"]["code"]) == ("FAILED", "CHART_API_FAILED")
    assert "interval: Invalid value" in step["error"]["message"]
    assert step["error"]["details"]["params"] == ["interval"]
