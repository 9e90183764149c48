"""The lists over all runs: steps, leases and runs, as lines and as JSON."""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from daemon.clients import firestore_client
from daemon.reports.steps import StepFilter, step_pages
from tests.support.function_calls import counted_calls
from tests.support.process.commands import run_command
from worker_chart_export.ledger.lease import LEASES

ERROR = {"code": "CHART_API_FAILED", "message": "Chart-IMG answered 500.", "details": {"httpStatus": 500}}


#: A fifth more than are made with four steps a run and a lease for every second one.
MAX_CALLS_A_STEP = 250


def _ago(**duration):
    return datetime.now(UTC) - timedelta(**duration)


def _text(moment):
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _put(deployment, *, created_at, steps, symbol="IBM", **run_fields):
    """Store a run with one step for each of `steps`; return its id and the steps' ids."""
    run_id, step_ids = deployment.put_run(steps=len(steps), symbol=symbol)
    document = deployment.run(run_id) | {"createdAt": created_at} | run_fields
    for step_id, fields in zip(step_ids, steps, strict=True):
        document["steps"][step_id] |= {"createdAt": created_at, **fields}
    deployment.documents.document(f"flow_runs/{run_id}").set(document)
    return run_id, step_ids


def _lease(deployment, run_id, step_id, *, owner="host-a:1:ab", left_seconds=60, started=None, **fields):
    started = started or _ago(minutes=40)
    lease = {
        "owner": owner,
        "token": "t",
        "attempt": 2,
        "released": 0,
        "startedAt": started,
        "acquiredAt": _ago(minutes=5),
        "expiresAt": datetime.now(UTC) + timedelta(seconds=left_seconds),
        "messageId": "m1",
    }
    deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").set(lease | fields)


def _listed(deployment, *arguments):
    done = run_command(*arguments, "--output", "json", environment=deployment.settings())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _ids(rows):
    return [(row["runId"], row["stepId"]) for row in rows]


