"""The facts of `status` about a run: collected, as text, as lines and as JSON."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from daemon.cli.status.terminal import FullView, LiveView
from daemon.cli.status.to_json import report_json
from daemon.cli.status.to_text import changed_lines
from daemon.reports.assemble import reading_order, run_report
from daemon.reports.document_size import document_size
from daemon.reports.report import MAX_DOCUMENT_BYTES, Hold
from tests.support.fakes import BUCKET
from tests.support.run_reports import (
    NOW,
    OWNER,
    RUN_ID,
    STEP_ID,
    URI,
    alone,
    chart_step,
    lease,
    lines,
    live_on_terminal,
    manifest,
    report,
    squeezed,
    words_on_terminal,
)
from worker_chart_export.inputs.flow_run import FlowRun


def test_steps_come_right_after_what_they_depend_on():
    """Steps come right after their dependencies, otherwise by id."""
    order = reading_order(
        {"a:report": ["c:1d", "c:1h"], "c:1h": ["o:1h"], "c:1d": ["o:1d"], "o:1d": [], "o:1h": []}
    )
    assert order == ["o:1d", "c:1d", "o:1h", "c:1h", "a:report"]


def test_a_run_whose_results_do_not_fit_into_its_document_is_shown_as_such():
    """The size is counted as Firestore documents it; a result of each open step is added."""
    small = report({STEP_ID: chart_step("READY")})
    done = report({STEP_ID: chart_step("SUCCEEDED")})
    assert done.document.now == done.document.finished
    assert small.document.finished - small.document.now > 2 * len(STEP_ID + RUN_ID)
    assert "run document" not in lines(small)

    steps = {f"{STEP_ID}:{number:05}": chart_step("READY") for number in range(300)}
    large = report(steps, notes="n" * (MAX_DOCUMENT_BYTES - 100_000))
    size = large.document
    assert size.now < MAX_DOCUMENT_BYTES < size.finished
    warning = "no room for the results of all steps"
    for shown in (lines(large), words_on_terminal(FullView(large)), live_on_terminal(LiveView(large))):
        assert squeezed(warning) in squeezed(shown)
    assert json.loads(report_json(large))["documentBytesFinished"] == size.finished


def test_a_document_has_the_size_that_firestore_documents():
    """The four fields of the example there take 71 bytes."""
    task = {"type": "Personal", "done": False, "priority": 1, "description": "Learn Cloud Firestore"}
    size = document_size(FlowRun.parse("my_task_id", {**task, "steps": {}}), BUCKET)
    name, steps = len("flow_runs_my_task_id_") + 16, len("steps_") + 32
    assert size.now == size.finished == name + 71 + steps + 32


def test_steps_in_a_circle_or_a_long_chain_are_all_there():
    """Steps in a circle or a very long chain are all shown."""
    assert sorted(reading_order({"a": ["b"], "b": ["a", "gone"], "c": ["c"]})) == ["a", "b", "c"]
    chain = {f"{number:05}": [f"{number + 1:05}"] for number in range(5000)}
    assert reading_order(chain) == sorted(chain, reverse=True)


@pytest.mark.parametrize(
    ("held", "hold", "expected"),
    [
        (
            lease(),
            Hold.LIVE,
            f"held by {OWNER} for 1 min 5 s, attempt 1; the lease expires in 1 min 35 s unless",
        ),
        (lease(attempt=3, released=1), Hold.LIVE, "attempt 3 (1 released)"),
        (lease(owner="unknown"), Hold.LIVE, "a worker that uses no lease; may be taken over in 1 min 35 s"),
        (lease(expires_at=NOW - timedelta(seconds=9)), Hold.EXPIRED, "within about a minute"),
        (
            lease(expires_at=NOW - timedelta(hours=1)),
            Hold.EXPIRED,
            "no daemon has taken it over. Check",
        ),
        (
            lease(token="", released=1),
            Hold.RELEASED,
            "released); may be taken over in 1 min 35 s",
        ),
        (
            lease(token="", released=1, expires_at=NOW - timedelta(seconds=1)),
            Hold.RELEASED,
            "attempt 1 (1 released); the rescue of a running daemon",
        ),
        (None, Hold.UNLEASED, f"worker-chart-export publish {RUN_ID} {STEP_ID}"),
    ],
    ids=["live", "again", "unknown", "over", "long over", "released later", "released", "unleased"],
)
def test_the_owner_of_a_running_step_is_shown(held, hold, expected):
    """A RUNNING step shows its owner and what happens next, by the server's clock."""
    shown = alone(chart_step("RUNNING"), held)
    assert shown.steps[0].holding.hold is hold
    assert expected in lines(shown)
    assert squeezed(expected) in squeezed(words_on_terminal(FullView(shown)))
    assert expected in json.loads(report_json(shown))["steps"][0]["situation"]


