"""The daily quota of the Chart-IMG accounts with several daemon processes."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from localcloud.faults import Fault
from worker_chart_export.charts.chart_img.usage_document import USAGE

FIRST, SECOND, DEAD = "first-key-never-seen", "second-key-never-seen", "dead-key-never-seen"
FAST = {"ratePerSecond": 1000, "burst": 1000}
CHARTS_A_STEP = 5
SETTLED_SECONDS = 90.0
#: The work of one daemon: 8 steps of 4 charts.
MAX_UNDER_WAY = 32
#: Short leases, so that a take-over needs only seconds.
SHORT_LEASE = {"LEASE_SECONDS": "3", "CLOCK_SKEW_SECONDS": "1", "RESCUE_INTERVAL_SECONDS": "1"}


def _account(account_id, key, **fields):
    return {"id": account_id, "apiKey": key, **FAST, **fields}


def _accounts(*accounts):
    return {"CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts)}


TWO_OF_FIFTY = _accounts(_account("first", FIRST, dailyLimit=50), _account("second", SECOND, dailyLimit=50))


def _publish_all(deployment, run_id, step_ids):
    for step_id in step_ids:
        deployment.publish_step(run_id, step_id)


def _ended(daemons, count):
    """Wait until the daemons together have ended this number of steps."""
    daemons[0].wait_until(
        lambda: sum(len(daemon.named("step_completed")) for daemon in daemons) >= count,
        f"{count} steps ended by {len(daemons)} daemons",
        SETTLED_SECONDS,
    )


def _results(deployment, run_id, step_ids):
    """Return the number of charts, and the codes of the failures."""
    manifests = [deployment.manifest(run_id, step_id) for step_id in step_ids]
    failures = [failure["error"]["code"] for manifest in manifests for failure in manifest["failures"]]
    return sum(len(manifest["items"]) for manifest in manifests), failures


def _usage(deployment, account_id):
    return deployment.documents.document(f"{USAGE}/{account_id}").get().to_dict()


def _usage_commits(deployment):
    """Return a counter of the commits on usage documents from now on, with lost races."""
    faults = deployment.cloud.firestore.faults
    watching = faults.add(Fault(method="Commit", match=USAGE, before=lambda _request: None))
    return lambda: faults.fired(watching)


def _output(daemons):
    return json.dumps([[daemon.events, daemon.other_output] for daemon in daemons])


def _today():
    return datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")


def _put_steps_that_need_no_chart(deployment):
    """Store 160 requests in steps with `minImages` 0, so that each is tried, whatever others come to."""
    run_id, step_ids = deployment.put_run(steps=160 // CHARTS_A_STEP, charts=CHARTS_A_STEP)
    steps = deployment.run(run_id)["steps"]
    for step_id in step_ids:
        steps[step_id]["inputs"]["minImages"] = 0
    deployment.documents.document(f"flow_runs/{run_id}").update({"steps": steps})
    return run_id, step_ids


def test_two_daemons_spend_two_accounts_to_the_last_call_and_not_beyond(deployment):
    """160 charts on 2 x 50 calls a day give 100 charts, 60 failures and few commits."""
    commits = _usage_commits(deployment)
    with ExitStack() as running:
        daemons = [running.enter_context(deployment.daemon(**TWO_OF_FIFTY)) for _ in range(2)]
        for daemon in daemons:
            daemon.started()
        run_id, step_ids = _put_steps_that_need_no_chart(deployment)
        _publish_all(deployment, run_id, step_ids)
        _ended(daemons, len(step_ids))
        assert [daemon.terminate() for daemon in daemons] == [0, 0]
    charts, failures = _results(deployment, run_id, step_ids)
    assert deployment.cloud.chart_img.calls_per_key.as_dict() == {FIRST: 50, SECOND: 50}
    assert (charts, failures) == (100, ["CHART_API_LIMIT_EXCEEDED"] * 60)
    assert [_usage(deployment, name)["usageToday"] for name in ("first", "second")] == [50, 50]
    assert commits() <= 50
    assert all(daemon.named("step_completed") for daemon in daemons)


def test_a_daemon_killed_in_the_middle_overspends_nothing(deployment):
    """A killed daemon loses the calls it counted but did not make; the other spends the rest."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=0.1))
    with ExitStack() as running:
        victim, other = (
            running.enter_context(deployment.daemon(**TWO_OF_FIFTY, **SHORT_LEASE)) for _ in range(2)
        )
        for daemon in (victim, other):
            daemon.started()
        run_id, step_ids = deployment.put_run(steps=160 // CHARTS_A_STEP, charts=CHARTS_A_STEP)
        _publish_all(deployment, run_id, step_ids)
        assert deployment.cloud.chart_img.calls.wait_for("advanced-chart", 30, timeout_seconds=30)
        victim.kill()
        other.wait_until(lambda: _all_ended(deployment, run_id, step_ids), "all steps ended", SETTLED_SECONDS)
        assert other.terminate() == 0
    calls = deployment.cloud.chart_img.calls_per_key
    for name, key in (("first", FIRST), ("second", SECOND)):
        assert calls[key] <= _usage(deployment, name)["usageToday"] == 50
    # At most the killed daemon's calls in flight are lost.
    assert calls[FIRST] + calls[SECOND] >= 100 - MAX_UNDER_WAY


def _all_ended(deployment, run_id, step_ids):
    steps = deployment.run(run_id)["steps"]
    return all(steps[step_id]["status"] in ("SUCCEEDED", "FAILED") for step_id in step_ids)


def test_a_storm_of_faults_and_a_dead_key_fail_no_step(deployment):
    """Every kind of fault is survived, and a dead key is called once a process and never logged."""
    chart_img = deployment.cloud.chart_img
    chart_img.configure({FIRST: None})
    for fault in (
        {"answer": "server_error", "probability": 0.08},
        {"answer": "timeout", "probability": 0.05},
        {"answer": "too_many_requests", "probability": 0.08},
        {"reset": True, "probability": 0.04},
        {"answer": "truncated", "probability": 0.03},
    ):
        chart_img.faults.add(Fault(match=FIRST, **fault))
    accounts = _accounts(_account("dead", DEAD), _account("good", FIRST, dailyLimit=1000))
    with ExitStack() as running:
        daemons = [running.enter_context(deployment.daemon(**accounts)) for _ in range(2)]
        for daemon in daemons:
            daemon.started()
        # One of its two charts can meet only faults, six times in a row.
        run_id, step_ids = deployment.put_run(steps=40, charts=2)
        for step_id in step_ids:
            path = deployment.documents.field_path("steps", step_id, "inputs", "minImages")
            deployment.documents.document(f"flow_runs/{run_id}").update({path: 1})
        _publish_all(deployment, run_id, step_ids)
        _ended(daemons, len(step_ids))
        assert [daemon.terminate() for daemon in daemons] == [0, 0]
    assert [deployment.step(run_id, step_id)["status"] for step_id in step_ids] == ["SUCCEEDED"] * 40
    charts, failures = _results(deployment, run_id, step_ids)
    assert charts >= 79, failures
    busy = [daemon for daemon in daemons if daemon.named("step_completed")]
    assert chart_img.calls_per_key[DEAD] == len(busy)
    assert [line["accountId"] for daemon in busy for line in daemon.named("chart_api_key_refused")] == [
        "dead" for _ in busy
    ]
    assert [daemon.other_output for daemon in daemons] == [[], []]
    assert not [key for key in (FIRST, DEAD) if key in _output(daemons)]
    assert not [key for key in (FIRST, DEAD) if key in json.dumps(deployment.run(run_id))]
    # Failed calls that the account paid for are counted too.
    assert _usage(deployment, "good")["usageToday"] >= chart_img.charts_per_key[FIRST]


def test_the_charts_of_a_step_are_made_in_parallel(deployment):
    """A daemon with a proven key makes three calls of a step in parallel."""
    calls = threading.Barrier(3)
    with deployment.daemon(**_accounts(_account("first", FIRST))).started() as daemon:
        warm, (step_id,) = deployment.put_run(charts=1)
        deployment.publish_step(warm, step_id)
        daemon.wait_for_event("step_completed")
        deployment.cloud.chart_img.faults.add(Fault(before=lambda _request: calls.wait(30)))
        run_id, (step_id,) = deployment.put_run(charts=3)
        deployment.publish_step(run_id, step_id)
        _, line = daemon.wait_for_event("step_completed", count=2)
        assert daemon.terminate() == 0
    assert (line["status"], line["items"], calls.broken) == ("SUCCEEDED", 3, False)


def test_a_chart_that_was_stored_is_not_bought_again(deployment):
    """After a kill following two of three uploads the take-over makes and counts one call."""
    settings = {**_accounts(_account("first", FIRST)), **SHORT_LEASE, "REQUEST_CONCURRENCY": "1"}
    faults = deployment.cloud.chart_img.faults
    hang = faults.add(Fault(delay_seconds=600, skip=2, times=1))
    with deployment.daemon(**settings).started() as victim:
        run_id, (step_id,) = deployment.put_run(charts=3)
        deployment.publish_step(run_id, step_id)
        assert deployment.cloud.chart_img.calls.wait_for("advanced-chart", 3, timeout_seconds=30)
        assert faults.fired(hang) == 1
        assert len(deployment.object_names()) == 2
        victim.kill()
    assert _usage(deployment, "first")["usageToday"] == 3
    with deployment.daemon(**settings).started() as second:
        (line,) = second.wait_for_event("step_completed")
        assert second.terminate() == 0
    assert (line["attempt"], line["status"], line["items"]) == (2, "SUCCEEDED", 3)
    assert len(second.named("chart_api_call_finished")) == 1
    assert len(second.named("chart_reused")) == 2
    assert _usage(deployment, "first") == {"windowStart": _today(), "usageToday": 4}


def test_around_midnight_neither_day_is_overspent(deployment, server_time):
    """Around midnight, by Firestore's clock only, two daemons overspend neither day."""
    tried = []

    def note(request):
        for write in request.writes:
            fields = write.update.fields
            tried.append((fields["windowStart"].string_value, fields["usageToday"].integer_value))

    deployment.cloud.firestore.faults.add(Fault(method="Commit", match=USAGE, before=note))
    account = _account("first", FIRST, dailyLimit=30, ratePerSecond=5, burst=1)
    with ExitStack() as running:
        daemons = [running.enter_context(deployment.daemon(**_accounts(account))) for _ in range(2)]
        for daemon in daemons:
            daemon.started()
        run_id, step_ids = deployment.put_run(steps=14, charts=CHARTS_A_STEP)
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
        server_time.set(midnight - timedelta(seconds=60))
        _publish_all(deployment, run_id, step_ids)
        assert deployment.cloud.chart_img.calls.wait_for("advanced-chart", 15, timeout_seconds=30)
        server_time.set(midnight)
        _ended(daemons, len(step_ids))
        assert [daemon.terminate() for daemon in daemons] == [0, 0]
    before, after = ((midnight - timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z") for days in (1, 0))
    most = {window: max(count for stood, count in tried if stood == window) for window in (before, after)}
    assert {window for window, _ in tried} == {before, after}
    assert max(most.values()) <= 30
    assert _usage(deployment, "first") == {"windowStart": after, "usageToday": 30}
    # If the window had moved back, there would be more calls than the two days' counts.
    assert deployment.cloud.chart_img.calls_per_key[FIRST] <= most[before] + 30
    charts, failures = _results(deployment, run_id, step_ids)
    assert charts == deployment.cloud.chart_img.charts_per_key[FIRST]
    assert set(failures) <= {"CHART_API_LIMIT_EXCEEDED"}
