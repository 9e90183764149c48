"""Drills of an operator, done as docs/operations.md says and by commands alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from localcloud.faults import Fault
from tests.support.cloud.resources import asked
from tests.support.process.commands import run_command
from tests.support.process.waiting_daemon import WAITING
from worker_chart_export.ledger.lease import LEASES

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
FAST = {"ratePerSecond": 1000, "burst": 1000}
OLD_KEY, NEW_KEY = "old-key-that-must-never-be-seen", "new-key-that-must-never-be-seen"
CHARTS = 2


class Operator:
    """Someone who runs the commands of the page, with the worker's settings."""

    def __init__(self, deployment, **settings):
        self._settings = deployment.settings(**settings)

    def run(self, command, *more, code=0, **names):
        """Run a command that the page names, with more arguments.

        Args:
            command: As it is on the page.
            more: More arguments.
            code: The exit code that it must have.
            names: What stands for a name like `RUN_ID`.

        Returns:
            Its standard output.
        """
        assert f"worker-chart-export {command}" in PAGE, "the page does not name this command"
        arguments = [names.get(word, word) for word in command.split()]
        done = run_command(*arguments, *more, environment=self._settings)
        assert done.returncode == code, done.stdout + done.stderr
        line = f"$ worker-chart-export {' '.join([*arguments, *more])}"
        print(line, done.stdout, done.stderr, sep="\n")  # noqa: T201 - shown with -s, for a person
        return done.stdout

    def rows(self, command):
        """Run a list of the page for a person, then for a script. Return the objects."""
        self.run(command)
        return json.loads(self.run(command, "--output", "json"))


def _accounts(tmp_path, key, **account):
    """Write the accounts file that the settings name."""
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps([{"id": "main", "apiKey": key, **FAST, **account}]))
    return {"CHART_IMG_ACCOUNTS_JSON": None, "CHART_IMG_ACCOUNTS_FILE": str(file)}


def _paid(deployment):
    return sum(deployment.cloud.chart_img.charts_per_key.as_dict().values())


def _charts(deployment):
    """Return the generation of each PNG."""
    blobs = deployment.objects.list_blobs(deployment.bucket)
    return {blob.name: blob.generation for blob in blobs if blob.name.endswith(".png")}


def _statuses(deployment, run_id):
    steps = deployment.run(run_id)["steps"].values()
    return {step["status"] for step in steps if step["stepType"] == "CHART_EXPORT"}