class TestSteps:
    """`steps`."""

    def test_each_step_is_one_line_with_its_owner_code_and_reason(self, deployment):
        """The newest run comes first. A RUNNING step without a lease is shown as such."""
        failed = {"status": "FAILED", "finishedAt": _text(_ago(hours=3)), "error": ERROR}
        old = _put(deployment, created_at=_text(_ago(hours=4)), steps=[failed, {"status": "RUNNING"}])
        new = _put(deployment, created_at=_text(_ago(hours=1)), steps=[{}, {"status": "RUNNING"}])
        _lease(deployment, new[0], new[1][1])
        done = run_command("steps", environment=deployment.settings())
        title, *lines = done.stdout.splitlines()
        assert title.split() == ["RUN", "STEP", "STATUS", "AGE", "ATTEMPT", "OWNER", "CODE", "REASON"]
        found = [re.split(r"  +", line) for line in lines]
        assert [cells[:3] for cells in found] == [
            [new[0], new[1][0], "READY"],
            [new[0], new[1][1], "RUNNING"],
            [old[0], old[1][0], "FAILED"],
            [old[0], old[1][1], "RUNNING"],
        ]
        assert found[0][4:] == ["-", "-", "-", "waits for a worker to claim it"]
        assert found[1][4:6] == ["2", "host-a:1:ab"]
        assert found[2][4:] == ["-", "-", "CHART_API_FAILED", "Chart-IMG answered 500."]
        ages = ["1 h", "40 min", "3 h", "4 h"]
        assert all(cells[3].startswith(age) for cells, age in zip(found, ages, strict=True))
        assert "RUNNING without a lease" in found[3][-1]

    def test_json_has_the_names_of_the_contract(self, deployment):
        """An array of objects; what is not known is null."""
        run_id, (step_id,) = _put(
            deployment, created_at=_text(_ago(hours=1)), steps=[{"status": "RUNNING"}], status="RUNNING"
        )
        _lease(deployment, run_id, step_id)
        (row,) = _listed(deployment, "steps")
        assert set(row) == {
            *("runId", "stepId", "status", "runStatus", "symbol", "timeframe", "flowKey", "since"),
            *("ageSeconds", "startedAt", "finishedAt", "lease", "owner", "attempt", "released"),
            *("expiresAt", "error", "reason"),
        }
        assert (row["status"], row["lease"], row["owner"], row["attempt"]) == (
            "RUNNING",
            "live",
            "host-a:1:ab",
            2,
        )
        assert (row["error"], row["finishedAt"], row["symbol"]) == (None, None, "IBM")
        assert 2390 < row["ageSeconds"] < 2500

    def test_filters(self, deployment):
        """Status, code, symbol and both limits of the age."""
        failed = {"status": "FAILED", "finishedAt": _text(_ago(minutes=50)), "error": ERROR}
        other = {**failed, "error": {"code": "STEP_TIMEOUT", "message": "late"}}
        run_id, steps = _put(deployment, created_at=_text(_ago(hours=3)), steps=[failed, other, {}])
        apple, (its,) = _put(deployment, created_at=_ago(minutes=2), steps=[{}], symbol="AAPL")
        assert _ids(_listed(deployment, "steps", "--status", "failed,RUNNING")) == [
            (run_id, steps[0]),
            (run_id, steps[1]),
        ]
        assert _ids(_listed(deployment, "steps", "--code", "STEP_TIMEOUT")) == [(run_id, steps[1])]
        assert _ids(_listed(deployment, "steps", "--symbol", "AAPL")) == [(apple, its)]
        assert _ids(_listed(deployment, "steps", "--older-than", "2h")) == [(run_id, steps[2])]
        assert _ids(_listed(deployment, "steps", "--since", "60m", "--status", "FAILED")) == [
            (run_id, steps[0]),
            (run_id, steps[1]),
        ]
        assert (apple, its) in _ids(_listed(deployment, "steps", "--since", "10m")), (
            "createdAt is a timestamp"
        )
        assert len(_listed(deployment, "steps", "--limit", "3")) == 3
        assert _listed(deployment, "steps", "--symbol", "MSFT") == []

    def test_pages_are_read_one_after_the_other(self, deployment):
        """250 runs are three pages; each run is listed once, and --limit reads no page too many."""
        batch = deployment.documents.batch()
        run_id, (step_id,) = deployment.put_run()
        document = deployment.run(run_id)
        names = [f"{run_id}{number:03d}" for number in range(249)]
        for name in names:  # all of the same time: pages are told apart by the name
            batch.set(deployment.documents.document(f"flow_runs/{name}"), document)
        batch.commit()
        assert sorted(_ids(_listed(deployment, "steps"))) == sorted(
            (name, step_id) for name in [run_id, *names]
        )
        queries = deployment.cloud.firestore.calls.as_dict().get("RunQuery", 0)
        assert len(_listed(deployment, "steps", "--limit", "5")) == 5
        assert deployment.cloud.firestore.calls.as_dict().get("RunQuery", 0) - queries <= 1

    def test_what_a_list_costs(self, deployment):
        """A page of runs is one query and one read of leases, two are read ahead, and a step is cheap.

        The calls of Python functions per step are a measure of the time that does not depend on the machine.
        With them 10,000 steps take about a second.
        """
        self._put_pages(deployment, runs=310, steps=4)
        calls = deployment.cloud.firestore.calls
        with closing(firestore_client(deployment.project, "(default)")) as client:
            before = calls.as_dict()
            with counted_calls() as counted:
                pages = step_pages(client, StepFilter())
                sizes = [len(next(pages))]  # with the leases; those of later pages are read by another thread
            sizes.append(len(next(pages)))
            assert calls.as_dict()["RunQuery"] - before.get("RunQuery", 0) <= 4
            sizes += [len(page) for page in pages]
        assert sizes == [400, 400, 400, 40]
        made = {name: count - before.get(name, 0) for name, count in calls.as_dict().items()}
        assert (made["RunQuery"], made["BatchGetDocuments"]) == (4, 4)
        assert counted.calls < 400 * MAX_CALLS_A_STEP, counted.calls / 400

    def _put_pages(self, deployment, *, runs, steps):
        """Store runs with these steps, of which every second one is RUNNING with a lease."""
        run_id, names = deployment.put_run(steps=steps)
        document = deployment.run(run_id)
        for name in names[::2]:
            document["steps"][name]["status"] = "RUNNING"
        batch = deployment.documents.batch()
        for number in range(runs):
            path = f"flow_runs/{run_id}{number:03d}"
            batch.set(deployment.documents.document(path), document)
            for name in names[::2]:
                batch.set(deployment.documents.document(f"{path}/{LEASES}/{name}"), {"owner": "a:1:b"})
        deployment.documents.document(f"flow_runs/{run_id}").delete()
        batch.commit()

    def test_a_run_that_can_t_be_read_hides_no_other(self, deployment):
        """It is named on standard error."""
        bad, _ = _put(deployment, created_at=_text(_ago(hours=1)), steps=[{}], steps_of="none")
        deployment.documents.document(f"flow_runs/{bad}").update({"steps": "none"})
        run_id, (step_id,) = _put(deployment, created_at=_text(_ago(hours=2)), steps=[{}])
        done = run_command("steps", "--output", "json", environment=deployment.settings())
        assert done.returncode == 0
        assert _ids(json.loads(done.stdout)) == [(run_id, step_id)]
        assert f"warning: run {bad} can't be read" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--status", "RUNING"], "'RUNING'"),
            (["--older-than", "30"], "90s, 30m, 24h or 7d"),
            (["--code", "NO"], "--code"),
            (["--limit", "0"], "--limit"),
        ],
    )
    def test_wrong_arguments_are_exit_2(self, arguments, named):
        """The error names what is wrong."""
        done = run_command("steps", *arguments, environment={"GOOGLE_CLOUD_PROJECT": "p"})
        assert done.returncode == 2
        assert named in done.stderr


