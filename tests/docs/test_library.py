"""The worker on the page of the library runs as it stands there, and a type checker accepts it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from tests.support.cloud.resources import deployment_on
from worker_chart_export.orchestration import ClaimedStep, LeaseTerms, NotClaimedReason, claim_step

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
SUMMARY = "llm_report_1d_summary_v1"
WAIT_SECONDS = 60.0
#: What a type checker has to find, for users of the types.
TYPES = """
from typing import Literal, assert_type

def check(refusal: StepNotClaimed) -> None:
    assert refusal.reason != "step_runing"  # type: ignore[comparison-overlap]
    with claim_step(documents, "r", "s") as step:
        assert_type(step.result, Literal["SUCCEEDED", "FAILED"] | None)
        step.succeed(1)  # type: ignore[arg-type]
"""


@pytest.fixture
def deployment(cloud):
    """Return a deployment on a new embedded cloud."""
    with deployment_on(cloud.environment(), cloud) as found:
        yield found


@pytest.fixture
def worker(deployment, tmp_path):
    """Start the example; end it after the test."""
    script = tmp_path / "worker.py"
    script.write_text(EXAMPLE, encoding="utf-8")
    environment = {
        **deployment.environment,
        "REPORTS_BUCKET": deployment.bucket,
        "REPORTS_SUBSCRIPTION": deployment.subscription.rpartition("/")[2],
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    yield process
    process.kill()
    process.wait()


def _put_report_step(deployment):
    """Store a run with finished charts and a READY step for a report on them; return the run's id."""
    run_id, (chart_id,) = deployment.put_run(status="SUCCEEDED")
    manifest = deployment.objects.bucket(deployment.bucket).blob(f"charts/{run_id}/manifest.json")
    manifest.upload_from_string(json.dumps({"symbol": "IBM", "items": [{}, {}], "failures": []}))
    uri = f"gs://{deployment.bucket}/{manifest.name}"
    step = {
        "stepType": "LLM_REPORT",
        "status": "READY",
        "createdAt": "2025-12-15T10:25:30Z",
        "timeframe": "1d",
        "dependsOn": [chart_id],
        "inputs": {"llm": {"promptId": "summary"}, "chartsManifestStepId": chart_id},
        "outputs": {},
    }
    path = deployment.documents.field_path
    deployment.documents.document(f"flow_runs/{run_id}").update(
        {path("steps", SUMMARY): step, path("steps", chart_id, "outputs", "gcs_uri"): uri}
    )
    return run_id


@pytest.mark.usefixtures("worker")
def test_the_worker_of_the_page_runs(deployment):
    """It takes a message, writes the report, finishes the step and acks, also when it comes twice."""
    run_id = _put_report_step(deployment)
    deadline = time.monotonic() + WAIT_SECONDS
    for _ in range(2):
        deployment.publish_step(run_id, SUMMARY)
        while deployment.cloud.pubsub.unacked(deployment.subscription):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert deployment.step(run_id, SUMMARY)["status"] == "SUCCEEDED"
    name = f"reports/{run_id}/{SUMMARY}/1.json"
    assert deployment.step(run_id, SUMMARY)["outputs"] == {"gcs_uri": f"gs://{deployment.bucket}/{name}"}
    blob = deployment.objects.bucket(deployment.bucket).blob(name)
    assert json.loads(blob.download_as_bytes()) == {"text": "2 charts of IBM"}


def test_a_type_checker_accepts_the_worker_of_the_page(tmp_path):
    """`mypy --strict` accepts the example, and knows the values of reasons and results."""
    script = tmp_path / "worker.py"
    script.write_text(f"{EXAMPLE}\n{TYPES}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize(
    "name",
    [
        *get_args(NotClaimedReason),
        *(field.name for field in fields(LeaseTerms)),
        *inspect.signature(claim_step).parameters,
        *(name for name in dir(ClaimedStep) if not name.startswith("_")),
    ],
)
def test_the_page_names_each_reason_setting_and_method(name):
    """The page says what each of them means."""
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE.replace("```", ""))
