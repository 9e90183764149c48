"""Group commits: their cost, and callers whose response was lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud import Fault
from tests.support.fakes import HandClock, chart_step, run_document
from tests.support.ledger.ledger_process import STEPS, Gate, LedgerProcess, in_thread, until
from tests.support.ledger.samples import claim, success
from tests.support.metric_counts import value
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.ledger.commit import group_commit
from worker_chart_export.ledger.commit.group_commit import GATHER_SECONDS_EACH, GroupCommits
from worker_chart_export.ledger.commit.plan import CommitRequest
from worker_chart_export.ledger.step_ledger import Claim
from worker_chart_export.timing import SystemClock


def _counts(calls):
    return calls["BatchGetDocuments"], calls["Commit"]


class TestCost:
    """The calls of Firestore."""

    def test_a_claim_by_the_handler_s_read_costs_one_commit(self, run, worker, calls):
        """A claim with the handler's read needs one commit and no read."""
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        assert isinstance(worker.ledger.claim(run.run_id, "s0", snapshot=snapshot), Claim)
        assert _counts(calls) == (1, 1)

    def test_a_finalize_costs_one_commit_and_no_read_without_other_writers(self, run, worker, calls):
        """A finalize without other writers needs one commit and no read: it uses its own claim's result."""
        claimed = worker.claim(run.run_id, "s0")
        calls.reset()
        assert worker.succeed(claimed).updated
        assert _counts(calls) == (0, 1)

    def test_a_finalize_after_another_write_costs_a_lost_race_and_a_read(self, run, worker, calls):
        """A finalize after another writer needs a failed commit, a read and a commit."""
        claimed = worker.claim(run.run_id, "s0")
        run.reference.update({"progress": {}})
        calls.reset()
        lost = value("races_lost_total", intent="finalize") or 0
        assert worker.succeed(claimed).updated
        assert _counts(calls) == (1, 2)
        assert value("races_lost_total", intent="finalize") == lost + 1

    def test_as_long_as_others_write_the_run_too_it_is_read_first(self, run, worker, calls):
        """A read costs less than a lost race. Once it shows no other writer, it is left out again."""
        claims = [worker.claim(run.run_id, name) for name in STEPS[:4]]
        spent = []
        for claimed, status in zip(claims, ["RUNNING", "FAILED", None, None], strict=True):
            if status is not None:
                run.set_status("s7", status)
            calls.reset()
            worker.succeed(claimed)
            spent.append(_counts(calls))
        assert spent == [(1, 2), (1, 1), (1, 1), (0, 1)]

    def test_a_finalize_by_a_lease_that_a_heart_beat_renewed_costs_no_read(self, run, worker, calls):
        """A finalize after a heartbeat needs no read, because the heartbeat's update time is known."""
        claimed = worker.claim(run.run_id, "s0")
        run.lease_reference("s0").update({"progress": 1})
        worker.heartbeats.beat()
        calls.reset()
        assert worker.succeed(claimed).updated
        assert _counts(calls) == (0, 1)

    def test_all_waiting_requests_share_the_next_commit(self, run, documents, cloud, calls):
        """Seven claims that wait during a commit share the next one."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        gate = Gate(cloud)
        first = in_thread(lambda: commits.submit(claim(step_id="s0")))
        assert gate.reached.wait(10)
        others = [in_thread(lambda name=name: commits.submit(claim(step_id=name))) for name in STEPS[1:]]
        until(lambda: len(commits._queue._waiting) == len(STEPS))
        gate.open.set()
        assert all(future.result(10).result.claimed for future in [first, *others])
        assert calls["Commit"] == 2

    def test_after_a_shared_commit_the_next_one_waits_for_more(self, run, documents, cloud):
        """For each caller that shared it. After a commit for one caller none waits."""
        clock = HandClock()
        commits = GroupCommits(client=documents, clock=clock).of(run.run_id)
        gate = Gate(cloud)
        claims = [in_thread(lambda: commits.submit(claim(step_id="s0")))]
        assert gate.reached.wait(10)
        claims += [in_thread(lambda name=name: commits.submit(claim(step_id=name))) for name in STEPS[1:3]]
        until(lambda: len(commits._queue._waiting) == 3)
        gate.open.set()
        assert all(future.result(10).result.claimed for future in claims)
        assert commits._gather_until == pytest.approx(clock.ticks + 2 * GATHER_SECONDS_EACH)
        assert commits.submit(claim(step_id="s3")).result.claimed
        assert commits._gather_until == clock.ticks

    def test_the_wait_for_more_comes_before_the_next_batch(self, run, documents):
        """It is short, and a single step never waits."""
        clock = HandClock()
        commits = GroupCommits(client=documents, clock=clock).of(run.run_id)
        commits._gather_until = clock.ticks + 0.05
        started = time.monotonic()
        commits.submit(claim(step_id="s0"))
        assert time.monotonic() - started >= 0.05

    def test_the_newest_read_of_any_caller_is_used(self, run, documents, worker):
        """Also when the first caller has none."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        old, new = worker.ledger.read(run.run_id), None
        run.set_status("s7", "RUNNING")
        new = worker.ledger.read(run.run_id)
        requests = [
            CommitRequest(intent=claim(), snapshot=snapshot, held=None) for snapshot in (None, old, new, old)
        ]
        assert commits._best_known(requests) is new

    def test_a_commit_holds_at_most_200_requests_results_first(self):
        """Firestore refuses a commit of more than 500 writes, and each request can write its lease too."""
        intents = [*(claim(step_id=f"s{number}") for number in range(250)), success(step_id="done")]
        waiting = [CommitRequest(intent=intent, snapshot=None, held=None) for intent in intents]
        chosen = group_commit._choose(waiting)
        assert chosen == [waiting[-1], *waiting[:199]]

    def test_claims_of_many_threads_take_few_commits(self, run, worker, calls):
        """Two hundred claims by many threads need few commits, with two threads per step."""
        names = [f"m{number:03}" for number in range(200)]
        run.reference.set(run_document({name: chart_step(dependsOn=[]) for name in names}))
        calls.reset()
        with ThreadPoolExecutor(32) as threads:
            jobs = threads.map(lambda name: worker.ledger.claim(run.run_id, name), names * 2)
            won = [found for found in jobs if isinstance(found, Claim)]
        assert sorted(found.step.step_id for found in won) == names
        assert calls["Commit"] <= 50


