"""The ledger's calls for steps without a lease, for an operator, and for callers that have left."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from localcloud import Fault
from tests.support.fakes import HandClock, chart_step, scope_of
from tests.support.ledger.ledger_process import TERMS, LedgerProcess, in_thread, until
from tests.support.ledger.observed_facts import Facts
from tests.support.ledger.samples import ERROR, FINISHED, MANIFEST
from tests.support.metric_counts import value
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import BackendUnavailable, LeaseLost
from worker_chart_export.ledger.commit.group_commit import GroupCommits
from worker_chart_export.ledger.decisions import FinalizeResult, Reason
from worker_chart_export.ledger.lease import UNKNOWN_OWNER
from worker_chart_export.ledger.operator_ledger import OperatorLedger
from worker_chart_export.ledger.run_snapshot import read_lease
from worker_chart_export.ledger.step_ledger import new_owner
from worker_chart_export.observability.logs import bound
from worker_chart_export.observability.observers import Observer, Stage, watched_by
from worker_chart_export.timing import SystemClock


@pytest.fixture
def operator(documents):
    """Return the ledger of an operator."""
    return OperatorLedger(client=documents, clock=SystemClock(), operator="ann@desk")


class TestClaim:
    """What the ledger adds to a claim."""

    def test_it_is_tried_as_long_as_its_scope_lasts(self, run, documents, cloud):
        """Its caller has other things to do after that."""
        clock = HandClock()
        worker = LedgerProcess(documents, clock=clock)
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
        read = Fault(method="BatchGetDocuments", before=lambda _request: clock.advance(1.1))
        cloud.firestore.faults.add(read)
        with pytest.raises(BackendUnavailable):
            worker.ledger.claim(run.run_id, "s0", scope=CancelScope(seconds=2, clock=clock))
        assert cloud.firestore.calls["BatchGetDocuments"] == 2

    def test_the_failure_of_a_crash_loop_has_the_server_s_time(self, run, documents):
        """The worker's own clock may be wrong."""
        worker = LedgerProcess(documents, clock=HandClock(), terms=replace(TERMS, max_attempts=1))
        before = datetime.now(UTC)
        worker.claim(run.run_id, "s0")
        run.let_lease_end("s0")
        assert worker.try_claim(run.run_id, "s0").reason == Reason.CRASH_LOOP
        finished_at = datetime.fromisoformat(run.step("s0")["finishedAt"])
        assert abs((finished_at - before).total_seconds()) < 60

    @pytest.mark.parametrize(
        ("fields", "operators", "was_unleased"),
        [
            ({"messageId": "m"}, {}, False),
            ({"owner": UNKNOWN_OWNER}, {}, True),
            ({"releasedBy": "a@b", "token": ""}, {"releasedBy": "a@b"}, False),
            ({"retriedBy": "c@d"}, {"retriedBy": "c@d"}, False),
        ],
    )
    def test_a_take_over_knows_what_led_to_it(self, run, worker, fields, operators, was_unleased):
        """Log lines name the operators. A step that had no lease is looked for in the bucket first."""
        worker.ledger.claim(run.run_id, "s0")
        assert run.lease("s0")["messageId"] == ""
        run.lease_reference("s0").update(fields)
        run.let_lease_end("s0")
        with watched_by(observer := Facts()):
            claim = worker.claim(run.run_id, "s0")
        assert (claim.operators, claim.was_unleased) == (operators, was_unleased)
        assert observer.facts["attempt"] == claim.attempt == 2


class TestFenced:
    """A finalize after another has changed the lease, and nothing else."""

    def test_a_lease_that_an_operator_has_released_ends_no_step(self, run, worker, operator):
        """The worker has not heard of it, and no one has written the run."""
        claim = worker.claim(run.run_id, "s0")
        own = claim.held.lease
        operator.release(run.run_id, "s0", takes_unleased=False)
        result = worker.succeed(claim)
        assert result == FinalizeResult(updated=False, status="RUNNING", reason=Reason.FENCED)
        assert claim.held.lease == own
        assert worker.claim(run.run_id, "s0").attempt == 2

    def test_the_lease_is_still_its_own(self, run, worker):
        """Then the manifest is written, and the lease deleted."""
        claim = worker.claim(run.run_id, "s0")
        assert worker.succeed(claim).updated
        assert (run.step("s0")["outputs"]["gcs_uri"], run.lease("s0")) == (MANIFEST, None)


