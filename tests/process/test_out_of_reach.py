"""Steps that can't succeed pay for nothing, as far as that can be known, and don't hold a slot."""

from __future__ import annotations

import pytest

from daemon.cli.demo.resources import sample_templates
from localcloud.faults import Fault
from tests.support.charts.local_chart_samples import raw_candles

TEMPLATES = [template["id"] for template in sample_templates()]


def _put(deployment, template_ids, *, min_images=None, run_id=None, symbol="IBM", step_id=None):
    """Store a run with one step that requests these templates."""
    made_id, (made_step_id,) = deployment.put_run(charts=1)
    run = deployment.run(made_id)
    run_id, step_id = run_id or made_id, step_id or made_step_id
    run["runId"], run["scope"]["symbol"] = run_id, symbol
    step = run["steps"].pop(made_step_id)
    step["inputs"] = {"requests": [{"chartTemplateId": name} for name in template_ids]}
    if min_images is not None:
        step["inputs"]["minImages"] = min_images
    run["steps"][step_id] = step
    deployment.documents.document(f"flow_runs/{run_id}").set(run)
    return run_id, step_id


def _work(deployment, run_id, step_id, **settings):
    """Let a daemon work the step. Return its last line, the step and all lines."""
    with deployment.daemon(**settings).started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    return line, deployment.step(run_id, step_id), daemon.events


def _calls(deployment):
    return deployment.cloud.chart_img.calls["advanced-chart"]


@pytest.mark.parametrize("mode", ["real", "mock", "local"])
def test_a_missing_template_costs_no_chart_when_all_are_needed(deployment, tmp_path, mode):
    """With three requests, minImages 3 and one missing template, nothing is made, in every mode."""
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw_candles())
    run_id, step_id = _put(deployment, [*TEMPLATES[:2], "ctpl_missing"], min_images=3)
    line, step, lines = _work(
        deployment, run_id, step_id, CHARTS_API_MODE=mode, CHARTS_FIXTURES_DIR=str(tmp_path)
    )
    assert (line["status"], line["items"], line["failures"]) == ("FAILED", 0, 3)
    assert step["error"]["code"] == "VALIDATION_FAILED"
    assert _calls(deployment) == 0
    assert deployment.object_names() == [f"charts/{run_id}/{step_id}/manifest.json"]
    errors = [failure["error"] for failure in deployment.manifest(run_id, step_id)["failures"]]
    assert [error["code"] for error in errors] == ["VALIDATION_FAILED"] * 3
    assert "minImages 3 is out of reach after the failure of ctpl_missing" in errors[0]["message"]
    assert [line["charts"] for line in lines if line["event"] == "charts_not_made"] == [2]


def test_no_call_is_begun_after_the_failure_that_is_one_too_many(deployment):
    """With one chart at a time, five needed and the second refused, two calls are made."""
    deployment.cloud.chart_img.faults.add(Fault(answer="invalid_symbol", skip=1))
    run_id, step_id = _put(deployment, TEMPLATES[:5])
    line, step, _ = _work(deployment, run_id, step_id, REQUEST_CONCURRENCY="1")
    assert (line["status"], line["items"], _calls(deployment)) == ("FAILED", 1, 2)
    failures = deployment.manifest(run_id, step_id)["failures"]
    assert [failure["error"]["code"] for failure in failures] == ["CHART_API_FAILED"] * 4
    assert step["error"]["details"]["chartTemplateId"] == TEMPLATES[1]


def test_a_chart_that_no_plan_allows_costs_no_call_for_the_others(deployment):
    """With three charts needed and one too large for the plans of all accounts, no call is made."""
    template = next(template for template in sample_templates() if template["id"] == TEMPLATES[2])
    template["request"] |= {"width": 1920, "height": 1080}
    deployment.documents.document(f"chart_templates/{template['id']}").set(template)
    run_id, step_id = _put(deployment, TEMPLATES[:3])
    accounts = '[{"id": "a", "apiKey": "key-never-seen", "plan": "BASIC", "maxParameters": 10}]'
    line, step, _ = _work(
        deployment, run_id, step_id, CHART_IMG_ACCOUNTS_JSON=accounts, REQUEST_CONCURRENCY="1"
    )
    assert (line["items"], _calls(deployment)) == (0, 0)
    assert step["error"]["code"] == "CHART_API_LIMIT_EXCEEDED"
    assert step["error"]["details"]["chartTemplateId"] == TEMPLATES[2]


def _put_templates(deployment, count, *, description):
    names = [f"ctpl_out_of_reach_{number:03}" for number in range(count)]
    batch = deployment.documents.batch()
    for name in names:
        template = {**sample_templates()[0], "id": name, "description": description}
        batch.set(deployment.documents.document(f"chart_templates/{name}"), template)
    batch.commit()
    return names


@pytest.mark.parametrize(("count", "description"), [(200, "price + volume"), (4, "d" * 20_000)])
def test_a_manifest_that_can_t_fit_costs_no_call(deployment, count, description):
    """200 requests, or 4 whose descriptions have 20 kB, fail before the first call."""
    run_id, step_id = _put(deployment, _put_templates(deployment, count, description=description))
    _, step, lines = _work(deployment, run_id, step_id)
    assert (step["status"], step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
    assert step["error"]["details"]["field"] == "inputs.requests"
    assert step["error"]["details"]["manifestBytes"] > 65536
    assert (_calls(deployment), deployment.object_names()) == (0, [])
    assert len([line for line in lines if line.get("stepId") == step_id]) <= 10


def test_twenty_thousand_requests_hold_no_slot(deployment):
    """20,000 requests are refused at once, with a few log lines and without a read of a template."""
    reads = []
    deployment.cloud.firestore.faults.add(
        Fault(method="BatchGetDocuments", match="chart_templates", before=reads.append)
    )
    run_id, step_id = _put(deployment, [f"ctpl_{number:05}" for number in range(20_000)])
    line, step, lines = _work(deployment, run_id, step_id)
    assert (step["status"], step["error"]["details"]["field"]) == ("FAILED", "inputs.requests")
    assert (reads, _calls(deployment)) == ([], 0)
    assert line["durationMs"] < 5000  # mostly the commit; the check itself takes a fifth of a second
    assert len([line for line in lines if line.get("stepId") == step_id]) <= 10


@pytest.mark.parametrize("symbol", ["\U0001f600" * 128, "IBM\u202e", "I\x1b[31mBM", "I BM"])
def test_names_that_can_t_be_used_cost_no_call(deployment, symbol):
    """A symbol that makes object names too long, or that can't be seen, fails before the first call."""
    run_id = deployment.run_id("A" * 99)
    requests = [TEMPLATES[0], "t" * 128]
    run_id, step_id = _put(deployment, requests, run_id=run_id, symbol=symbol, step_id="s" * 256)
    _, step, _ = _work(deployment, run_id, step_id)
    assert (step["status"], step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
    assert step["error"]["details"]["field"] == "scope.symbol"
    assert (_calls(deployment), deployment.object_names()) == (0, [])