class TestTime:
    """The start time of a claim's lease."""

    def test_a_claim_without_a_read_reads_the_run_for_its_lease(self, run, worker, calls):
        """A claim without a read reads the run for its lease, because the known time can be old."""
        worker.claim(run.run_id, "s0")
        kept = worker.claim(run.run_id, "s1").commits
        calls.reset()
        later = worker.ledger.claim(run.run_id, "s2")
        assert isinstance(later, Claim)
        assert later.commits is kept
        assert _counts(calls) == (1, 1)

    @pytest.mark.parametrize(("age_seconds", "reads"), [(0.5, 0), (0.6, 1)])
    def test_a_caller_s_read_is_used_for_half_a_second(self, run, documents, calls, age_seconds, reads):
        """A lease that is computed from an older one could have expired already."""
        clock = HandClock()
        worker = LedgerProcess(documents, clock=clock)
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        clock.advance(age_seconds)
        calls.reset()
        assert isinstance(worker.ledger.claim(run.run_id, "s0", snapshot=snapshot), Claim)
        assert _counts(calls) == (reads, 1)

    def test_each_failure_makes_the_next_pause_longer(self, run, documents, cloud):
        """A success ends that."""
        commits = GroupCommits(client=documents, clock=SystemClock()).of(run.run_id)
        failures = []
        read = Fault(method="BatchGetDocuments", before=lambda _request: failures.append(commits._failures))
        cloud.firestore.faults.add(read)
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=2))
        assert commits.submit(claim(step_id="s0")).result.claimed
        assert (failures, commits._failures) == ([0, 1, 2], 0)


