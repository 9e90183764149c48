"""`claim_step` when it is used wrongly, when backends fail, and what it costs."""

from __future__ import annotations

import logging
import threading
import typing
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.cloud import firestore

from localcloud import Fault
from tests.support.fakes import chart_step, run_document, suspend_machine
from tests.support.ledger.ledger_process import STEPS, StoredRun
from tests.support.ledger.samples import ERROR
from worker_chart_export import orchestration
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import Reason
from worker_chart_export.ledger.operator_ledger import OperatorLedger
from worker_chart_export.orchestration import (
    BackendRefused,
    BackendUnavailable,
    Interrupted,
    LeaseLost,
    LeaseTerms,
    StepEnded,
    StepNotClaimed,
    StepNotFinished,
    claim_step,
)
from worker_chart_export.timing import SystemClock

URI = "gs://reports/r.json"
BRISK = LeaseTerms(lease_seconds=60, heartbeat_seconds=0.05)
REPORT = {"stepType": "LLM_REPORT", "dependsOn": []}


@pytest.fixture
def run(documents):
    """Create a run with READY steps of another type."""
    run = StoredRun(documents, "r")
    run.reference.set(run_document({name: chart_step(**REPORT) for name in STEPS}))
    return run


@pytest.fixture
def claim(documents, run):
    """Return `claim_step` for the steps of the run."""

    def claim(step_id="s0", **more):
        return claim_step(documents, run.run_id, step_id, **more)

    return claim


def _heartbeat_threads():
    return [thread for thread in threading.enumerate() if thread.name == "heart-beats"]


def _ended_by(error, claiming, work, match=None):
    """Do the work in the block, which has to end with this error; return the step."""
    with pytest.raises(error, match=match), claiming as step:
        work(step)
    return step


def _refusal(claiming):
    with pytest.raises(StepNotClaimed) as refusal, claiming:
        pytest.fail("the block ran")
    return refusal.value


class TestResults:
    """Exactly one result, or an error that says what is missing."""

    @pytest.mark.parametrize(
        "second", [lambda s: s.succeed("gs://b/2"), lambda s: s.fail(ERROR), lambda s: s.check()]
    )
    def test_after_a_result_there_is_no_other(self, run, claim, second):
        """A second result is refused, in the block and after it; the first one stays."""
        with claim() as step:
            step.succeed(URI)
            with pytest.raises(StepEnded, match="the step has SUCCEEDED already"):
                second(step)
        with pytest.raises(StepEnded):
            second(step)
        assert run.step("s0")["outputs"] == {"gcs_uri": URI}
        assert not step.lost.is_set()

    def test_of_many_threads_one_writes_the_result(self, run, claim):
        """Of simultaneous results one is written, the others are refused."""
        with claim() as step:

            def finish(number):
                try:
                    step.succeed(f"gs://reports/{number}")
                except StepEnded:
                    return None
                return f"gs://reports/{number}"

            with ThreadPoolExecutor(8) as threads:
                written = [uri for uri in threads.map(finish, range(8)) if uri]
        assert written == [run.step("s0")["outputs"]["gcs_uri"]]

    def test_a_block_without_a_result_is_a_mistake(self, run, claim):
        """The step is released, and the attempt counts: the next one would end in the same way."""
        with pytest.raises(StepNotFinished, match="without succeed"), claim():
            pass
        lease = run.lease("s0")
        assert (lease["token"], lease["attempt"], lease["released"]) == ("", 1, 0)

    def test_an_exception_after_the_result_changes_nothing(self, run, claim):
        """It is passed on, and the step has its result."""

        def work(step):
            step.succeed(URI)
            raise KeyError

        _ended_by(KeyError, claim(), work)
        assert (run.step("s0")["status"], run.lease("s0")) == ("SUCCEEDED", None)

    def test_a_step_of_the_worker_s_own_type_has_both_outputs(self, run, claim):
        """Readers of a chart step may read either name."""
        run.reference.update({"steps.s0.stepType": "CHART_EXPORT"})
        with claim(step_type="CHART_EXPORT") as step:
            step.succeed(URI)
        assert run.step("s0")["outputs"] == {"gcs_uri": URI, "outputsManifestGcsUri": URI}

    def test_outputs_that_firestore_can_t_store_fail_the_step(self, run, claim, caplog):
        """The caller finds out, and the step does not stay RUNNING. The log says what can't be stored."""
        with pytest.raises(BackendRefused, match="can't store the step's outputs"), claim() as step:
            step.succeed(URI, outputs={"tokens": 2**70})
        assert step.result == "FAILED"
        assert (run.step("s0")["status"], run.lease("s0")) == ("FAILED", None)
        (refusal,) = [record for record in caplog.records if record.event == "backend_refused"]
        assert "store the finalize: ValueError" in refusal.getMessage()

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda step: step.succeed("https://b/x"), ValueError),
            (lambda step: step.succeed(None), ValueError),
            (lambda step: step.succeed(URI, outputs={"gcs_uri": "x"}), ValueError),
            (lambda step: step.succeed(URI, outputs={"a.b": 1}), ValueError),
            (lambda step: step.fail("broken"), TypeError),
            (lambda step: step.outputs_of("absent"), KeyError),
        ],
    )
    def test_wrong_arguments_write_nothing(self, run, claim, call, error):
        """The step is still held, and can get its result."""
        with claim() as step:
            with pytest.raises(error):
                call(step)
            assert (run.step("s0")["status"], step.result) == ("RUNNING", None)
            step.succeed(URI)

    def test_after_the_block_a_step_without_a_result_can_t_be_used(self, claim):
        """It may be another worker's by then."""
        step = _ended_by(KeyError, claim(), lambda _step: {}["absent"])
        with pytest.raises(StepEnded, match="the block of claim_step is over"):
            step.check()


