"""Group commits that Firestore refuses, that have lost their caller, or that use an old read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localcloud import Fault
from tests.support.fakes import chart_step
from tests.support.ledger.ledger_process import STEPS, Gate, in_thread, until
from tests.support.ledger.samples import ERROR, claim, release, success
from worker_chart_export.errors import BackendRefused, BackendUnavailable, RunInvalid
from worker_chart_export.ledger.commit.group_commit import GroupCommits
from worker_chart_export.ledger.step_ledger import Claim
from worker_chart_export.timing import SystemClock


class TestCulprits:
    """A commit contains something that Firestore refuses."""

    def test_a_finalize_that_is_refused_is_made_alone_with_a_minimal_error(self, run, worker, cloud):
        """A refused finalize is repeated alone with a minimal error; the others of its commit succeed."""
        claims = [worker.claim(run.run_id, name) for name in STEPS]
        commits, gate = claims[0].commits, Gate(cloud)
        cloud.firestore.faults.add(
            Fault(method="Commit", match="leases/s3", error="INVALID_ARGUMENT", times=2)
        )
        ended = [in_thread(lambda: worker.succeed(claims[0]))]
        assert gate.reached.wait(10)
        ended += [in_thread(lambda claimed=claimed: worker.succeed(claimed)) for claimed in claims[1:]]
        until(lambda: len(commits._queue._waiting) == len(STEPS))
        gate.open.set()
        assert all(future.result(10).updated for future in ended)
        assert {run.step(name)["status"] for name in STEPS if name != "s3"} == {"SUCCEEDED"}
        assert run.step("s3")["status"] == "FAILED"
        assert "refused to store" in run.step("s3")["error"]["message"]

    def test_of_two_the_one_that_is_refused_is_found(self, run, worker, cloud):
        """Both are committed alone; then the one that can't be stored is shortened."""
        claims = [worker.claim(run.run_id, name) for name in STEPS[:3]]
        gate = Gate(cloud)
        cloud.firestore.faults.add(
            Fault(method="Commit", match="leases/s2", error="INVALID_ARGUMENT", times=2)
        )
        ended = [in_thread(lambda: worker.succeed(claims[0]))]
        assert gate.reached.wait(10)
        ended += [in_thread(lambda claimed=claimed: worker.succeed(claimed)) for claimed in claims[1:]]
        until(lambda: len(claims[0].commits._queue._waiting) == 3)
        gate.open.set()
        assert [future.result(10).status for future in ended] == ["SUCCEEDED", "SUCCEEDED", "FAILED"]

    @pytest.mark.parametrize("refusals", [1, 2])
    def test_a_claim_that_is_refused_fails_its_step(self, run, worker, cloud, refusals):
        """A refused claim fails its step: with an error, or with the status alone."""
        cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT", times=refusals))
        refused = worker.try_claim(run.run_id, "s0")
        assert (refused.claimed, refused.status, refused.reason) == (False, "FAILED", "refused")
        step = run.step("s0")
        assert step["status"] == "FAILED"
        assert step.get("error", {}).get("code") == ("VALIDATION_FAILED" if refusals == 1 else None)
        assert run.lease("s0") is None

    def test_a_take_over_that_is_refused_fails_its_step(self, run, worker, cloud):
        """A refused take-over fails its step and deletes the lease."""
        worker.claim(run.run_id, "s0")
        run.let_lease_end("s0")
        cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT", times=1))
        assert worker.try_claim(run.run_id, "s0").reason == "refused"
        assert (run.step("s0")["status"], run.lease("s0")) == ("FAILED", None)

    def test_a_claim_that_is_refused_in_every_form_makes_the_run_invalid(self, run, worker, cloud, calls):
        """A claim that is refused in every form makes the run invalid, after three commits."""
        refusal = cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT"))
        calls.reset()
        with pytest.raises(RunInvalid, match="can't store a claim of step s0"):
            worker.claim(run.run_id, "s0")
        assert cloud.firestore.faults.fired(refusal) == 3
        assert run.step("s0")["status"] == "READY"

    def test_a_claim_without_a_lease_never_fails_its_step(self, run, worker, cloud):
        """A claim without a lease has no shorter form, so its step stays READY."""
        refusal = cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT"))
        commits = GroupCommits(client=worker.client, clock=SystemClock()).of(run.run_id)
        with pytest.raises(RunInvalid):
            commits.submit(claim(None, step_id="s0"))
        assert cloud.firestore.faults.fired(refusal) == 1

    def test_a_finalize_that_is_refused_twice_is_stored_as_its_status_alone(self, run, worker, cloud):
        """A finalize that is refused with the minimal error too is stored as `status: FAILED` alone."""
        claimed = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT", times=2))
        result = worker.fail(claimed, ERROR)
        assert (result.updated, result.status) == (True, "FAILED")
        assert run.step("s0") == chart_step(dependsOn=[], status="FAILED")
        assert run.lease("s0") is None

    def test_a_finalize_that_is_refused_in_every_form_raises_the_refusal(self, run, worker, cloud):
        """A finalize that is refused in every form raises the refusal."""
        claimed = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT"))
        with pytest.raises(BackendRefused):
            worker.fail(claimed, ERROR)