def test_the_time_since_a_lease_expired_is_in_its_row():
    """The row of an expired lease shows since when, in one unit."""
    over = lease(expires_at=NOW - timedelta(hours=1, minutes=5))
    shown = alone(chart_step("RUNNING"), over)
    assert "lease expired 1 h ago" in lines(shown)
    assert "expired 1 h ago" in words_on_terminal(FullView(shown), width=160)


def test_a_step_of_another_kind_needs_no_lease():
    """A step of another type needs no lease."""
    shown = report({"ohlcv": {"stepType": "OHLCV_EXPORT", "status": "RUNNING"}})
    assert shown.steps[0].holding.hold is Hold.NONE
    assert "not held" not in lines(shown)


@pytest.mark.parametrize("status", ["READY", "SUCCEEDED"])
def test_a_lease_left_over_is_named_and_counts_for_nothing(status):
    """A lease of a step that is not RUNNING is named and does not count."""
    shown = alone(chart_step(status), lease())
    assert shown.steps[0].holding.hold is Hold.LEFT_OVER
    assert f"a lease of {OWNER} is left over and has no effect" in lines(shown)
    assert ("waits for a worker" in lines(shown)) == (status == "READY")


def test_a_waiting_step_shows_what_it_waits_for():
    """A waiting step shows what it waits for: dependencies, a worker, the orchestrator, or nothing."""
    steps = {
        "ohlcv": {"stepType": "OHLCV_EXPORT", "status": "RUNNING"},
        "first": chart_step("PENDING", dependsOn=["ohlcv", "gone"]),
        "second": chart_step("READY"),
        "third": chart_step("PENDING"),
    }
    text = lines(report(steps))
    assert "waits for ohlcv (RUNNING), gone (missing)" in text
    assert "waits for a worker to claim it" in text
    assert "waits for the orchestrator" in text
    over = report(steps, status="CANCELLED")
    assert lines(over).count("will not be exported: the run is CANCELLED") == 3
    assert over.is_finished


@pytest.mark.parametrize(
    ("step", "found", "count"),
    [
        (chart_step("READY"), {}, "0/2"),
        (chart_step("RUNNING"), {"stored": 1}, "1/2"),
        (chart_step("RUNNING"), {"problem": "set CHARTS_BUCKET"}, "?/2"),
        (chart_step("SUCCEEDED", outputs={"gcs_uri": URI}), {"manifest": manifest()}, "1/2"),
        (chart_step("SUCCEEDED", outputs={"gcs_uri": URI}), {"problem": "refused"}, "?/2"),
        (chart_step("FAILED", error={"code": "VALIDATION_FAILED", "message": "No."}), {}, "0/2"),
        (chart_step("READY", inputs={"requests": "all"}), {}, "0/?"),
        (chart_step("READY", inputs=None), {}, "0/?"),
    ],
)
def test_charts_are_counted_or_unknown(step, found, count):
    """Stored and requested charts are counted, or shown as unknown."""
    shown = alone(step, **found)
    assert f"charts {count}" in lines(shown)
    assert count in words_on_terminal(FullView(shown))
    if "problem" in found:
        assert f"charts not known: {found['problem']}" in lines(shown)


def test_a_failed_step_shows_its_errors_and_its_manifest():
    """A failed step shows its error, the error of each chart, the times and all objects."""
    error = {
        "code": "CHART_API_LIMIT_EXCEEDED",
        "message": "All accounts are used up.",
        "details": {"accounts": ["first"], "manifestGcsUri": URI},
    }
    shown = alone(chart_step("FAILED", error=error, finishedAt="2025-12-15T10:29:05.5Z"), manifest=manifest())
    text = lines(shown)
    assert 'error CHART_API_LIMIT_EXCEEDED: All accounts are used up. {"accounts": ["first"]}' in text
    assert 'failed ctpl_b CHART_API_FAILED: It answered 500. {"http": 500}' in text
    assert "started 2025-12-15 10:28:00 UTC, finished 2025-12-15 10:29:05 UTC, took 1 min 5 s" in text
    assert f"manifest {URI}" in text
    assert f"chart ctpl_a gs://{BUCKET}/ctpl_a.png" in text
    assert shown.has_failed
    (step,) = json.loads(report_json(shown))["steps"]
    assert step["manifest"] == URI
    assert step["charts"]["stored"] == {"ctpl_a": f"gs://{BUCKET}/ctpl_a.png"}
    assert step["charts"]["failures"]["ctpl_b"]["code"] == "CHART_API_FAILED"
    assert step["tookSeconds"] == 65.5