def test_find_every_stuck_step(each_deployment):
    """One command shows those that wait for a message, whose worker died, froze, or keeps no lease."""
    deployment = each_deployment
    old = f"{datetime.now(UTC) - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    run_id, steps = deployment.put_run(steps=6, createdAt=old)
    no_message, unleased, dead, frozen, done, fresh = steps
    document = deployment.run(run_id)
    document["createdAt"] = old
    for step_id in (unleased, dead, frozen):
        document["steps"][step_id]["status"] = "RUNNING"
    document["steps"][done] |= {"status": "SUCCEEDED", "finishedAt": old}
    document["steps"][fresh]["createdAt"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    deployment.documents.document(f"flow_runs/{run_id}").set(document)
    now = datetime.now(UTC)
    lease = {"owner": "vm-7:12:ab", "token": "t", "attempt": 1, "released": 0, "messageId": "1"}
    times = {"startedAt": now - timedelta(hours=1), "acquiredAt": now - timedelta(hours=1)}
    for step_id, left in ((dead, timedelta(minutes=-20)), (frozen, timedelta(minutes=2))):
        path = f"flow_runs/{run_id}/{LEASES}/{step_id}"
        deployment.documents.document(path).set({**lease, **times, "expiresAt": now + left})
    operator = Operator(deployment)
    found = {row["stepId"]: row for row in operator.rows("steps --status RUNNING,READY --older-than 30m")}
    assert {step_id: (row["lease"], row["owner"]) for step_id, row in found.items()} == {
        no_message: ("none", None),
        unleased: ("unleased", None),
        dead: ("over", "vm-7:12:ab"),
        frozen: ("live", "vm-7:12:ab"),
    }
    assert "no daemon has taken it over" in found[dead]["reason"]
    assert [row["stepId"] for row in operator.rows("leases --expired")] == [dead]
    assert operator.rows("workers") == []


def test_retry_fifty_failed_steps(each_deployment):
    """One command. The stored charts stay as they are, and each missing one costs one call."""
    deployment = each_deployment
    runs = [deployment.put_run(steps=25, charts=CHARTS, symbol=symbol) for symbol in ("IBM", "AAPL")]
    for number in range(50):  # every second call fails
        deployment.cloud.chart_img.faults.add(Fault(answer="invalid_symbol", skip=number + 1, times=1))
    operator = Operator(deployment)
    with deployment.daemon(REQUEST_CONCURRENCY="1", WORKER_CONCURRENCY="1").started() as daemon:
        for run_id, step_ids in runs:
            for step_id in step_ids:
                deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed", count=50, timeout_seconds=90)
        failed = operator.rows("steps --status FAILED --since 24h")
        assert (len(failed), {row["error"]["code"] for row in failed}) == (50, {"CHART_API_FAILED"})
        assert _paid(deployment) == 50
        stored = _charts(deployment)
        run_id, step_id = failed[0]["runId"], failed[0]["stepId"]
        operator.run("retry RUN_ID STEP_ID --keep-charts", RUN_ID=run_id, STEP_ID=step_id)
        operator.run("status RUN_ID --watch", RUN_ID=run_id, code=1)  # the others of the run are FAILED
        assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
        operator.run("retry --failed --code CHART_API_FAILED --since 24h --keep-charts", "--yes")
        daemon.wait_for_event("step_completed", count=100, timeout_seconds=90)
        assert daemon.terminate() == 0
    assert [_statuses(deployment, run_id) for run_id, _ in runs] == [{"SUCCEEDED"}] * 2
    assert _paid(deployment) == 50 * CHARTS
    assert stored.items() <= _charts(deployment).items()


def test_raise_a_quota(each_deployment, tmp_path):
    """The failed steps name the used-up account. With a higher limit they are retried."""
    deployment = each_deployment
    settings = _accounts(tmp_path, OLD_KEY, dailyLimit=3)
    deployment.cloud.chart_img.configure({OLD_KEY: None})
    operator = Operator(deployment, **settings)
    run_id, step_ids = deployment.put_run(steps=4, charts=CHARTS)
    with deployment.daemon(module=WAITING, **settings).started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed", count=4, timeout_seconds=60)
        failed = operator.rows("steps --status FAILED --since 24h")
        assert {row["error"]["code"] for row in failed} == {"CHART_API_LIMIT_EXCEEDED"}
        (account,) = operator.rows("accounts")
        assert (account["id"], account["usageToday"], account["dailyLimit"], account["left"]) == (
            "main",
            3,
            3,
            0,
        )
        operator.run("accounts limit ID N", ID="main", N="100")
        assert operator.rows("accounts")[0]["left"] == 97
        accounts = lambda: asked(daemon, "state.json").json()["accounts"]  # noqa: E731
        daemon.wait_until(lambda: accounts()[0]["secondsUntilTried"] == 0, "the next look at the limit", 20)
        operator.run("retry --failed --code CHART_API_LIMIT_EXCEEDED --since 24h --keep-charts", "--yes")
        daemon.wait_until(lambda: _statuses(deployment, run_id) == {"SUCCEEDED"}, "all steps", 60)
        assert daemon.terminate() == 0
    assert _paid(deployment) == 4 * CHARTS


def test_rotate_a_key(each_deployment, tmp_path):
    """The new key is tried, then the old one ends at Chart-IMG. The daemon uses the new one by itself."""
    deployment = each_deployment
    settings = _accounts(tmp_path, OLD_KEY)
    deployment.cloud.chart_img.configure({OLD_KEY: None, NEW_KEY: None})
    operator = Operator(deployment, **settings)
    run_id, step_ids = deployment.put_run(steps=2, charts=1)
    with deployment.daemon(module=WAITING, **settings, CHARTS_WHEN_EXHAUSTED="wait").started() as daemon:
        deployment.publish_step(run_id, step_ids[0])
        daemon.wait_for_event("step_completed")
        _accounts(tmp_path, NEW_KEY)
        assert "chart" in operator.run("accounts test ID", "--yes", ID="main")
        deployment.cloud.chart_img.configure({NEW_KEY: None})  # the old one is refused from now on
        deployment.publish_step(run_id, step_ids[1])
        daemon.wait_until(lambda: _statuses(deployment, run_id) == {"SUCCEEDED"}, "both steps", 60)
        assert daemon.terminate() == 0
    assert daemon.named("chart_api_key_replaced")
    assert deployment.cloud.chart_img.charts_per_key.as_dict() == {OLD_KEY: 1, NEW_KEY: 2}


def test_read_the_history_after_a_restart(each_deployment):
    """The page of a new daemon shows the finished steps of all runs, read from Firestore when asked."""
    error = {"code": "CHART_API_FAILED", "message": "Chart-IMG answered 500."}
    end = {"finishedAt": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    failed, (failed_step,) = each_deployment.put_run(status="FAILED", error=error, **end)
    each_deployment.put_run(symbol="AAPL", status="SUCCEEDED", **end)
    with each_deployment.daemon().started() as daemon:
        everything = asked(daemon, "history.json").json()["steps"]
        (row,) = asked(daemon, "history.json?result=FAILED&symbol=IBM").json()["steps"]
        assert daemon.terminate() == 0
    assert {each["status"] for each in everything} == {"FAILED", "SUCCEEDED"}
    assert (row["runId"], row["stepId"]) == (failed, failed_step)
