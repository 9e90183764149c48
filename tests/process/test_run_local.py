"""`worker-chart-export run-local` as a real process: a step of a file through the pipeline."""

from __future__ import annotations

import json

import pytest

from localcloud.faults import Fault
from tests.support.process.commands import run_command
from worker_chart_export.ledger.lease import LEASES


def test_run_local_works_the_first_eligible_step_of_a_file(deployment, tmp_path):
    """`run-local` stores a missing run, works its first eligible step, and prints a JSON summary."""
    run_id, step_ids = deployment.put_run(steps=2)
    path = tmp_path / "flow_run.json"
    path.write_text(json.dumps(deployment.run(run_id)), encoding="utf-8-sig")  # as Windows programs write it
    deployment.documents.document(f"flow_runs/{run_id}").delete()
    done = run_command(
        *("run-local", "--flow-run-path", str(path), "--output-summary", "json"),
        environment=deployment.settings(PUBSUB_SUBSCRIPTION=None),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == {
        "status": "SUCCEEDED",
        "runId": run_id,
        "stepId": step_ids[0],
        "outputsManifestGcsUri": f"gs://{deployment.bucket}/charts/{run_id}/{step_ids[0]}/manifest.json",
        "items": 2,
        "failures": 0,
        "minImages": 2,
    }
    assert deployment.step(run_id, step_ids[0])["status"] == "SUCCEEDED"
    assert deployment.step(run_id, step_ids[1])["status"] == "READY"


def test_run_local_options_win_over_the_environment(deployment, tmp_path):
    """Options for mode and bucket replace the environment; a failed step gives exit code 1."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    path = tmp_path / "flow_run.json"
    path.write_text(json.dumps(deployment.run(run_id)))
    done = run_command(
        *("run-local", "--flow-run-path", str(path), "--step-id", step_id, "--charts-api-mode", "local"),
        *("--charts-bucket", f"gs://{deployment.bucket}", "--output-summary", "json"),
        environment=deployment.settings(CHARTS_BUCKET=None, CHART_IMG_ACCOUNTS_JSON=None),
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "OHLCV_UNAVAILABLE"
    again = run_command("run-local", "--flow-run-path", str(path), environment=deployment.settings())
    assert again.returncode == 1
    assert "NOTHING_ELIGIBLE" in again.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "readable file"),
        ("{", "JSON"),
        ("[]", "JSON object"),
        ("{}", "runId"),
        ('{"runId": "r"}', "steps"),
    ],
)
def test_run_local_refuses_a_file_that_is_no_flow_run(tmp_path, content, message):
    """`run-local` refuses a file that is no flow run with one sentence and exit code 2."""
    path = tmp_path / "flow_run.json"
    if content is not None:
        path.write_text(content)
    done = run_command("run-local", "--flow-run-path", str(path))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "value",
    [
        r'"\ud800"',
        str(2**70),
        '{"a":' * 30 + "1" + "}" * 30,
        '{"a":' * 300 + "1" + "}" * 300,
        '{"a":' * 900 + "1" + "}" * 900,
        '{"": 1}',
    ],
    ids=["lone surrogate", "70 bits", "30 deep", "300 deep", "900 deep", "empty key"],
)
def test_run_local_refuses_a_run_that_firestore_cant_hold(deployment, tmp_path, value):
    """`run-local` refuses a run that Firestore can't store with one sentence that names the file."""
    run_id, _ = deployment.put_run()
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**deployment.run(run_id), "scope": "VALUE"}).replace('"VALUE"', value))
    deployment.documents.document(f"flow_runs/{run_id}").delete()
    done = run_command("run-local", "--flow-run-path", str(path), environment=deployment.settings())
    assert done.returncode == 2, done.stderr
    assert "run.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\x00", "a file that is not UTF-8"),
        (b'[{"id": "a"}]', "[0].apiKey: expected a text of printable ASCII without spaces, got nothing"),
        (b'[{"id": "a", "apikey": "some-key"}]', "[0].apikey: no such field; did you mean apiKey?"),
        (b'"some-key"', "got JSON that is not an array"),
    ],
)
def test_run_local_refuses_a_wrong_accounts_file(deployment, tmp_path, content, reason):
    """`run-local` refuses a wrong accounts file by the option's name and the reason, without quoting it."""
    run_id, _ = deployment.put_run()
    path, accounts = tmp_path / "run.json", tmp_path / "accounts"
    path.write_text(json.dumps(deployment.run(run_id)))
    accounts.write_bytes(content)
    done = run_command(
        *("run-local", "--flow-run-path", str(path), "--accounts-config-path", str(accounts)),
        environment=deployment.settings(COLUMNS="400"),
    )
    assert done.returncode == 2
    assert "--accounts-config-path" in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert "some-key" not in done.stderr


def test_run_local_works_under_a_lease_that_lasts_as_long_as_the_step(deployment, tmp_path):
    """`run-local` renews its lease with heartbeats and leaves none."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=3.5, times=1))
    renewed = []
    deployment.cloud.firestore.faults.add(Fault(method="BatchWrite", match=LEASES, before=renewed.append))
    run_id, (step_id,) = deployment.put_run(charts=1)
    path = tmp_path / "flow_run.json"
    path.write_text(json.dumps(deployment.run(run_id)))
    done = run_command(
        *("run-local", "--flow-run-path", str(path)),
        environment=deployment.settings(PUBSUB_SUBSCRIPTION=None, LEASE_SECONDS="2", CLOCK_SKEW_SECONDS="0"),
    )
    assert done.returncode == 0, done.stderr
    assert renewed
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert deployment.documents.collection(f"flow_runs/{run_id}/{LEASES}").get() == []


def test_run_local_reports_that_another_worker_holds_the_step(deployment, tmp_path):
    """`run-local` exits with 1 and the reason when another worker holds the step."""
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    path = tmp_path / "flow_run.json"
    path.write_text(json.dumps(deployment.run(run_id)))
    command = ("run-local", "--flow-run-path", str(path), "--step-id", step_id)
    done = run_command(*command, "--output-summary", "json", environment=deployment.settings())
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["reason"]) == ("NOT_CLAIMED", "unleased")
    text = run_command(*command, environment=deployment.settings()).stdout
    assert "reason: unleased (the step is RUNNING without a lease)\n" in text
    assert deployment.cloud.chart_img.requests == []