class TestNotClaimed:
    """The block does not run, and the caller knows why and when to try again."""

    @pytest.mark.parametrize(
        ("fields", "reason", "retry_after"),
        [
            ({"status": "PENDING"}, "step_pending", 10),
            ({"dependsOn": ["s1"]}, "depends_on", 10),
            ({"status": "SUCCEEDED"}, "step_final", None),
            ({"status": "CANCELLED"}, "step_final", None),
            ({"stepType": "CHART_EXPORT"}, "other_type", None),
        ],
    )
    def test_a_step_that_may_not_be_worked_on(self, run, claim, fields, reason, retry_after):
        """Its status decides, and its type if the caller names one."""
        run.reference.update({f"steps.s0.{name}": value for name, value in fields.items()})
        refusal = _refusal(claim(step_type="LLM_REPORT"))
        assert (refusal.reason, refusal.retry_after_seconds) == (reason, retry_after)
        assert refusal.status == run.step("s0")["status"]

    def test_what_is_missing_may_come(self, documents, claim):
        """A message can be faster than the run that it names."""
        for refusal in (_refusal(claim("absent")), _refusal(claim_step(documents, "absent", "s0"))):
            assert (refusal.status, refusal.retry_after_seconds) == (None, 10)

    def test_a_step_without_a_lease_gets_one_that_ends(self, run, claim):
        """A worker that keeps no leases has an hour. Then the step is taken over."""
        run.set_status("s0", "RUNNING")
        refusal = _refusal(claim())
        assert (refusal.reason, refusal.status, refusal.retry_after_seconds) == ("unleased", "RUNNING", 60)
        assert run.lease("s0")["owner"] == "unknown"
        assert _refusal(claim()).retry_after_seconds > 3000
        run.let_lease_end("s0")
        with claim() as step:
            step.succeed(URI)
        assert step.attempt == 2

    def test_after_too_many_attempts_the_step_is_failed(self, run, claim):
        """No worker is lost to a step that ends each of them."""
        terms = LeaseTerms(max_attempts=2)
        for _ in range(2):
            with pytest.raises(KeyError), claim(terms=terms):
                raise KeyError
            run.let_lease_end("s0")
        refusal = _refusal(claim(terms=terms))
        assert (refusal.reason, refusal.status, refusal.retry_after_seconds) == ("crash_loop", "FAILED", None)
        assert run.step("s0")["error"]["code"] == "CRASH_LOOP"

    @pytest.mark.parametrize(("run_id", "step_id"), [("a/b", "s"), ("r", "a.b"), ("", "s"), ("r", "")])
    def test_ids_that_would_lead_elsewhere_are_refused(self, documents, run_id, step_id):
        """Nothing is read or written."""
        with pytest.raises(ValueError, match="Id: expected"), claim_step(documents, run_id, step_id):
            pytest.fail("the block ran")

    def test_an_asynchronous_client_is_refused(self):
        """The library is synchronous."""
        with (
            pytest.raises(TypeError, match="got AsyncClient"),
            claim_step(object.__new__(firestore.AsyncClient), "r", "s"),
        ):
            pytest.fail("the block ran")

    def test_the_types_name_each_reason_and_status(self):
        """A type checker knows every value that can occur."""
        reasons = set(typing.get_args(orchestration.NotClaimedReason))
        of_others = {"not_running", "fenced", "lease_lost", "not_failed", "changed", "released", "unknown"}
        assert reasons == {reason.value for reason in Reason} - of_others
        assert set(typing.get_args(orchestration.StepStatusName)) == {status.value for status in StepStatus}


