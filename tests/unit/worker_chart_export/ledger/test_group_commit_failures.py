"""Group commits that Firestore refuses, that nobody waits for, or that go by an old read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localcloud import Fault
from tests.support.ledger.ledger_process import STEPS, Gate, in_thread, until
from tests.support.ledger.samples import ERROR, claim, release, success
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.ledger.commit.group_commit import GroupCommits
from worker_chart_export.ledger.step_ledger import Claim
from worker_chart_export.timing import SystemClock


class TestCulprits:
    """Something in a commit is not what Firestore takes."""

    def test_a_finalize_that_is_refused_is_made_alone_with_a_minimal_error(self, run, worker, cloud):
        """All that shared its commit succeed."""
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

    def test_a_claim_that_is_refused_is_told(self, run, worker, cloud):
        """There is no smaller one."""
        cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT"))
        with pytest.raises(BackendRefused):
            worker.claim(run.run_id, "s0")

    def test_a_finalize_that_is_refused_with_the_least_too_is_told(self, run, worker, cloud):
        """It is not tried for ever."""
        claimed = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT"))
        with pytest.raises(BackendRefused):
            worker.fail(claimed, ERROR)


class TestGivenUp:
    """A caller's patience has ended."""

    def test_a_claim_that_is_won_for_nobody_is_released(self, run, documents, cloud):
        """By whoever took the turn; the other caller has its own claim."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        gates = [Gate(cloud), Gate(cloud)]
        left = {"seconds": 30.0}
        first = in_thread(lambda: commits.submit(claim(step_id="s0")))
        assert gates[0].reached.wait(10)
        pair = {
            name: in_thread(
                lambda name=name: commits.submit(
                    claim(step_id=name), patience_seconds=lambda: left["seconds"]
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

    def test_a_caller_without_patience_has_one_try(self, run, documents, calls):
        """It is never told that time is up before anything was tried."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        assert commits.submit(claim(step_id="s0"), patience_seconds=lambda: 0.0).result.claimed
        assert calls["Commit"] == 1

    def test_what_was_given_up_before_its_turn_is_never_committed(self, run, documents, cloud):
        """Nobody would work it."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        gate = Gate(cloud)
        first = in_thread(lambda: commits.submit(claim(step_id="s0")))
        assert gate.reached.wait(10)
        with pytest.raises(BackendUnavailable, match="contended"):
            commits.submit(claim(step_id="s1"), patience_seconds=lambda: 0.0)
        gate.open.set()
        first.result(10)
        commits.submit(claim(step_id="s2"))
        assert run.step("s1")["status"] == "READY"


class TestOldReads:
    """What was true once proves nothing by itself."""

    @pytest.mark.parametrize("intent", [success(step_id="s0"), release(step_id="s0")])
    def test_a_lease_is_never_deleted_by_a_read_from_before_its_claim(self, run, worker, calls, intent):
        """The step would be RUNNING without one, and its result thrown away."""
        old = worker.ledger.read(run.run_id)
        claimed = worker.claim(run.run_id, "s0")
        commits = GroupCommits(client=worker.client, clock=SystemClock()).of(run.run_id)
        mine = replace(intent, token=claimed.held.lease.token)
        result = commits.submit(mine, held=claimed.held, snapshot=old).result
        assert result.reason is None
        assert calls["BatchGetDocuments"] == 3

    def test_a_refusal_is_looked_up_again(self, run, worker):
        """The step was made READY since."""
        run.set_status("s0", "PENDING")
        old = worker.ledger.read(run.run_id)
        run.set_status("s0", "READY")
        assert isinstance(worker.ledger.claim(run.run_id, "s0", snapshot=old), Claim)