class TestGivenUp:
    """Callers whose wait has ended."""

    def test_a_claim_won_after_its_caller_left_is_released(self, run, documents, cloud):
        """A claim that is won after its caller left is released by the next runner of a batch."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        gates = [Gate(cloud), Gate(cloud)]
        left = {"seconds": 30.0}
        first = in_thread(lambda: commits.submit(claim(step_id="s0")))
        assert gates[0].reached.wait(10)
        pair = {
            name: in_thread(
                lambda name=name: commits.submit(
                    claim(step_id=name), remaining_seconds=lambda: left["seconds"]
                )
            )
            for name in ("s1", "s2")
        }
        until(lambda: len(commits._queue._waiting) == 3)
        gates[0].open.set()
        assert gates[1].reached.wait(10)
        left["seconds"] = 0.0
        until(lambda: any(future.done() for future in pair.values()))
        gates[1].open.set()
        assert first.result(10).result.claimed
        lost = [name for name, future in pair.items() if future.exception(10)]
        assert len(lost) == 1
        assert isinstance(pair[lost[0]].exception(), BackendUnavailable)
        until(lambda: run.lease(lost[0])["token"] == "")
        assert run.lease(lost[0])["released"] == 1

    def test_a_caller_without_time_gets_one_attempt(self, run, documents, calls):
        """A caller without time gets one attempt before a timeout."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        assert commits.submit(claim(step_id="s0"), remaining_seconds=lambda: 0.0).result.claimed
        assert calls["Commit"] == 1

    def test_a_request_without_its_caller_is_never_committed(self, run, documents, cloud):
        """A request whose caller left before its batch is never committed."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        gate = Gate(cloud)
        first = in_thread(lambda: commits.submit(claim(step_id="s0")))
        assert gate.reached.wait(10)
        with pytest.raises(BackendUnavailable, match="contended"):
            commits.submit(claim(step_id="s1"), remaining_seconds=lambda: 0.0)
        gate.open.set()
        first.result(10)
        commits.submit(claim(step_id="s2"))
        assert run.step("s1")["status"] == "READY"


class TestOldReads:
    """An old read alone proves nothing."""

    @pytest.mark.parametrize("intent", [success(step_id="s0"), release(step_id="s0")])
    def test_a_lease_is_never_deleted_by_a_read_from_before_its_claim(self, run, worker, calls, intent):
        """A read from before a claim never deletes the claim's lease, which would lose its result."""
        old = worker.ledger.read(run.run_id)
        claimed = worker.claim(run.run_id, "s0")
        commits = GroupCommits(client=worker.client, clock=SystemClock()).of(run.run_id)
        mine = replace(intent, token=claimed.held.lease.token)
        result = commits.submit(mine, held=claimed.held, snapshot=old).result
        assert result.reason is None
        assert calls["BatchGetDocuments"] == 3

    def test_a_refusal_is_checked_again(self, run, worker):
        """A refusal by an old read is checked again, because the step can be READY since."""
        run.set_status("s0", "PENDING")
        old = worker.ledger.read(run.run_id)
        run.set_status("s0", "READY")
        assert isinstance(worker.ledger.claim(run.run_id, "s0", snapshot=old), Claim)