def test_the_wait_for_a_claim_ends_also_while_reads_fail(run, worker, cloud):
    """The client does not repeat the read by itself, which would take ten seconds."""
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE"))
    started = time.monotonic()
    with pytest.raises(BackendUnavailable):
        worker.ledger.claim(run.run_id, "s0", scope=scope_of(0.1))
    assert time.monotonic() - started < 5


def test_a_read_of_a_caller_is_repeated_during_a_short_outage(run, worker, cloud):
    """By the client: no queue repeats it."""
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE", times=1))
    assert worker.ledger.read(run.run_id, leases_of=["s0"]).run is not None


def test_a_read_is_a_stage_and_names_the_flow(run, worker, log_lines):
    """Of the run that is read. Later lines say of which flow they are."""
    stages = []

    class Stages(Observer):
        def stage(self, stage, about, _carrier):
            stages.append((stage, dict(about)))

    with watched_by(Stages()), bound(runId=None):
        worker.ledger.read(run.run_id)
        worker.ledger.adopt(run.run_id, "s0", now=None)
    assert stages == [(Stage.READ, {"runId": run.run_id})]
    assert log_lines()[-1]["flowKey"] == run.reference.get().get("flowKey")


def test_a_read_is_not_older_than_its_caller(run, worker, cloud):
    """Callers share a read only if it begins after they asked."""
    slow = Fault(method="BatchGetDocuments", after_effect=True, delay_seconds=0.2, times=1)
    cloud.firestore.faults.add(slow)
    cloud.firestore.calls.reset()
    first = in_thread(lambda: worker.ledger.read(run.run_id))
    until(lambda: cloud.firestore.calls["BatchGetDocuments"] == 1)
    run.set_status("s0", "RUNNING")
    assert worker.ledger.read(run.run_id).run.is_running("s0")
    first.result(10)


class TestUnleased:
    """A step that is RUNNING without a lease."""

    @pytest.mark.parametrize(
        ("manifest", "error", "status"), [(MANIFEST, None, "SUCCEEDED"), (MANIFEST, ERROR, "FAILED")]
    )
    def test_a_step_without_a_lease_is_finalized_by_the_caller_s_read(
        self, run, worker, calls, manifest, error, status
    ):
        """The read that found the step unleased is enough."""
        run.set_status("s0", "RUNNING")
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        calls.reset()
        result = worker.ledger.finalize_unleased(snapshot, "s0", manifest_uri=manifest, error=error)
        assert result == FinalizeResult(updated=True, status=status)
        step = run.step("s0")
        assert (step["status"], step.get("error")) == (status, error and error.to_dict())
        assert step.get("outputs", {}).get("gcs_uri") == (None if error else MANIFEST)
        assert calls.as_dict() == {"BatchGetDocuments": 1, "Commit": 1}  # the read is the test's own

    def test_a_worker_with_a_lease_keeps_the_step(self, run, worker, log_lines):
        """A worker may have claimed it since the read."""
        snapshot = worker.ledger.read(run.run_id, leases_of=["s0"])
        worker.claim(run.run_id, "s0")
        before = value("finalizes_total", result="fenced") or 0
        result = worker.ledger.finalize_unleased(snapshot, "s0", manifest_uri=None, error=ERROR)
        assert result == FinalizeResult(updated=False, status="RUNNING", reason=Reason.FENCED)
        assert value("finalizes_total", result="fenced") == before + 1
        assert log_lines()[-1]["status"] == "RUNNING"

    def test_a_run_that_is_gone_has_no_result(self, worker):
        """There is nothing to write."""
        result = worker.ledger.finalize_unleased(
            worker.ledger.read("gone"), "s0", manifest_uri=MANIFEST, error=None
        )
        assert result == FinalizeResult(updated=False, status=None, reason=Reason.RUN_MISSING)

    @pytest.mark.parametrize(("grace_seconds", "is_made"), [(0, False), (0.5, True)])
    def test_it_gets_a_lease_that_ends_after_the_grace(self, run, documents, grace_seconds, is_made):
        """With a grace of 0 it may run for ever."""
        worker = LedgerProcess(documents, terms=replace(TERMS, unleased_grace_seconds=grace_seconds))
        now = datetime.now(UTC)
        worker.ledger.adopt(run.run_id, "s0", now=now)
        lease = run.lease("s0")
        assert (lease is not None) is is_made
        assert lease is None or lease["expiresAt"] - now == timedelta(seconds=grace_seconds)


