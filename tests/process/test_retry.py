"""The command `retry`: FAILED steps are done again, and stored charts are not paid for twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from localcloud.faults import Fault
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment
from worker_chart_export.ledger.lease import LEASES

ERROR = {"code": "CHART_API_FAILED", "message": "Chart-IMG answered 500."}
FINISHED = "2025-12-15T10:26:15Z"
ONE_BY_ONE = {"WORKER_CONCURRENCY": "1", "REQUEST_CONCURRENCY": "1", "RESCUE_INTERVAL_SECONDS": "600"}
CHARTS = 3


def _retry(deployment, *arguments, **changed):
    return run_command("retry", *arguments, environment=deployment.settings(**changed))


def _put_failed(deployment, *, steps=1, **fields):
    failed = {"status": "FAILED", "finishedAt": FINISHED, "error": ERROR} | fields
    return deployment.put_run(steps=steps, charts=CHARTS, **failed)


def _fail(deployment, daemon, run_id, step_id, *, count):
    """Let the daemon fail the step at its last chart; the others are stored. `count`: its steps so far."""
    deployment.cloud.chart_img.faults.add(Fault(answer="invalid_symbol", skip=CHARTS - 1, times=1))
    deployment.publish_step(run_id, step_id)
    line = daemon.wait_for_event("step_completed", count=count)[-1]
    assert (line["status"], line["items"]) == ("FAILED", CHARTS - 1)


def _paid(deployment):
    return sum(deployment.cloud.chart_img.charts_per_key.as_dict().values())


def _lease(deployment, run_id, step_id):
    return deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").get().to_dict()


def test_a_failed_step_is_done_again(deployment):
    """It becomes READY without its error, its message is sent, and the log says who retried it."""
    run_id, (step_id,) = _put_failed(deployment)
    done = _retry(deployment, run_id, step_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"retried  {run_id}  {step_id}  message ")
    assert "operator_action" in done.stderr
    step = deployment.step(run_id, step_id)
    assert step["status"] == "READY"
    assert {"error", "finishedAt"}.isdisjoint(step)
    lease = _lease(deployment, run_id, step_id)
    assert (lease["attempt"], lease["token"]) == (0, "")
    with deployment.daemon(**ONE_BY_ONE).started() as daemon:
        (line,) = daemon.wait_for_event("step_completed")
        assert (line["status"], line["attempt"]) == ("SUCCEEDED", 1)
        (claim,) = daemon.named("claim_attempt")
        assert claim["retriedBy"] == lease["retriedBy"]
    assert _paid(deployment) == CHARTS
    assert _lease(deployment, run_id, step_id) is None


def test_kept_charts_are_not_paid_for_again(deployment):
    """One chart of three failed. The retry makes one call, and the manifest has all three."""
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    with deployment.daemon(**ONE_BY_ONE).started() as daemon:
        _fail(deployment, daemon, run_id, step_id, count=1)
        first = {item["png_gcs_uri"] for item in deployment.manifest(run_id, step_id)["items"]}
        assert _paid(deployment) == CHARTS - 1
        assert _retry(deployment, run_id, "--keep-charts").returncode == 0
        line = daemon.wait_for_event("step_completed", count=2)[-1]
        assert line["status"] == "SUCCEEDED"
        assert len(daemon.named("chart_reused")) == CHARTS - 1
    assert _paid(deployment) == CHARTS
    manifest = deployment.manifest(run_id, step_id)
    assert first < {item["png_gcs_uri"] for item in manifest["items"]}
    assert len({item["generatedAt"] for item in manifest["items"]}) == 1
    assert "error" not in deployment.step(run_id, step_id)


def test_without_keep_charts_all_are_made_anew(deployment):
    """Each chart costs a call again."""
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    with deployment.daemon(**ONE_BY_ONE).started() as daemon:
        _fail(deployment, daemon, run_id, step_id, count=1)
        assert _retry(deployment, run_id).returncode == 0
        daemon.wait_for_event("step_completed", count=2)
        assert daemon.named("chart_reused") == []
    assert _paid(deployment) == 2 * CHARTS - 1


def test_charts_of_a_failure_without_a_manifest_are_kept_too(deployment):
    """The names of the charts say when the failed attempts began."""
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    with deployment.daemon(**ONE_BY_ONE).started() as daemon:
        _fail(deployment, daemon, run_id, step_id, count=1)
        bucket = deployment.objects.bucket(deployment.bucket)
        bucket.blob(f"charts/{run_id}/{step_id}/manifest.json").delete()
        path = deployment.documents.field_path("steps", step_id, "error")
        crash = {"code": "CRASH_LOOP", "message": "5 attempts left no result."}
        deployment.documents.document(f"flow_runs/{run_id}").update({path: crash})
        assert _retry(deployment, run_id, step_id, "--keep-charts").returncode == 0
        daemon.wait_for_event("step_completed", count=2)
    assert _paid(deployment) == CHARTS


def test_a_take_over_of_a_retried_step_keeps_the_charts_too(deployment):
    """The daemon that claims the retried step is killed; the next one makes one call in all."""
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    short = {**ONE_BY_ONE, "LEASE_SECONDS": "3", "CLOCK_SKEW_SECONDS": "1", "RESCUE_INTERVAL_SECONDS": "1"}
    with deployment.daemon(**short).started() as daemon:
        _fail(deployment, daemon, run_id, step_id, count=1)
        calls = deployment.cloud.chart_img.calls["advanced-chart"]
        deployment.cloud.chart_img.faults.add(Fault(delay_seconds=600, times=1))
        assert _retry(deployment, run_id, "--keep-charts").returncode == 0
        assert deployment.cloud.chart_img.calls.wait_for("advanced-chart", calls + 1, timeout_seconds=30)
        daemon.kill()
    with deployment.daemon(**short).started() as other:
        (line,) = other.wait_for_event("step_completed")
        assert (line["status"], line["attempt"]) == ("SUCCEEDED", 2)
        assert len(other.named("chart_reused")) == CHARTS - 1


def test_many_failed_steps_are_retried_with_one_command(deployment):
    """Steps of several runs, their charts kept: each missing chart costs one call, and no other is made."""
    runs = [deployment.put_run(charts=CHARTS, steps=3) for _ in range(2)]
    steps = [(run_id, step_id) for run_id, step_ids in runs for step_id in step_ids]
    with deployment.daemon(**ONE_BY_ONE).started() as daemon:
        for number, (run_id, step_id) in enumerate(steps):
            _fail(deployment, daemon, run_id, step_id, count=number + 1)
        other, _ = _put_failed(deployment, error={"code": "STEP_TIMEOUT", "message": "late"})
        shown = ["--failed", "--code", "CHART_API_FAILED", "--since", "2h", "--keep-charts"]
        refused = _retry(deployment, *shown)
        assert refused.returncode == 2
        assert "6 steps would be READY again: 6 CHART_API_FAILED" in refused.stderr
        assert "--yes" in refused.stderr
        assert {deployment.step(*step)["status"] for step in steps} == {"FAILED"}
        done = _retry(deployment, *shown, "--yes", "--output", "json")
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert {(row["runId"], row["stepId"]) for row in rows if row["retried"]} == set(steps)
        assert all(row["messageId"] for row in rows)
        daemon.wait_for_event("step_completed", count=12)
    assert {deployment.step(*step)["status"] for step in steps} == {"SUCCEEDED"}
    assert _paid(deployment) == CHARTS * len(steps)
    assert deployment.run(other)["steps"]["charts:1d:step000"]["status"] == "FAILED"
    nothing = _retry(deployment, *shown, "--yes", "--output", "json")
    assert (nothing.returncode, json.loads(nothing.stdout)) == (0, [])


def test_a_final_run_is_refused_unless_it_is_reopened(deployment):
    """The sentence says what to do. --reopen-run makes the run RUNNING in the same commit."""
    run_id, (step_id,) = _put_failed(deployment)
    run = deployment.documents.document(f"flow_runs/{run_id}")
    run.update({"status": "FAILED", "finishedAt": FINISHED, "error": ERROR})
    before = deployment.run(run_id)
    refused = _retry(deployment, run_id, step_id)
    assert refused.returncode == 1
    assert "the run has ended. Start a new run, or give --reopen-run" in refused.stdout
    many = _retry(deployment, "--failed", "--yes")
    assert many.returncode == 0
    assert "1 FAILED step left out" in many.stderr
    assert deployment.run(run_id) == before
    assert _retry(deployment, "--failed", "--yes", "--reopen-run").returncode == 0
    after = deployment.run(run_id)
    assert (after["status"], after["steps"][step_id]["status"]) == ("RUNNING", "READY")
    assert {"error", "finishedAt"}.isdisjoint(after)


@pytest.mark.parametrize("status", ["READY", "RUNNING", "SUCCEEDED", "PENDING", "SKIPPED"])
def test_only_failed_steps_are_changed(deployment, status):
    """Any other one is refused with exit code 1, the FAILED one beside it is retried."""
    run_id, steps = _put_failed(deployment, steps=2)
    path = deployment.documents.field_path("steps", steps[0], "status")
    deployment.documents.document(f"flow_runs/{run_id}").update({path: status})
    before = deployment.step(run_id, steps[0])
    done = _retry(deployment, run_id, *steps, "--output", "json")
    assert done.returncode == 1
    assert [row["retried"] for row in json.loads(done.stdout)] == [False, True]
    assert deployment.step(run_id, steps[0]) == before


def test_of_two_operators_one_retries_the_step(deployment):
    """At the same time: one commit wins, the other one finds a step that is not FAILED."""
    run_id, (step_id,) = _put_failed(deployment)
    sent = deployment.cloud.pubsub.calls.as_dict().get("Publish", 0)
    with ThreadPoolExecutor(2) as threads:
        codes = sorted(threads.map(lambda _: _retry(deployment, run_id, step_id).returncode, range(2)))
    assert codes == [0, 1]
    assert deployment.cloud.pubsub.calls.as_dict()["Publish"] == sent + 1


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, "--failed"),
        (["r1", "--failed"], 2, "--failed"),
        (["r1", "--since", "2h"], 2, "only with --failed"),
        (["a/b"], 2, "runId"),
        (["no-such-run"], 1, "no such run"),
        (["--failed", "--keep-charts"], 2, "CHARTS_BUCKET"),
    ],
)
def test_wrong_arguments(deployment, arguments, code, named):
    """The exit code and a sentence."""
    done = _retry(deployment, *arguments, CHARTS_BUCKET=None)
    assert (done.returncode, named in done.stderr) == (code, True), done.stderr


def test_nothing_changes_when_the_messages_can_t_be_sent(deployment):
    """A missing subscription is found first."""
    run_id, (step_id,) = _put_failed(deployment)
    before = deployment.run(run_id)
    assert _retry(deployment, run_id, step_id, PUBSUB_SUBSCRIPTION="no-such-one").returncode == 3
    assert deployment.run(run_id) == before


def test_a_step_whose_message_was_not_sent_is_named(deployment):
    """Exit code 3, and the sentence says how to send it."""
    run_id, (step_id,) = _put_failed(deployment)
    deployment.cloud.pubsub.faults.add(Fault(method="Publish", error="PERMISSION_DENIED"))
    done = _retry(deployment, run_id, step_id)
    assert done.returncode == 3
    assert "it is READY, but its message was not sent" in done.stdout
    assert deployment.step(run_id, step_id)["status"] == "READY"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_retry_says_what_it_has_done(deployment, number):
    """It begins no further step, sends the messages of those that it began, and writes its audit line."""
    run_id, steps = _put_failed(deployment, steps=40)
    deployment.cloud.pubsub.faults.add(Fault(method="Publish", delay_seconds=1))
    sent = deployment.cloud.pubsub.calls.as_dict().get("Publish", 0)
    with subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "retry", run_id, "--output", "json"],
        env=clean_environment(deployment.settings(LOG_FORMAT="json")),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert deployment.cloud.pubsub.calls.wait_for("Publish", sent + 1, timeout_seconds=30)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    ready = [step_id for step_id in steps if deployment.step(run_id, step_id)["status"] == "READY"]
    assert 0 < len(ready) < len(steps)
    assert [row["stepId"] for row in json.loads(out) if row["messageId"]] == ready
    line, rest = err.splitlines()
    assert json.loads(line)["event"] == "operator_action"
    assert json.loads(line)["steps"] == len(ready)
    assert rest == f"interrupted: {len(steps) - len(ready)} steps left as they were"


@pytest.mark.official
def test_retry_on_the_official_emulators(official_deployment):
    """The claim there finds the retry's lease too, and keeps the charts."""
    deployment = official_deployment
    run_id, (step_id,) = deployment.put_run(charts=CHARTS)
    started = datetime.now(UTC)
    with deployment.daemon(**ONE_BY_ONE).started() as daemon:
        _fail(deployment, daemon, run_id, step_id, count=1)
        assert _retry(deployment, run_id, "--keep-charts").returncode == 0
        line = daemon.wait_for_event("step_completed", count=2, timeout_seconds=60)[-1]
        assert line["status"] == "SUCCEEDED"
    assert _paid(deployment) == CHARTS
    assert deployment.step(run_id, step_id)["finishedAt"] > f"{started:%Y-%m-%dT%H:%M:%S}"
