"""What someone meets who comes from the Cloud Function: each row of docs/coming-from-upstream.md.

The names of the tests hold the number of the test of that project which has the same subject (T-003 and so
on). What the unit tests already show for a row is not repeated here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from localcloud.faults import Fault
from tests.support.process.commands import run_command

UPDATED = "google.cloud.firestore.document.v1.updated"
TEMPLATE = "ctpl_price_ma1226_bb_macd1226_v1"


def event(deployment, run_id, *, kind=UPDATED, collection="flow_runs"):
    """Return the structured event for a document, with the full resource name as its subject."""
    name = f"projects/{deployment.project}/databases/(default)/documents/{collection}/{run_id}"
    data = {"value": {"name": name, "fields": {"flowKey": {"stringValue": "flow-1"}}}}
    known = {"specversion": "1.0", "id": "1", "source": "//firestore", "type": kind, "subject": name}
    return json.dumps({**known, "data": data}).encode()


@pytest.fixture
def worked(deployment):
    """Give a daemon the event for each run; return its log events once all messages are settled."""

    def run(*messages):
        with deployment.daemon().started() as daemon:
            for message in messages:
                deployment.publish(message)
            daemon.wait_for_event("message_settled", count=len(messages), timeout_seconds=60)
            assert daemon.terminate() == 0
        return daemon.events

    return run


def named(events, name, run_id):
    """Return the events of that name about a run."""
    return [found for found in events if found["event"] == name and found.get("runId") == run_id]


@pytest.mark.parametrize("kind", [UPDATED, UPDATED.replace("updated", "created")])
def test_t003_all_ready_steps_of_an_event_are_worked_in_order(deployment, worked, kind):
    """Upstream works the first READY step of an event, and ignores `created`. Here all are worked."""
    run_id, step_ids = deployment.put_run(steps=3, charts=1)
    events = worked(event(deployment, run_id, kind=kind))
    assert [found["stepId"] for found in named(events, "step_completed", run_id)] == step_ids


def test_t003_other_collections_and_runs_without_work_are_acked(deployment, worked):
    """An event without work is acked and says why; no step is touched."""
    running, _ = deployment.put_run(charts=1, status="RUNNING")
    pending, _ = deployment.put_run(charts=1, status="PENDING")
    events = worked(
        event(deployment, "r1", collection="other"), *(event(deployment, run) for run in (running, pending))
    )
    assert [found["event"] for found in events].count("message_ignored") == 1
    assert [found["reason"] for found in named(events, "step_noop", running)] == ["running"]
    assert [found["reason"] for found in named(events, "step_not_ready", pending)] == ["pending"]
    assert {found["disposition"] for found in events if found["event"] == "message_settled"} == {"ack"}


def test_t003_a_run_whose_steps_are_no_map_is_quarantined(deployment, worked):
    """Upstream ignores such a run. Here its message goes to the quarantine, because a step may be lost."""
    run_id = deployment.run_id()
    deployment.documents.document(f"flow_runs/{run_id}").set({"steps": ["bad"]})
    events = worked(event(deployment, run_id))
    assert [found["reason"] for found in named(events, "message_rejected", run_id)] == ["run_invalid"]
    assert [message.attributes["reason"] for message in deployment.quarantined(1)] == ["run_invalid"]


def test_t027_log_lines_name_the_run(deployment, worked):
    """The events name `runId` and `stepId`, and from the first read of the run on `flowKey`."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    events = worked(event(deployment, run_id))
    (completed,) = named(events, "step_completed", run_id)
    assert completed["stepId"] == step_id
    about_run = [found for found in events if found.get("runId") == run_id]
    unread = [found["event"] for found in about_run if "flowKey" not in found]
    assert set(unread) <= {"message_received"}
    assert {found["flowKey"] for found in about_run if "flowKey" in found} == {"demo_report_v1"}


def test_t029_an_unmet_dependency_blocks_and_changes_nothing(deployment, worked):
    """A READY step with an unmet dependency is not claimed, and the next eligible one is worked."""
    blocked, _ = deployment.put_run(charts=1, dependsOn=["absent"])
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    path = f"steps.`{step_ids[0]}`.dependsOn"
    deployment.documents.document(f"flow_runs/{run_id}").update({path: ["absent"]})
    events = worked(event(deployment, blocked), event(deployment, run_id))
    assert len(named(events, "depends_on_blocked", blocked)) == 1
    assert deployment.step(blocked, "charts:1d:step000")["status"] == "READY"
    assert [found["stepId"] for found in named(events, "step_completed", run_id)] == step_ids[1:]