class TestLostLease:
    """The lease ends during the work."""

    @pytest.mark.parametrize("finish", [lambda step: step.succeed(URI), lambda step: step.fail(ERROR)])
    def test_a_machine_that_slept_past_its_lease_writes_nothing(self, run, claim, monkeypatch, finish):
        """The method finds out by the clock, also when no other worker has taken the step yet."""

        def work(step):
            suspend_machine(monkeypatch, 130)
            finish(step)

        step = _ended_by(LeaseLost, claim(), work, "ended before it was renewed")
        assert step.lost.is_set()
        assert (run.step("s0")["status"], run.lease("s0")["attempt"]) == ("RUNNING", 1)

    def test_an_operator_s_release_is_found_by_the_heartbeat(self, documents, run, claim):
        """The command `release` works for all types of steps."""
        operator = OperatorLedger(client=documents, clock=SystemClock(), operator="ann@desk")

        def work(step):
            operator.release(run.run_id, "s0", takes_unleased=False)
            assert step.lost.wait(10)

        _ended_by(LeaseLost, claim(terms=BRISK), work, "has released it")
        assert run.lease("s0")["releasedBy"] == "ann@desk"

    def test_work_that_takes_too_long_loses_the_step(self, claim):
        """A block that hangs does not keep its step for ever."""
        terms = LeaseTerms(heartbeat_seconds=0.05, max_work_seconds=0.1)
        with pytest.raises(LeaseLost, match=r"longer than 0.1 s"), claim(terms=terms) as step:
            assert step.lost.wait(10)

    @pytest.mark.parametrize("is_late", [False, True])
    def test_a_lease_that_ends_with_the_result_is_not_lost(self, run, claim, cloud, is_late):
        """A heartbeat may find the lease gone before `succeed` has returned, and after that."""
        with claim() as step:
            held = step._claim.held
            if not is_late:
                gone = Fault(method="Commit", before=lambda _request: held.lose("gone"), times=1)
                cloud.firestore.faults.add(gone)
            step.succeed(URI)
            held.lose("gone")
        assert (run.step("s0")["status"], step.lost.is_set()) == ("SUCCEEDED", False)

    def test_a_result_that_firestore_refuses_loses_no_lease(self, claim, cloud):
        """The block may still end in another way."""

        def work(step):
            cloud.firestore.faults.add(Fault(method="Commit", error="PERMISSION_DENIED", times=1))
            try:
                step.succeed(URI)
            finally:
                assert not step.lost.is_set()

        _ended_by(BackendRefused, claim(), work)

    def test_an_error_of_the_block_is_not_hidden_by_the_loss(self, run, claim):
        """The block's own exception is passed on. Nothing is released that is not held."""

        def work(step):
            run.set_status("s0", "CANCELLED")
            assert step.lost.wait(10)
            raise KeyError

        _ended_by(KeyError, claim(terms=BRISK), work)
        assert (run.step("s0")["status"], run.lease("s0")) == ("CANCELLED", None)