@pytest.mark.parametrize(
    "raw",
    [None, "text", {}, chart_step(7), chart_step(["X"]), chart_step({"X": 1}), chart_step(dependsOn="a")],
)
def test_a_broken_step_is_shown_with_the_reason_and_hides_no_other(raw):
    """A broken step is shown with the reason, and the other steps are shown too."""
    text = lines(report({"bad": raw, "good": chart_step("SUCCEEDED")}))
    assert "can't be read: steps.bad" in text
    assert "step good  CHART_EXPORT 1d  SUCCEEDED" in text


@pytest.mark.parametrize(
    ("statuses", "settled", "failed"),
    [
        (["SUCCEEDED", "SKIPPED"], True, False),
        (["SUCCEEDED", "FAILED"], True, True),
        (["RUNNING", "FAILED"], False, True),
        (["READY"], False, False),
        ([], True, False),
        (["NONSENSE"], True, True),
    ],
)
def test_a_run_is_finished_once_all_its_chart_steps_are_final(statuses, settled, failed):
    """A run is finished when all its chart steps are final; other steps do not count."""
    steps = {f"s{number}": chart_step(status) for number, status in enumerate(statuses)}
    shown = report({**steps, "report": {"stepType": "REPORT", "status": "FAILED"}})
    assert (shown.is_finished, shown.has_failed) == (settled, failed)


def test_changes_are_reported_once():
    """A change is reported once; a change of elapsed time alone is none."""
    first = alone(chart_step("READY"))
    assert len(list(changed_lines(None, first))) == 2
    running = alone(chart_step("RUNNING"), lease())
    (line,) = changed_lines(first, running)
    assert (
        line
        == f"10:30:00 step {STEP_ID}  CHART_EXPORT 1d  RUNNING  charts ?/2  attempt 1  lease live ({OWNER})"
    )
    older = alone(chart_step("RUNNING"), lease(expires_at=NOW + timedelta(seconds=94)))
    assert list(changed_lines(running, older)) == []


def test_a_lease_from_the_future_is_shown_as_wrong():
    """A lease that starts in the future is shown as wrong and without a length."""
    text = lines(alone(chart_step("RUNNING"), lease(acquired_at=NOW + timedelta(minutes=5))))
    assert f"held by {OWNER} since a future time (a clock was wrong), attempt 1;" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "it is taken over UNLEASED_GRACE_SECONDS later"),
        (600, "it is taken over UNLEASED_GRACE_SECONDS (600) later"),
        (0, "UNLEASED_GRACE_SECONDS (0) forbids a take-over"),
    ],
)
def test_the_grace_period_of_a_step_without_a_lease_is_shown_if_it_is_known(seconds, text):
    """The grace period is shown only if it is set, because the daemon may have another value."""
    run = FlowRun.parse(RUN_ID, {"status": "RUNNING", "steps": {STEP_ID: chart_step("RUNNING")}})
    shown = run_report(run, {}, {}, read_at=NOW, unleased_grace_seconds=seconds)
    assert text in lines(shown)
    assert "3600" not in lines(shown)


def signed_manifest():
    """Return a manifest whose first item says who wrote it."""
    signed = manifest()
    signed["items"][0]["meta"] = {"provider": "local", "attempt": 2, "owner": OWNER}
    return signed


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"status": "SUCCEEDED", "outputs": {"gcs_uri": URI}}, {"manifest": signed_manifest()}),
        ({"status": "FAILED", "error": {"code": "C", "details": {"attempt": 2, "owner": OWNER}}}, {}),
        (
            {
                "status": "FAILED",
                "error": {"code": "CRASH_LOOP", "details": {"attempt": 2, "lastOwner": OWNER}},
            },
            {},
        ),
    ],
    ids=["manifest", "error", "crash loop"],
)
def test_a_finished_step_keeps_its_attempt_and_its_worker(fields, found):
    """They come from the manifest or from the error, because the lease is gone; in text, table and JSON."""
    shown = alone(chart_step(**fields), **found)
    assert "  attempt 2" in lines(shown)
    assert f"\n  worker {OWNER}" in lines(shown)
    assert OWNER in words_on_terminal(FullView(shown))
    step = json.loads(report_json(shown))["steps"][0]
    assert (step["attempt"], step["owner"]) == (2, OWNER)
    assert step["lease"]["owner"] is None


@pytest.mark.parametrize("details", [{}, {"attempt": "2", "owner": 7}, {"attempt": None}])
def test_a_finished_step_whose_results_do_not_say_it_shows_neither(details):
    """Results of other workers have no attempt and no owner, or other values."""
    shown = alone(chart_step("FAILED", error={"code": "C", "details": details}))
    step = json.loads(report_json(shown))["steps"][0]
    assert (step["attempt"], step["owner"]) == (None, None)
    assert "worker" not in lines(shown)