@pytest.fixture
def run_local(deployment, tmp_path):
    """Run `run-local` on a new run that is not stored yet, and return its exit code and its summary."""

    def run(*options, settings=None, form="json", **step_fields):
        run_id, (step_id,) = deployment.put_run(charts=1, **step_fields)
        path = tmp_path / "flow_run.json"
        path.write_text(json.dumps(deployment.run(run_id) | {"runId": run_id}), encoding="utf-8")
        deployment.documents.document(f"flow_runs/{run_id}").delete()
        done = run_command(
            *("run-local", "--flow-run-path", str(path), "--output-summary", form, *options),
            environment=deployment.settings(**(settings or {})),
        )
        ids = {"runId": run_id, "stepId": step_id}
        if not done.stdout:
            return done.returncode, done.stderr, ids
        return done.returncode, json.loads(done.stdout) if form == "json" else done.stdout, ids

    return run


def test_t009_the_json_summary_has_these_keys(deployment, run_local):
    """`items` and `failures` are counts; keys without a value are left out."""
    code, summary, ids = run_local()
    uri = f"gs://{deployment.bucket}/charts/{ids['runId']}/{ids['stepId']}/manifest.json"
    counts = {"items": 1, "failures": 0, "minImages": 1}
    assert (code, summary) == (0, {"status": "SUCCEEDED", **ids, "outputsManifestGcsUri": uri, **counts})


def test_t009_the_text_summary_has_one_line_for_each_key(run_local):
    """Upstream prints one line `CHART_EXPORT SUCCEEDED: ...`."""
    code, text, ids = run_local(form="text")
    assert code == 0
    assert text.splitlines()[:3] == [
        "status: SUCCEEDED",
        f"runId: {ids['runId']}",
        f"stepId: {ids['stepId']}",
    ]
    assert "items: 1\nfailures: 0\nminImages: 1" in text


def test_t009_the_default_mode_is_real(run_local):
    """Upstream's default is `mock`. Here it is `real`, as for the daemon, and needs accounts."""
    code, text, _ = run_local(settings={"CHARTS_API_MODE": None, "CHART_IMG_ACCOUNTS_JSON": None})
    assert code == 2
    assert "CHART_IMG_ACCOUNTS_JSON: expected" in text


def test_t009_options_win_over_the_environment(deployment, run_local, tmp_path):
    """The options for mode, bucket and accounts win over the variables."""
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps([{"id": "from-file", "apiKey": "key-of-the-file"}]), encoding="utf-8")
    code, summary, _ = run_local(
        *("--charts-api-mode", "real", "--charts-bucket", f"gs://{deployment.bucket}"),
        *("--accounts-config-path", str(accounts)),
        settings={"CHARTS_API_MODE": "mock", "CHARTS_BUCKET": "gs://another-bucket"},
    )
    assert code == 0, summary
    assert summary["outputsManifestGcsUri"].startswith(f"gs://{deployment.bucket}/")
    assert deployment.cloud.chart_img.requests[-1].key == "key-of-the-file"


def test_t009_the_bucket_needs_its_scheme(deployment, run_local):
    """Upstream also takes a bucket's name without `gs://`."""
    code, text, _ = run_local(settings={"CHARTS_BUCKET": deployment.bucket})
    assert code == 2
    assert "CHARTS_BUCKET: expected gs://<bucket name>" in text


def test_t022_without_an_eligible_step_nothing_is_failed(run_local):
    """Upstream returns FAILED with VALIDATION_FAILED; here the status says what it is, with exit code 1."""
    code, summary, ids = run_local(status="SUCCEEDED")
    reason = f"no step of the run is eligible: {ids['stepId']} is SUCCEEDED"
    assert (code, summary) == (1, {"status": "NOTHING_ELIGIBLE", "runId": ids["runId"], "reason": reason})


def test_t022_a_missing_template_fails_the_step_and_is_in_the_manifest(deployment, run_local):
    """The step is FAILED with the first failure's code, and its error names the manifest."""
    inputs = {"requests": [{"chartTemplateId": "missing"}]}
    code, summary, ids = run_local(inputs=inputs)
    assert (code, summary["status"], summary["items"], summary["failures"]) == (1, "FAILED", 0, 1)
    assert summary["error"]["code"] == "VALIDATION_FAILED"
    error = deployment.step(run_id=ids["runId"], step_id=ids["stepId"])["error"]
    assert error["details"]["manifestGcsUri"] == summary["outputsManifestGcsUri"]