class TestLeases:
    """`leases`."""

    def test_the_first_to_end_comes_first(self, deployment):
        """Expired, valid, released and left-over leases, with filters by owner and end."""
        run_id, steps = _put(
            deployment,
            created_at=_text(_ago(hours=1)),
            steps=[{"status": "RUNNING"}, {"status": "RUNNING"}, {"status": "RUNNING"}, {}],
        )
        _lease(deployment, run_id, steps[0], owner="host-b:2:cd", left_seconds=90)
        _lease(deployment, run_id, steps[1], left_seconds=-30)
        _lease(deployment, run_id, steps[2], left_seconds=-60, token="", releasedBy="ann@desk")
        _lease(deployment, run_id, steps[3], left_seconds=200)
        rows = _listed(deployment, "leases")
        assert [(row["stepId"], row["lease"]) for row in rows] == [
            (steps[2], "released"),
            (steps[1], "over"),
            (steps[0], "live"),
            (steps[3], "left_over"),
        ]
        assert "token" not in rows[0]
        assert rows[0]["releasedBy"] == "ann@desk"
        assert (rows[2]["owner"], rows[2]["status"], rows[2]["messageId"]) == ("host-b:2:cd", "RUNNING", "m1")
        assert [row["stepId"] for row in _listed(deployment, "leases", "--expired")] == [steps[2], steps[1]]
        assert [row["stepId"] for row in _listed(deployment, "leases", "--owner", "host-b")] == [steps[0]]
        assert _listed(deployment, "leases", "--owner", "host") == []
        lines = run_command("leases", environment=deployment.settings()).stdout.splitlines()
        assert "released by ann@desk" in lines[1]
        assert "has no effect: the step is READY" in lines[4]


def test_runs_are_listed_with_the_number_of_steps_in_each_status(deployment):
    """Newest first, with filters by status, symbol and age."""
    old, _ = _put(deployment, created_at=_text(_ago(hours=5)), steps=[{"status": "SUCCEEDED"}, {}])
    new, _ = _put(
        deployment, created_at=_text(_ago(minutes=5)), steps=[{}, {}], symbol="AAPL", status="FAILED"
    )
    rows = _listed(deployment, "runs")
    assert [(row["runId"], row["chartSteps"]) for row in rows] == [
        (new, {"READY": 2}),
        (old, {"SUCCEEDED": 1, "READY": 1}),
    ]
    for filters in (["--status", "FAILED"], ["--symbol", "AAPL"], ["--since", "1h"]):
        assert [row["runId"] for row in _listed(deployment, "runs", *filters)] == [new]
    lines = run_command("runs", environment=deployment.settings()).stdout.splitlines()
    assert lines[2].endswith("1 READY, 1 SUCCEEDED")


@pytest.mark.official
def test_lists_on_the_official_emulators(official_deployment):
    """The queries, their pages and their masks are those of Firestore."""
    deployment = official_deployment
    failed = {"status": "FAILED", "finishedAt": _text(_ago(minutes=50)), "error": ERROR}
    run_id, steps = _put(
        deployment, created_at=_text(_ago(hours=1)), steps=[failed, {"status": "RUNNING"}, {}]
    )
    _lease(deployment, run_id, steps[1], left_seconds=-5)
    assert [row["status"] for row in _listed(deployment, "steps", "--since", "2h")] == [
        "FAILED",
        "RUNNING",
        "READY",
    ]
    assert [row["stepId"] for row in _listed(deployment, "leases", "--expired")] == [steps[1]]
    assert [row["runId"] for row in _listed(deployment, "runs", "--since", "2h")] == [run_id]
