"""The command `status` on the embedded cloud: settings, output, exit code."""

from __future__ import annotations

import json

import pytest

from localcloud.faults import Fault
from tests.support.process.in_process_commands import run_here
from tests.support.run_reports import RUN_ID, STEP_ID, chart_step


@pytest.fixture
def needed(cloud):
    """Return the addresses of Firestore and Storage and the project."""
    names = ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
    return {name: cloud.environment()[name] for name in names}


def put(documents, *steps):
    """Store a run with these steps."""
    named = {STEP_ID if number == 0 else f"{STEP_ID}{number}": step for number, step in enumerate(steps)}
    documents.document(f"flow_runs/{RUN_ID}").set({"status": "RUNNING", "steps": named})


@pytest.mark.parametrize("options", [[], ["--watch"]], ids=["once", "watched"])
def test_a_failed_chart_step_is_exit_1(documents, needed, options):
    """A failed chart step gives exit code 1; other steps do not count."""
    error = {"code": "RENDER_FAILED", "message": "No [red]way[/]."}
    put(documents, chart_step("FAILED", error=error), {"stepType": "REPORT", "status": "READY"})
    done = run_here("status", RUN_ID, *options, environment=needed)
    assert done.returncode == 1
    assert "error RENDER_FAILED: No [red]way[/]." in done.stdout


@pytest.mark.parametrize("options", [[], ["--watch"]], ids=["once", "watched"])
def test_a_run_is_shown_as_json(documents, needed, options):
    """`--output json` prints the facts in one line."""
    put(documents, chart_step("SKIPPED"))
    done = run_here("status", RUN_ID, "--output", "json", *options, environment=needed)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["steps"][0]["status"] == "SKIPPED"


def test_a_run_with_an_unreadable_step_is_shown(documents, needed):
    """A run with an unreadable step is shown, and that step counts as failed."""
    put(documents, chart_step({"X": 1}), chart_step("SUCCEEDED", finishedAt="0001-01-01T00:00:00+05:00"))
    done = run_here("status", RUN_ID, environment=needed)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"can't be read: steps.{STEP_ID}.status" in done.stdout
    assert "finishedAt is no time" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [(["no-such-run"], 1, "there is no such run"), (["a/b"], 2, "runId")],
)
@pytest.mark.parametrize("options", [[], ["--watch"]], ids=["once", "watched"])
def test_a_missing_run_and_a_bad_id_have_exit_codes(needed, arguments, options, code, text):
    """A missing run gives exit code 1, an invalid id 2."""
    done = run_here("status", *arguments, *options, environment=needed)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_run_without_a_map_of_steps_is_exit_1(documents, needed):
    """A run without a map of steps gives exit code 1."""
    documents.document(f"flow_runs/{RUN_ID}").set({"steps": 7})
    done = run_here("status", RUN_ID, environment=needed)
    assert done.returncode == 1
    assert "error: the run can't be read: steps" in done.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"GOOGLE_CLOUD_PROJECT": ""}, ["GOOGLE_CLOUD_PROJECT"]),
        ({"CHARTS_BUCKET": "charts"}, ["CHARTS_BUCKET"]),
        ({"GOOGLE_CLOUD_PROJECT": "", "CHARTS_BUCKET": "charts"}, ["GOOGLE_CLOUD_PROJECT", "CHARTS_BUCKET"]),
    ],
    ids=["project", "bucket", "both"],
)
def test_all_wrong_settings_are_named_at_once(needed, change, named):
    """All wrong settings are reported in a line each with exit code 2; the bucket only where it is set."""
    done = run_here("status", RUN_ID, environment={**needed, **change})
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == sorted(named)


def test_a_firestore_that_refuses_is_exit_3(cloud, needed):
    """A Firestore that refuses gives exit code 3."""
    cloud.firestore.faults.add(Fault(method="RunQuery", error="PERMISSION_DENIED"))
    done = run_here("status", RUN_ID, environment=needed)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(("value", "shown"), [("", "SECONDS later"), ("600", "SECONDS (600) later")])
def test_the_grace_period_of_the_environment_is_shown(documents, needed, value, shown):
    """The grace period of the environment is shown for a RUNNING step without a lease."""
    put(documents, chart_step("RUNNING"))
    done = run_here("status", RUN_ID, environment={**needed, "UNLEASED_GRACE_SECONDS": value})
    assert done.returncode == 0
    assert f"it is taken over UNLEASED_GRACE_{shown}" in done.stdout
