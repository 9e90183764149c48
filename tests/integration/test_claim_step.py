"""`claim_step` on real Firestore servers: one winner, results, take-overs, lost leases, heartbeats."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.support.ledger.ledger_process import StoredRun, until
from tests.support.ledger.samples import ERROR
from worker_chart_export.orchestration import LeaseLost, LeaseTerms, StepNotClaimed, claim_step

REPORT = "llm_report_1d_summary_v1"
URI = "gs://reports/r.json"
BRISK = LeaseTerms(lease_seconds=60, heartbeat_seconds=0.05)


@pytest.fixture
def run(deployment):
    """Return a run with a READY step of another type, which depends on the candles."""
    run_id, (chart_id,) = deployment.put_run()
    step = deployment.step(run_id, chart_id) | {
        "stepType": "LLM_REPORT",
        "inputs": {"llm": {"promptId": "p"}, "chartsManifestStepId": chart_id},
    }
    path = deployment.documents.field_path("steps", REPORT)
    deployment.documents.document(f"flow_runs/{run_id}").update({path: step})
    return StoredRun(deployment.documents, run_id)


@pytest.fixture
def claim(deployment, run):
    """Return `claim_step` for that step."""

    def claim(**more):
        return claim_step(deployment.documents, run.run_id, REPORT, **{"step_type": "LLM_REPORT"} | more)

    return claim


def test_a_step_of_another_type_is_claimed_worked_on_and_finalized(run, claim):
    """The body has what the step and the steps before it hold; the result has that type's output."""
    before = run.step(REPORT)
    with claim(owner="reports-1", message_id="m") as step:
        lease = run.lease(REPORT)
        assert (lease["owner"], lease["messageId"], lease["attempt"]) == ("reports-1", "m", 1)
        assert lease["expiresAt"] - lease["acquiredAt"] == timedelta(seconds=120)
        assert run.step(REPORT) == before | {"status": "RUNNING"}
        assert (step.step_type, step.attempt, step.started_at) == ("LLM_REPORT", 1, lease["startedAt"])
        assert step.inputs["llm"] == {"promptId": "p"}
        assert step.outputs_of(before["dependsOn"][0])["gcs_uri"].startswith("gs://")
        assert step.run["scope"] == {"symbol": "IBM"}
        step.check()
        step.succeed(URI, outputs={"execution": {"tokens": 12}})
        assert step.result == "SUCCEEDED"
    after = run.step(REPORT)
    assert after.pop("finishedAt").endswith("Z")
    outputs = {"gcs_uri": URI, "execution": {"tokens": 12}}
    assert after == before | {"status": "SUCCEEDED", "outputs": outputs}
    assert run.lease(REPORT) is None


def test_a_failure_is_written_with_its_error(run, claim):
    """`fail` is a result: the block ends without an exception, and nobody tries again."""
    with claim() as step:
        step.fail(ERROR)
    after = run.step(REPORT)
    assert (after["status"], after["error"]) == ("FAILED", ERROR.to_dict())
    with pytest.raises(StepNotClaimed) as refusal, claim():
        pass
    assert (refusal.value.reason, refusal.value.status) == ("step_final", "FAILED")
    assert refusal.value.retry_after_seconds is None


def test_of_many_workers_one_wins(run, claim):
    """The bodies of the others don't run. They are told when the winner's lease can be over."""
    start, entered, refused = threading.Barrier(6), [], []
    all_refused = threading.Event()

    def work(number):
        start.wait(10)
        try:
            with claim(owner=f"worker-{number}") as step:
                entered.append(number)
                assert all_refused.wait(20)
                step.succeed(URI)
        except StepNotClaimed as refusal:
            refused.append((refusal.reason, refusal.status, 100 < refusal.retry_after_seconds <= 125))
            if len(refused) == 5:
                all_refused.set()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert len(entered) == 1
    assert refused == [("step_running", "RUNNING", True)] * 5
    assert run.step(REPORT)["status"] == "SUCCEEDED"


def test_after_an_exception_the_step_waits_for_its_next_attempt(run, claim):
    """The step stays RUNNING without a holder. The next attempt has the same start."""
    with pytest.raises(KeyError, match="mistake"), claim() as first:
        raise KeyError("mistake")
    lease = run.lease(REPORT)
    assert (run.step(REPORT)["status"], lease["token"], lease["released"]) == ("RUNNING", "", 0)
    run.let_lease_end(REPORT)  # its backoff
    with claim() as again:
        assert (again.attempt, again.started_at) == (2, first.started_at)
        again.succeed(URI)
    assert run.step(REPORT)["status"] == "SUCCEEDED"


def test_after_a_stop_the_step_is_free_at_once(run, claim):
    """A stop of the worker is no attempt, and the step has no backoff."""
    with pytest.raises(KeyboardInterrupt), claim():
        raise KeyboardInterrupt
    assert run.lease(REPORT)["released"] == 1
    with claim() as step:
        step.succeed(URI)
    assert step.attempt == 2


def test_the_lease_is_renewed_for_as_long_as_the_body_takes(run, claim):
    """The heartbeats move the end of the lease, and end with the block."""
    with claim(terms=BRISK) as step:
        first = run.lease(REPORT)["expiresAt"]
        until(lambda: run.lease(REPORT)["expiresAt"] > first)
        step.succeed(URI)
    assert not step.lost.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "heart-beats"]


@pytest.mark.parametrize("finish", [lambda step: step.succeed(URI), lambda step: step.fail(ERROR)])
def test_a_worker_that_lost_its_lease_writes_nothing(run, claim, finish):
    """The new holder's result stands. The old one is told by its heartbeat and by each method."""
    with pytest.raises(LeaseLost, match=r"another worker has (just )?taken it"), claim(terms=BRISK) as late:
        _take_over(run, claim, late, finish)
    assert (run.step(REPORT)["outputs"], run.lease(REPORT)) == ({"gcs_uri": "gs://reports/winner.json"}, None)


def _take_over(run, claim, late, finish):
    """Take the step over from a worker that is slow, try its methods, and finish the step."""
    with contextlib.ExitStack() as holding:
        winner = None
        while winner is None:  # its heartbeats may renew the lease in between
            run.let_lease_end(REPORT)
            with contextlib.suppress(StepNotClaimed):
                winner = holding.enter_context(claim(owner="other"))
        assert late.lost.wait(10)
        with pytest.raises(LeaseLost):
            late.check()
        with pytest.raises(LeaseLost):
            finish(late)
        winner.succeed("gs://reports/winner.json")
