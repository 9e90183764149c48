"""Daemons whose Chart-IMG accounts are used up or refused: steps fail or wait, and calls are not wasted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from localcloud.faults import Fault
from tests.support.charts.local_chart_samples import raw_candles
from tests.support.cloud.resources import asked
from tests.support.process.waiting_daemon import WAITING
from worker_chart_export.charts.chart_img.usage_document import USAGE

KEY = "key-that-must-never-be-seen"
OTHER_KEY = "other-key-that-must-never-be-seen"
FAST = {"ratePerSecond": 1000, "burst": 1000}
WAIT = {"module": WAITING, "CHARTS_WHEN_EXHAUSTED": "wait", "RESCUE_INTERVAL_SECONDS": "1"}


def _accounts(*accounts):
    return {"CHART_IMG_ACCOUNTS_JSON": json.dumps([{**FAST, **account} for account in accounts])}


def _one(daily_limit=1000):
    return _accounts({"id": "first", "apiKey": KEY, "dailyLimit": daily_limit})


def _usage(deployment, account_id="first"):
    return deployment.documents.document(f"{USAGE}/{account_id}")


def _publish_all(deployment, run_id, step_ids):
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)


def _all_done(deployment, daemon, run_id, step_ids):
    """Wait until all steps have succeeded."""
    steps = deployment.run(run_id)["steps"]
    return daemon.wait_until(
        lambda: all(
            deployment.run(run_id)["steps"][step_id]["status"] == "SUCCEEDED" for step_id in step_ids
        ),
        f"{len(steps)} steps succeeded",
        60,
    )


def _wait_until_tried(daemon):
    """Wait until the next chart may use the first account."""
    daemon.wait_until(
        lambda: asked(daemon, "state.json").json()["accounts"][0]["secondsUntilTried"] == 0, "a trial", 20
    )


def _ready(daemon):
    response = asked(daemon, "readyz")
    return response.status_code, response.json()


class TestFail:
    """`CHARTS_WHEN_EXHAUSTED=fail`, the default."""

    def test_a_refused_key_is_tried_again_without_a_restart(self, deployment):
        """After one refusal of the only key a step fails, the worker warns, and then makes charts again."""
        deployment.cloud.chart_img.faults.add(Fault(answer="forbidden", times=1))
        run_id, step_ids = deployment.put_run(steps=2, charts=1)
        with deployment.daemon(module=WAITING).started() as daemon:
            deployment.publish_step(run_id, step_ids[0])
            (line,) = daemon.wait_for_event("step_completed")
            assert (line["status"], line["code"]) == ("FAILED", "CHART_API_LIMIT_EXCEEDED")
            assert deployment.step(run_id, step_ids[0])["error"]["details"]["accounts"] == {
                "first": "its key is refused (403 Forbidden)"
            }
            status, body = _ready(daemon)
            warning = "No Chart-IMG account is left: first: its key is refused (403 Forbidden). Charts fail."
            assert (status, body["status"], body["warnings"]) == (200, "ok", [warning])
            page = asked(daemon, "state.json").json()
            assert page["readiness"]["warnings"] == [warning]
            assert page["accounts"][0]["isDisabled"]
            metrics = asked(daemon, "metrics").text
            assert 'chart_export_chart_img_account_usable{account="first"} 0.0' in metrics
            _wait_until_tried(daemon)
            deployment.publish_step(run_id, step_ids[1])
            line = daemon.wait_for_event("step_completed", count=2)[1]
            assert line["status"] == "SUCCEEDED"
            assert "warnings" not in _ready(daemon)[1]
            assert daemon.terminate() == 0
        assert deployment.cloud.chart_img.calls["advanced-chart"] == 2

    def test_limit_exceeded_is_known_to_other_workers_and_after_a_restart(self, deployment):
        """After one "Limit Exceeded" no other worker and no later one makes a call."""
        deployment.cloud.chart_img.faults.add(Fault(answer="limit_exceeded"))
        run_id, step_ids = deployment.put_run(steps=3, charts=1)
        for step_id in step_ids:
            with deployment.daemon(**_one(44)).started() as daemon:
                deployment.publish_step(run_id, step_id)
                (line,) = daemon.wait_for_event("step_completed")
                assert line["details"]["accounts"] == {"first": "used up for today"}
                assert daemon.terminate() == 0
        assert _usage(deployment).get().to_dict()["usageToday"] == 44
        assert deployment.cloud.chart_img.calls["advanced-chart"] == 1

    def test_the_error_says_of_each_account_why(self, deployment):
        """A step that no account can make says which is used up, refused and on too small a plan."""
        accounts = _accounts(
            {"id": "a", "apiKey": "key-a-never-seen", "dailyLimit": 1},
            {"id": "b", "apiKey": "key-b-never-seen"},
            {"id": "c", "apiKey": "key-c-never-seen", "maxParameters": 1, "plan": "BASIC"},
        )
        _usage(deployment, "a").set({"dailyLimit": 0})
        deployment.cloud.chart_img.faults.add(Fault(answer="forbidden", match="key-b"))
        template = {
            "id": "four-studies",
            "description": "x",
            "chartImgSymbolTemplate": "{symbol}",
            "request": {"studies": [{"name": "Volume"}] * 4},
        }
        deployment.documents.document("chart_templates/four-studies").set(template)
        run_id, (step_id,) = deployment.put_run(charts=1)
        steps = deployment.run(run_id)["steps"]
        steps[step_id]["inputs"]["requests"] = [{"chartTemplateId": "four-studies"}]
        deployment.documents.document(f"flow_runs/{run_id}").update({"steps": steps})
        with deployment.daemon(**accounts).started() as daemon:
            deployment.publish_step(run_id, step_id)
            daemon.wait_for_event("step_completed")
            assert daemon.terminate() == 0
        why = deployment.step(run_id, step_id)["error"]["details"]["accounts"]
        assert why == {
            "a": "used up for today",
            "b": "its key is refused (403 Forbidden)",
            "c": "plan too small: 4 studies and drawings, its plan allows 1",
        }


@pytest.mark.parametrize("when_exhausted", ["fail", "wait"])
def test_a_new_key_in_the_accounts_file_is_used_without_a_restart(deployment, tmp_path, when_exhausted):
    """A key that is refused is replaced by the one that a person puts into the file, long before an hour."""
    deployment.cloud.chart_img.configure({OTHER_KEY: None})
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps([{"id": "first", "apiKey": KEY, **FAST}]))
    settings = {**WAIT, "CHARTS_WHEN_EXHAUSTED": when_exhausted, "CHART_IMG_ACCOUNTS_JSON": None}
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    with deployment.daemon(**settings, CHART_IMG_ACCOUNTS_FILE=str(file)).started() as daemon:
        deployment.publish_step(run_id, step_ids[0])
        daemon.wait_for_event("chart_api_key_refused")
        file.write_text(json.dumps([{"id": "first", "apiKey": OTHER_KEY, **FAST}]))
        _wait_until_tried(daemon)
        deployment.publish_step(run_id, step_ids[1])
        _all_done(deployment, daemon, run_id, step_ids[1:] if when_exhausted == "fail" else step_ids)
        assert daemon.terminate() == 0
    assert deployment.cloud.chart_img.calls_per_key[KEY] == 1
    assert [line["accountId"] for line in daemon.named("chart_api_key_replaced")] == ["first"]
    output = json.dumps([daemon.events, daemon.other_output])
    assert not [key for key in (KEY, OTHER_KEY) if key in output]


class TestWait:
    """`CHARTS_WHEN_EXHAUSTED=wait`."""

    def test_steps_wait_until_a_limit_is_raised(self, deployment):
        """With 3 calls for 12 charts, the intake is paused; after the limit is raised all steps succeed."""
        run_id, step_ids = deployment.put_run(steps=6, charts=2)
        with deployment.daemon(**WAIT, **_one(3)).started() as daemon:
            _publish_all(deployment, run_id, step_ids)
            (paused, *_) = daemon.wait_for_event("intake_paused")
            assert paused["backend"] == "accounts"
            assert "used up for today" in paused["reason"]
            status, body = _ready(daemon)
            assert (status, body["warnings"][0][-11:]) == (503, "Steps wait.")
            daemon.wait_until(lambda: not daemon.named("step_completed")[3:], "few steps", 5)
            assert deployment.cloud.chart_img.calls["advanced-chart"] == 3
            _usage(deployment).update({"dailyLimit": 100})
            _all_done(deployment, daemon, run_id, step_ids)
            assert _ready(daemon)[0] == 200
            assert daemon.terminate() == 0
        # No chart was paid for twice, and no step failed meanwhile.
        assert deployment.cloud.chart_img.charts_per_key.as_dict() == {KEY: 12}
        assert {line["status"] for line in daemon.named("step_completed")} == {"SUCCEEDED"}
        assert daemon.named("internal_error") == []

    def test_steps_wait_until_the_day_ends(self, deployment, server_time):
        """Accounts used up in the afternoon make the steps wait until midnight, however late that is."""
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
        server_time.set(midnight - timedelta(hours=10))
        run_id, step_ids = deployment.put_run(steps=5, charts=2)
        with deployment.daemon(**WAIT, **_one(4)).started() as daemon:
            _publish_all(deployment, run_id, step_ids)
            daemon.wait_for_event("intake_paused")
            server_time.set(midnight + timedelta(seconds=1))
            daemon.wait_for_event("intake_paused", count=2, timeout_seconds=60)  # the next day's 4 calls
            server_time.set(midnight + timedelta(days=1, seconds=1))
            _all_done(deployment, daemon, run_id, step_ids)
            assert daemon.terminate() == 0
        assert deployment.cloud.chart_img.charts_per_key.as_dict() == {KEY: 10}
        assert {line["status"] for line in daemon.named("step_completed")} == {"SUCCEEDED"}

    def test_a_chart_under_way_is_stored_when_another_finds_no_account(self, deployment):
        """A paid chart is stored before its step is released, and is used again."""
        deployment.cloud.chart_img.faults.add(Fault(delay_seconds=1.0, times=1))
        run_id, (step_id,) = deployment.put_run(charts=3)
        with deployment.daemon(**WAIT, **_one(1)).started() as daemon:
            deployment.publish_step(run_id, step_id)
            daemon.wait_for_event("intake_paused")
            assert len(deployment.object_names()) == 1
            (released, *_) = daemon.named("lease_released")
            assert released["cause"] == "accounts"
            _usage(deployment).update({"dailyLimit": 3})
            _all_done(deployment, daemon, run_id, [step_id])
            assert daemon.terminate() == 0
        assert deployment.cloud.chart_img.charts_per_key.as_dict() == {KEY: 3}
        assert len(daemon.named("chart_reused")) >= 1

    def test_a_refused_key_makes_steps_wait(self, deployment):
        """Steps wait while the only key is refused, and cost one call each time that it is tried."""
        deployment.cloud.chart_img.faults.add(Fault(answer="forbidden", times=3))
        run_id, step_ids = deployment.put_run(steps=3, charts=1)
        with deployment.daemon(**WAIT, **_one()).started() as daemon:
            _publish_all(deployment, run_id, step_ids)
            _all_done(deployment, daemon, run_id, step_ids)
            assert daemon.terminate() == 0
        chart_img = deployment.cloud.chart_img
        assert (chart_img.calls["advanced-chart"], chart_img.charts_per_key.as_dict()) == (6, {KEY: 3})
        assert [line["delaySeconds"] for line in daemon.named("chart_api_key_refused")] == [2, 4, 8]

    def test_a_chart_that_only_a_used_up_account_can_make_holds_nobody_up(self, deployment):
        """While one chart waits for the account with the larger plan, the others are made."""
        large = deployment.documents.document("chart_templates/large")
        request = {"width": 1920, "height": 1080}
        large.set(
            {"id": "large", "description": "x", "chartImgSymbolTemplate": "{symbol}", "request": request}
        )
        accounts = _accounts(
            {"id": "large", "apiKey": KEY, "plan": "PRO"},
            {"id": "small", "apiKey": OTHER_KEY, "plan": "BASIC"},
        )
        _usage(deployment, "large").set({"dailyLimit": 0})
        waiting, (step_id,) = deployment.put_run(charts=1)
        path = deployment.documents.field_path("steps", step_id, "inputs", "requests")
        deployment.documents.document(f"flow_runs/{waiting}").update({path: [{"chartTemplateId": "large"}]})
        with deployment.daemon(**WAIT, **accounts).started() as daemon:
            deployment.publish_step(waiting, step_id)
            daemon.wait_for_event("lease_released")
            run_id, step_ids = deployment.put_run(steps=3, charts=1)
            _publish_all(deployment, run_id, step_ids)
            _all_done(deployment, daemon, run_id, step_ids)
            assert daemon.named("intake_paused") == []
            assert deployment.step(waiting, step_id)["status"] == "RUNNING"
            _usage(deployment, "large").update({"dailyLimit": 10})
            _all_done(deployment, daemon, waiting, [step_id])
            assert daemon.terminate() == 0
        assert deployment.cloud.chart_img.charts_per_key.as_dict() == {KEY: 1, OTHER_KEY: 3}
        # Its message was deferred once, for as long as possible. The rescue has made the chart.
        received = [line["stepId"] for line in daemon.named("message_settled") if line["runId"] == waiting]
        assert received == [step_id]

    def test_a_step_that_no_account_can_save_does_not_wait(self, deployment):
        """With one of two templates missing and both charts needed, the step fails at once."""
        run_id, (step_id,) = deployment.put_run(charts=2)
        path = deployment.documents.field_path("steps", step_id, "inputs", "requests")
        used = deployment.step(run_id, step_id)["inputs"]["requests"][0]
        run = deployment.documents.document(f"flow_runs/{run_id}")
        run.update({path: [used, {"chartTemplateId": "missing"}]})
        _usage(deployment).set({"dailyLimit": 0})
        with deployment.daemon(**WAIT, **_one()).started() as daemon:
            deployment.publish_step(run_id, step_id)
            (line,) = daemon.wait_for_event("step_completed")
            assert daemon.named("intake_paused") == []
            assert daemon.terminate() == 0
        assert (line["status"], line["code"]) == ("FAILED", "VALIDATION_FAILED")

    @pytest.mark.parametrize("reason", ["plan", "fallback"])
    def test_what_no_wait_can_change_does_not_wait(self, deployment, reason):
        """A chart too large for each plan fails at once; with a fallback the chart is drawn at once."""
        deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw_candles())
        run_id, (step_id,) = deployment.put_run(charts=1)
        settings = {**WAIT, **_accounts({"id": "first", "apiKey": KEY, "plan": "BASIC"})}
        if reason == "plan":
            name = deployment.step(run_id, step_id)["inputs"]["requests"][0]["chartTemplateId"]
            template = deployment.documents.document(f"chart_templates/{name}")
            template.update({"request.width": 1920, "request.height": 1080})
        else:
            settings["CHARTS_FALLBACK"] = "local"
        _usage(deployment).set({"dailyLimit": 0})
        with deployment.daemon(**settings).started() as daemon:
            deployment.publish_step(run_id, step_id)
            (line,) = daemon.wait_for_event("step_completed")
            assert daemon.named("intake_paused") == []
            assert daemon.terminate() == 0
        assert line["status"] == ("FAILED" if reason == "plan" else "SUCCEEDED")