def test_t022_without_an_account_left_the_step_fails_with_a_manifest(deployment, run_local):
    """Upstream writes no manifest then. Here each request has its entry in it."""
    accounts = [{"id": "used-up", "apiKey": "key-of-used-up", "dailyLimit": 1}]
    today = f"{datetime.now(UTC):%Y-%m-%d}T00:00:00Z"
    usage = deployment.documents.document("chart_img_accounts_usage/used-up")
    usage.set({"windowStart": today, "usageToday": 1})
    code, summary, ids = run_local(settings={"CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts)})
    assert (code, summary["error"]["code"]) == (1, "CHART_API_LIMIT_EXCEEDED")
    manifest = deployment.manifest(ids["runId"], ids["stepId"])
    assert [failure["error"]["code"] for failure in manifest["failures"]] == ["CHART_API_LIMIT_EXCEEDED"]


def test_t029_run_local_does_not_fail_a_blocked_step(deployment, run_local):
    """Upstream returns FAILED; the step stays READY in both. Here the reason names what it waits for."""
    code, summary, ids = run_local(dependsOn=["absent"])
    assert (code, summary["status"]) == (1, "NOTHING_ELIGIBLE")
    assert summary["reason"].endswith(f"{ids['stepId']} waits for absent")
    assert deployment.step(ids["runId"], ids["stepId"])["status"] == "READY"


def test_t005_symbol_interval_and_time_zone_of_a_template_are_replaced(deployment, run_local):
    """Those of the run win. `1d` is sent as `1D`, which upstream does not do."""
    template = deployment.documents.document(f"chart_templates/{TEMPLATE}").get().to_dict()
    other = template["request"] | {"symbol": "NOT:THIS", "interval": "99m", "timezone": "Europe/Paris"}
    deployment.documents.document("chart_templates/own").set(template | {"id": "own", "request": other})
    code, _, _ = run_local(inputs={"requests": [{"chartTemplateId": "own"}]})
    sent = deployment.cloud.chart_img.requests[-1].body
    assert code == 0
    assert (sent["symbol"], sent["interval"], sent["timezone"]) == ("BINANCE:IBM", "1D", "Etc/UTC")


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"requests": [{"chartTemplateId": TEMPLATE}, {"chartTemplateId": TEMPLATE}]}, 1),
        ({"requests": [{"chartTemplateId": TEMPLATE}], "minImages": 2}, 1),
        ({"requests": [{"chartTemplateId": TEMPLATE}], "minImages": -1}, 1),
        ({"requests": [{"chartTemplateId": TEMPLATE}], "minImages": 0}, 0),
        ({"requests": []}, 1),
    ],
)
def test_t005_requests_are_checked_before_a_chart_is_paid(deployment, run_local, inputs, code):
    """As upstream, but `minImages: 0` is allowed here."""
    found, summary, _ = run_local(inputs=inputs)
    assert found == code
    assert code == 0 or summary["error"]["code"] == "VALIDATION_FAILED"
    assert len(deployment.cloud.chart_img.requests) == (1 if code == 0 else 0)


def test_t007_a_fixture_must_be_a_whole_picture(run_local, tmp_path):
    """Upstream checks the signature alone; here the size and the end of the picture too."""
    folder = tmp_path / "fixtures"
    folder.mkdir()
    settings = {
        "CHARTS_API_MODE": "mock",
        "CHARTS_FIXTURES_DIR": str(folder),
        "CHART_IMG_ACCOUNTS_JSON": None,
    }
    code, summary, _ = run_local(settings=settings)
    assert (code, summary["error"]["code"]) == (1, "CHART_API_MOCK_MISSING")
    (folder / f"BINANCE_IBM__1d__{TEMPLATE}.png").write_bytes(b"\x89PNG\r\n\x1a\nTEST")
    code, summary, _ = run_local(settings=settings)
    assert (code, summary["error"]["code"]) == (1, "CHART_API_FAILED")


def test_t007_record_is_refused_in_production(run_local, tmp_path):
    """`record` is refused by the variable `TDA_ENV`, as upstream does."""
    settings = {"CHARTS_API_MODE": "record", "TDA_ENV": "production", "CHARTS_FIXTURES_DIR": str(tmp_path)}
    code, text, _ = run_local(settings=settings)
    assert code == 2
    assert "CHARTS_API_MODE: expected" in text


def test_t007_a_server_error_is_tried_again(deployment, run_local):
    """Upstream makes three attempts, this worker up to six."""
    deployment.cloud.chart_img.faults.add(Fault(answer="server_error", times=3))
    code, _, _ = run_local()
    assert code == 0
    assert len(deployment.cloud.chart_img.requests) == 4


def test_t006_the_next_account_is_called_when_one_is_used_up(deployment, run_local):
    """After `Limit Exceeded` the next account of the setting is called, and its call is counted."""
    accounts = [{"id": name, "apiKey": f"key-of-{name}", "dailyLimit": 5} for name in ("used-up", "fresh")]
    deployment.cloud.chart_img.faults.add(Fault(answer="limit_exceeded", times=1))
    code, _, _ = run_local(settings={"CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts)})
    assert code == 0
    assert [call.key for call in deployment.cloud.chart_img.requests] == ["key-of-used-up", "key-of-fresh"]
    usage = deployment.documents.document("chart_img_accounts_usage/fresh").get()
    assert usage.get("usageToday") == 1