class TestOperator:
    """An operator's calls reach the intents with all their conditions."""

    def test_a_retry_of_the_failure_that_was_seen(self, run, operator):
        """In a final run only if it may be reopened; the next claim uses the charts of the given start."""
        start = datetime(2025, 12, 15, 12, tzinfo=UTC)
        run.reference.update(
            {"status": "FAILED", "steps.s0": chart_step(status="FAILED", finishedAt=FINISHED)}
        )
        run.reference.update({"steps.s0.dependsOn": []})

        def retry(**changes):
            conditions = {"failure": FINISHED, "charts_of": start, "reopens_run": True} | changes
            return operator.retry(run.run_id, "s0", **conditions)

        assert retry(failure="earlier").reason == Reason.CHANGED
        assert retry(reopens_run=False).reason == Reason.RUN_FINAL
        assert retry().retried
        assert (run.step("s0")["status"], run.reference.get().get("status")) == ("READY", "RUNNING")
        lease = run.lease("s0")
        assert (lease["retriedBy"], lease["startedAt"]) == ("ann@desk", start)

    def test_a_release_of_a_step_without_a_lease(self, run, operator):
        """Only if the operator takes it from a worker that can't be stopped."""
        run.set_status("s0", "RUNNING")
        result, lease = operator.release(run.run_id, "s0", takes_unleased=False)
        assert (result.released, result.reason, lease) == (False, Reason.UNLEASED, None)
        result, lease = operator.release(run.run_id, "s0", takes_unleased=True)
        assert result.released
        assert lease is not None
        assert (lease.released_by, lease.to_document()) == ("ann@desk", run.lease("s0"))


class TestCleared:
    """The end of a claim whose lease is lost."""

    @pytest.mark.parametrize(("status", "is_left"), [("RUNNING", True), ("CANCELLED", False)])
    def test_its_lease_is_deleted_only_if_the_step_is_not_running(self, run, worker, status, is_left):
        """Otherwise the lease is perhaps still the worker's own, and its end lets another take over."""
        claim = worker.claim(run.run_id, "s0")
        run.set_status("s0", status)
        names = {"leases_lost_total": {}, "finalizes_total": {"result": "lease_lost"}}
        before = [value(name, **labels) or 0 for name, labels in names.items()]
        lease = run.lease("s0")
        worker.ledger.clear(claim, LeaseLost("gone"))
        assert run.lease("s0") == (lease if is_left else None)
        assert worker.heartbeats.held() == []
        assert [value(name, **labels) for name, labels in names.items()] == [count + 1 for count in before]


def test_the_owner_of_leases_is_the_process():
    """With a part that tells it from a later process of the same number."""
    assert re.fullmatch(rf".+:{os.getpid()}:[0-9a-f]{{8}}", new_owner())


class TestOrphans:
    """Steps that were claimed for a caller that does not wait any more."""

    def test_it_can_be_taken_over_at_once(self, run, worker):
        """Its claim counts as none of the step's attempts."""
        claim = worker.claim(run.run_id, "s0")
        claim.commits.release_orphan("s0", claim.held.lease.token)
        assert run.lease("s0")["expiresAt"] <= datetime.now(UTC)
        assert worker.claim(run.run_id, "s0").held.lease.released == 1

    def test_it_is_tried_for_five_seconds(self, run, documents, cloud, worker):
        """The process may be about to end; then the lease expires."""
        clock = HandClock()
        token = worker.claim(run.run_id, "s0").held.lease.token
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
        read = Fault(method="BatchGetDocuments", before=lambda _request: clock.advance(1.1))
        cloud.firestore.faults.add(read)
        cloud.firestore.calls.reset()
        GroupCommits(client=documents, clock=clock).of(run.run_id).release_orphan("s0", token)
        assert cloud.firestore.calls["BatchGetDocuments"] == 5


def test_a_lease_is_read_with_its_guard(run, worker):
    """A delete of it must name the version that was read."""
    claim = worker.claim(run.run_id, "s0")
    stored = read_lease(worker.client, run.run_id, "s0")
    assert stored == claim.held.stored
    assert read_lease(worker.client, run.run_id, "s1") is None