class TestOutages:
    """Firestore is unavailable."""

    def test_a_result_is_tried_again_until_firestore_answers(self, cloud, run, claim):
        """A short outage costs time and nothing else."""
        with claim() as step:
            cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=3))
            step.succeed(URI)
        assert run.step("s0")["status"] == "SUCCEEDED"

    def test_a_result_is_tried_until_the_lease_ends(self, cloud, run, claim):
        """After that another worker may have the step."""

        def work(step):
            for method in ("Commit", "BatchWrite", "BatchGetDocuments"):
                cloud.firestore.faults.add(Fault(method=method, error="UNAVAILABLE"))
            try:
                step.succeed(URI)
            finally:
                assert step.lost.is_set()
                cloud.firestore.faults.clear()

        terms = LeaseTerms(lease_seconds=1.5, heartbeat_seconds=0.1)
        _ended_by(BackendUnavailable, claim(terms=terms), work)
        assert run.step("s0")["status"] == "RUNNING"

    def test_a_result_whose_answer_was_lost_is_not_written_twice(self, cloud, run, claim):
        """The ledger reads again and finds its own result."""
        with claim() as step:
            cloud.firestore.faults.add(
                Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1)
            )
            step.succeed(URI)
        assert (step.result, run.step("s0")["status"]) == ("SUCCEEDED", "SUCCEEDED")

    @pytest.mark.parametrize("error", [BackendUnavailable("vertex", "503"), Interrupted("stopping")])
    def test_what_is_nobody_s_fault_is_no_attempt(self, run, claim, error):
        """The block can say that a service is away, or that the worker stops."""
        with pytest.raises(type(error)), claim():
            raise error
        assert run.lease("s0")["released"] == 1

    def test_a_service_that_stays_away_fails_the_step_in_the_end(self, run, claim):
        """After ten releases for it."""
        for _ in range(11):
            with pytest.raises(BackendUnavailable), claim() as step:
                raise BackendUnavailable("vertex", "503")
            if step.result is None:
                run.let_lease_end("s0")
        assert step.result == run.step("s0")["status"] == "FAILED"
        assert run.step("s0")["error"]["message"] == "vertex is unavailable: 503, for too long."


class TestManySteps:
    """Steps that one process holds at a time."""

    def test_claims_may_be_nested(self, run, claim):
        """Each step has its own lease; one thread renews both, and ends with the last of them."""
        with claim("s0") as outer:
            with claim("s1") as inner:
                assert len(_heartbeat_threads()) == 1
                assert run.lease("s0")["token"] != run.lease("s1")["token"]
                assert outer.owner == inner.owner
                inner.succeed(URI)
            assert len(_heartbeat_threads()) == 1
            outer.fail(ERROR)
        assert _heartbeat_threads() == []
        assert [run.step(name)["status"] for name in ("s0", "s1")] == ["FAILED", "SUCCEEDED"]

    def test_threads_share_commits(self, run, claim, calls):
        """Firestore writes a document about once a second, so that all steps of a run share their writes."""
        start = threading.Barrier(8)

        def work(step_id):
            with claim(step_id) as step:
                start.wait(10)
                step.succeed(URI)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, STEPS))
        assert {run.step(name)["status"] for name in STEPS} == {"SUCCEEDED"}
        assert calls["Commit"] < 12  # 16 one by one

    def test_lines_go_to_the_caller_s_logger(self, run, claim, caplog, capsys):
        """Those of the heartbeats too. Nothing is printed."""
        logger = logging.getLogger("my.reports")
        caplog.set_level(logging.INFO, "my.reports")

        def work(step):
            run.set_status("s0", "CANCELLED")
            assert step.lost.wait(10)

        _ended_by(LeaseLost, claim(terms=BRISK, logger=logger), work)
        assert {record.name for record in caplog.records} == {"my.reports"}
        assert [record.event for record in caplog.records] == [
            "claim_attempt",
            "lease_lost",
            "finalize_refused",
        ]
        assert caplog.records[1].fields["stepId"] == "s0"
        assert "no longer RUNNING but CANCELLED" in caplog.text
        assert capsys.readouterr() == ("", "")

    def test_the_line_of_a_failure_has_its_code(self, claim, caplog):
        """So that failures can be counted by it."""
        caplog.set_level(logging.INFO, "my.reports")
        with claim(logger=logging.getLogger("my.reports")) as step:
            step.fail(ERROR)
        assert caplog.records[-1].fields["code"] == ERROR.code

    def test_a_process_has_one_name_in_all_leases(self, run, claim):
        """Also in those of ledgers with other terms. A caller may choose the name."""
        with claim("s0") as first, claim("s1", terms=BRISK) as second, claim("s2", owner="me") as named:
            assert first.owner == second.owner == run.lease("s1")["owner"]
            assert named.owner == run.lease("s2")["owner"] == "me"
            for step in (first, second, named):
                step.succeed(URI)