class TestUnknownOutcome:
    """Firestore's response is lost, and the commit was applied or not."""

    @pytest.mark.parametrize("after_effect", [True, False])
    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
    def test_a_claim_is_won_once(self, run, worker, cloud, status, after_effect):
        """A claim with a lost response is won once, by its own token."""
        fault = Fault(method="Commit", error=status, after_effect=after_effect, times=1)
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        cloud.firestore.faults.add(fault)
        claimed = worker.ledger.claim(run.run_id, "s0", snapshot=snapshot)
        assert isinstance(claimed, Claim)
        assert (claimed.attempt, run.lease("s0")["attempt"]) == (1, 1)
        assert worker.succeed(claimed).updated

    def test_a_claim_by_the_caller_s_read_is_not_committed_twice(self, run, worker, cloud, calls):
        """After an unknown outcome that read is too old."""
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        calls.reset()
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        assert isinstance(worker.ledger.claim(run.run_id, "s0", snapshot=snapshot), Claim)
        assert _counts(calls) == (1, 1)

    @pytest.mark.parametrize("after_effect", [True, False])
    def test_a_take_over_is_won_once(self, run, worker, documents, cloud, after_effect):
        """A take-over with a lost response is won once and adds one attempt."""
        LedgerProcess(documents).claim(run.run_id, "s0")
        run.let_lease_end("s0")
        cloud.firestore.faults.add(
            Fault(method="Commit", error="UNAVAILABLE", after_effect=after_effect, times=1)
        )
        claimed = worker.claim(run.run_id, "s0")
        assert (claimed.attempt, run.lease("s0")["attempt"]) == (2, 2)
        assert worker.succeed(claimed).updated

    @pytest.mark.parametrize("after_effect", [True, False])
    def test_a_finalize_is_made_once(self, run, worker, cloud, after_effect):
        """A finalize with a lost response is applied once, by its own finishing time."""
        claimed = worker.claim(run.run_id, "s0")
        fault = Fault(method="Commit", error="UNAVAILABLE", after_effect=after_effect, times=1)
        cloud.firestore.faults.add(fault)
        assert worker.succeed(claimed).updated
        assert (run.step("s0")["status"], run.lease("s0")) == ("SUCCEEDED", None)

    @pytest.mark.parametrize("after_effect", [True, False])
    def test_a_release_is_counted_once(self, run, worker, cloud, after_effect):
        """A release with a lost response is counted once, because the lease has no holder."""
        claimed = worker.claim(run.run_id, "s0")
        fault = Fault(method="Commit", error="UNAVAILABLE", after_effect=after_effect, times=1)
        cloud.firestore.faults.add(fault)
        assert worker.ledger.release(claimed).released
        assert (run.lease("s0")["token"], run.lease("s0")["released"]) == ("", 1)

    def test_a_heart_beat_whose_answer_was_lost_fences_no_finalize(self, run, worker, cloud):
        """A heartbeat with a lost response does not fence its own process's finalize."""
        claimed = worker.claim(run.run_id, "s0")
        run.lease_reference("s0").update({"progress": 1})
        cloud.firestore.faults.add(
            Fault(method="BatchWrite", error="UNAVAILABLE", after_effect=True, times=1)
        )
        with pytest.raises(BackendUnavailable):
            worker.heartbeats.beat()
        claimed.held.check()
        assert worker.succeed(claimed).updated

    def test_the_next_heart_beat_renews_after_one_whose_answer_was_lost(self, run, worker, cloud):
        """The next heartbeat reads the leases first, so it renews after one with a lost response."""
        claimed = worker.claim(run.run_id, "s0")
        cloud.firestore.faults.add(
            Fault(method="BatchWrite", error="UNAVAILABLE", after_effect=True, times=1)
        )
        with pytest.raises(BackendUnavailable):
            worker.heartbeats.beat()
        worker.heartbeats.beat()
        claimed.held.check()
        assert claimed.held.stored.update_time == run.lease_reference("s0").get().update_time
