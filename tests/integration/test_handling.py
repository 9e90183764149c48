"""From a delivery to its disposition, with real leases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN
from daemon.handling.disposition import Ack, Defer, Nack
from localcloud import Fault
from tests.support.process.in_process_worker import Workers

CHART = "advanced-chart"
embedded = pytest.mark.parametrize("deployment", ["embedded"], indirect=True)


@pytest.fixture
def workers(deployment):
    """Create workers."""
    with Workers(deployment) as made:
        yield made


def _statuses(deployment, run_id, step_ids):
    return [deployment.step(run_id, step_id)["status"] for step_id in step_ids]


def _named(lines, event):
    return [line for line in lines if line["event"] == event]


def _two_handle_all(workers, run_id, step_ids):
    """Run two workers through the same steps at the same time; return the reasons of all their acks."""
    both, start = [workers.new(), workers.new()], threading.Barrier(2)

    def handle_all(worker):
        start.wait(10)
        return [worker.handle(run_id, step_id).reason for step_id in step_ids]

    with ThreadPoolExecutor(2) as threads:
        return [reason for reasons in threads.map(handle_all, both) for reason in reasons]


class TestNamedStep:
    """A message that names its step."""

    def test_a_ready_step_is_worked_and_leaves_no_lease(self, deployment, workers):
        """A READY step is claimed, exported, finalized and acked, and leaves no lease."""
        run_id, (step_id,) = deployment.put_run()
        assert workers.new().handle(run_id, step_id) == Ack(reason="succeeded")
        assert _statuses(deployment, run_id, [step_id]) == ["SUCCEEDED"]
        assert workers.lease(run_id, step_id) is None

    @embedded
    def test_an_uncontended_step_costs_one_read_and_two_commits(self, deployment, workers):
        """The claim uses the handler's own read; each chart reads its template and counts its call."""
        run_id, (step_id,) = deployment.put_run(charts=2)
        before = deployment.cloud.firestore.calls.as_dict()
        workers.new().handle(run_id, step_id)
        after = deployment.cloud.firestore.calls.as_dict()
        cost = {name: after[name] - before.get(name, 0) for name in after}
        assert {name: count for name, count in cost.items() if count} == {
            "BatchGetDocuments": 1 + 2 + 2,
            "Commit": 2 + 2,
        }

    def test_a_duplicate_under_another_message_is_acked(self, deployment, workers, log_lines):
        """A duplicate in another message is acked, because the holder's message and the rescue remain."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        lease = workers.put_lease(run_id, step_id, left_seconds=60)
        assert workers.new().handle(run_id, step_id) == Ack(reason="duplicate")
        (line,) = _named(log_lines(), "step_noop")
        assert line["reason"] == "duplicate"
        assert (deployment.cloud.chart_img.requests, workers.lease(run_id, step_id)) == ([], lease)

    def test_an_own_redelivery_is_deferred_by_the_rest_of_the_lease(self, deployment, workers):
        """A redelivery of the process's own message is deferred until the lease of the dead process ends."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        workers.put_lease(run_id, step_id, left_seconds=60, message_id="mine")
        disposition = workers.new(CLOCK_SKEW_SECONDS="5").handle(run_id, step_id, message_id="mine")
        assert isinstance(disposition, Defer)
        assert disposition.reason == "own_lease"
        assert 60 < disposition.delay_seconds <= 65

    def test_an_expired_lease_is_taken_over(self, deployment, workers, log_lines):
        """An expired lease is taken over by the next attempt, for any owner and message."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        workers.put_lease(run_id, step_id)
        assert workers.new().handle(run_id, step_id) == Ack(reason="succeeded")
        (line,) = _named(log_lines(), "lease_taken_over")
        assert (line["formerOwner"], line["formerAttempt"]) == ("elsewhere:1:boot", 1)
        assert _named(log_lines(), "step_completed")[0]["attempt"] == 2
        assert workers.lease(run_id, step_id) is None

    def test_a_step_in_a_crash_loop_is_failed_and_acked(self, deployment, workers):
        """A step in a crash loop is failed and acked, so that no worker tries it again."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        workers.put_lease(run_id, step_id, attempt=5)
        assert workers.new().handle(run_id, step_id) == Ack(reason="final")
        assert deployment.step(run_id, step_id)["error"]["code"] == "CRASH_LOOP"
        assert workers.lease(run_id, step_id) is None

    def test_a_running_step_without_a_lease_gets_one_of_an_unknown_owner(
        self, deployment, workers, log_lines
    ):
        """A RUNNING step without a lease gets one of an unknown owner; the message is acked."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        assert workers.new(UNLEASED_GRACE_SECONDS="100").handle(run_id, step_id) == Ack(reason="unleased")
        lease = workers.lease(run_id, step_id)
        assert (lease.owner, lease.attempt) == ("unknown", 1)
        assert 90 < (lease.expires_at - datetime.now(UTC)).total_seconds() <= 101
        assert len(_named(log_lines(), "step_unleased")) == 1

    def test_the_lease_of_an_unknown_owner_is_kept(self, deployment, workers):
        """The lease of an unknown owner keeps its start; the next message is a duplicate."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        worker = workers.new()
        worker.handle(run_id, step_id)
        lease = workers.lease(run_id, step_id)
        assert worker.handle(run_id, step_id) == Ack(reason="duplicate")
        assert workers.lease(run_id, step_id) == lease

    def test_a_step_of_an_unknown_owner_is_taken_over_after_its_grace(self, deployment, workers):
        """A step of an unknown owner is taken over when its grace period has passed."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        workers.put_lease(run_id, step_id, owner="unknown", message_id="")
        assert workers.new().handle(run_id, step_id) == Ack(reason="succeeded")

    def test_without_a_grace_no_lease_is_made(self, deployment, workers, log_lines):
        """With a grace of 0 a RUNNING step without a lease stays as it is."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        assert workers.new(UNLEASED_GRACE_SECONDS="0").handle(run_id, step_id) == Ack(reason="unleased")
        assert workers.lease(run_id, step_id) is None
        assert len(_named(log_lines(), "step_unleased")) == 1


class TestRunOnly:
    """A message that names only the run."""

    def test_ready_steps_come_first_then_expired_ones(self, deployment, workers, log_lines):
        """READY steps come first, by id, then expired ones; steps of other workers are skipped."""
        run_id, step_ids = deployment.put_run(steps=5, charts=1)
        expired, live, *ready, gone = step_ids
        for step_id in (expired, live, gone):
            workers.set_step(run_id, step_id, status="RUNNING")
        workers.put_lease(run_id, expired)
        workers.put_lease(run_id, gone)
        workers.put_lease(run_id, live, left_seconds=60)
        assert workers.new().handle(run_id) == Ack(reason="running")
        assert [line["stepId"] for line in _named(log_lines(), "step_completed")] == [*ready, expired, gone]
        assert deployment.step(run_id, live)["status"] == "RUNNING"

    def test_a_step_without_a_lease_gets_one(self, deployment, workers):
        """A RUNNING step without a lease gets one while the run is worked."""
        run_id, (step_id,) = deployment.put_run(status="RUNNING")
        assert isinstance(workers.new().handle(run_id), Ack)
        assert workers.lease(run_id, step_id).owner == "unknown"


class TestRaces:
    """Other workers handle the same step."""

    def test_two_messages_at_once_have_one_winner(self, deployment, workers):
        """The loser of two messages reads the winner's result, and each chart is paid for once."""
        run_id, step_ids = deployment.put_run(steps=6, charts=1)
        reasons = _two_handle_all(workers, run_id, step_ids)
        assert reasons.count("succeeded") == 6
        assert set(reasons) <= {"succeeded", "duplicate", "final"}
        assert len(deployment.cloud.chart_img.requests) == 6
        assert _statuses(deployment, run_id, step_ids) == ["SUCCEEDED"] * 6

    def test_two_take_overs_at_once_have_one_winner(self, deployment, workers):
        """Of two take-overs one wins, although only the lease differs."""
        run_id, step_ids = deployment.put_run(steps=6, charts=1, status="RUNNING")
        for step_id in step_ids:
            workers.put_lease(run_id, step_id)
        reasons = _two_handle_all(workers, run_id, step_ids)
        assert reasons.count("succeeded") == 6
        assert len(deployment.cloud.chart_img.requests) == 6

    def test_a_worker_that_was_taken_over_reads_the_step_again_and_acks(self, deployment, workers, log_lines):
        """A worker that lost its lease is fenced: the winner's result stays, the message is acked."""
        run_id, (step_id,) = deployment.put_run(charts=1)
        winner, left = workers.new(), []

        def win(_request):
            lease = workers.lease(run_id, step_id)
            workers.put_lease(run_id, step_id, started_at=lease.started_at)
            assert winner.handle(run_id, step_id) == Ack(reason="succeeded")
            left.extend((deployment.step(run_id, step_id), deployment.manifest(run_id, step_id)))

        deployment.cloud.chart_img.faults.add(Fault(method=CHART, times=1, before=win))
        assert workers.new().handle(run_id, step_id) == Ack(reason="final")
        assert left == [deployment.step(run_id, step_id), deployment.manifest(run_id, step_id)]
        assert len(_named(log_lines(), "finalize_refused")) == 1
        assert len(_named(log_lines(), "step_completed")) == 1

    def test_a_run_deleted_before_the_finalize_leaves_no_lease(self, deployment, workers):
        """When the run was deleted before the finalize, no lease stays and the message is acked."""
        run_id, (step_id,) = deployment.put_run(charts=1)

        def delete(_request):
            deployment.documents.document(f"flow_runs/{run_id}").delete()

        deployment.cloud.chart_img.faults.add(Fault(method=CHART, before=delete))
        assert workers.new().handle(run_id, step_id) == Ack(reason="run_missing")
        assert workers.lease(run_id, step_id) is None

    def test_a_run_deleted_before_a_heart_beat_is_acked(self, deployment, workers):
        """When a heartbeat finds the run deleted, the message is acked, neither deferred nor quarantined."""
        run_id, (step_id,) = deployment.put_run(charts=1)
        worker = workers.new()

        def delete(_request):
            deployment.documents.document(f"flow_runs/{run_id}").delete()
            worker.worker.heartbeats.beat()

        deployment.cloud.chart_img.faults.add(Fault(method=CHART, before=delete))
        assert worker.handle(run_id, step_id) == Ack(reason="missing")

    def test_a_step_cancelled_during_the_work_stays_cancelled(self, deployment, workers):
        """A step that the orchestrator cancelled during the work stays cancelled."""
        run_id, (step_id,) = deployment.put_run(charts=1)

        def cancel(_request):
            workers.set_step(run_id, step_id, status="CANCELLED")

        deployment.cloud.chart_img.faults.add(Fault(method=CHART, before=cancel))
        assert workers.new().handle(run_id, step_id) == Ack(reason="final")
        assert deployment.step(run_id, step_id)["status"] == "CANCELLED"
        assert workers.lease(run_id, step_id) is None


class TestOutagesAndStops:
    """The step is released, and the message comes again."""

    def test_an_unavailable_storage_releases_and_defers_and_opens_the_circuit_breaker(
        self, deployment, workers
    ):
        """A failing Storage releases and defers, and after the fifth failure the circuit breaker opens."""
        deployment.cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        run_id, step_ids = deployment.put_run(steps=FAILURES_TO_OPEN, charts=1)
        worker = workers.new(STEP_TIMEOUT_SECONDS="1")
        for step_id in step_ids:
            assert not worker.breaker.is_open
            disposition = worker.handle(run_id, step_id)
            assert isinstance(disposition, Defer)
            assert disposition.reason == "storage_unavailable"
            assert 1 <= disposition.delay_seconds <= 60
            assert workers.lease(run_id, step_id).released == 1
        assert list(worker.breaker.pauses) == ["storage"]
        assert _statuses(deployment, run_id, step_ids) == ["RUNNING"] * FAILURES_TO_OPEN

    @embedded
    def test_an_unavailable_firestore_defers_and_opens_the_circuit_breaker(self, deployment, workers):
        """A failing Firestore defers without touching the step; a response between resets the count."""
        run_id, (step_id, done) = deployment.put_run(steps=2)
        workers.set_step(run_id, done, status="SUCCEEDED")
        worker = workers.new()

        def fail(times):
            deployment.cloud.firestore.faults.add(
                Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED", times=times)
            )
            reasons = {worker.handle(run_id, step_id).reason for _ in range(times)}
            assert reasons == {"firestore_unavailable"}

        fail(FAILURES_TO_OPEN - 1)
        assert worker.handle(run_id, done) == Ack(reason="final")
        fail(FAILURES_TO_OPEN - 1)
        assert not worker.breaker.is_open
        fail(1)
        assert list(worker.breaker.pauses) == ["firestore"]
        assert _statuses(deployment, run_id, [step_id]) == ["READY"]

    def test_a_shutdown_in_the_middle_is_a_release_and_a_nack(self, deployment, workers):
        """After a release and a nack the next receiver takes the step over without waiting for its lease."""
        run_id, (step_id,) = deployment.put_run(charts=1)
        first, second = workers.new(), workers.new()
        deployment.cloud.chart_img.faults.add(
            Fault(method=CHART, times=1, before=lambda _request: first.drain.stop_steps())
        )
        assert first.handle(run_id, step_id, message_id="m") == Nack(reason="shutdown")
        lease = workers.lease(run_id, step_id)
        assert (lease.released, lease.is_released) == (1, True)
        assert deployment.step(run_id, step_id)["status"] == "RUNNING"
        disposition = second.handle(run_id, step_id, message_id="m")
        while isinstance(disposition, Defer):  # by the first worker's estimate of the server's time
            assert disposition.delay_seconds < 1
            threading.Event().wait(disposition.delay_seconds)
            disposition = second.handle(run_id, step_id, message_id="m")
        assert disposition == Ack(reason="succeeded")

    def test_a_shutdown_before_the_work_started_is_a_nack_alone(self, deployment, workers):
        """A shutdown before the work started reads and writes nothing."""
        run_id, (step_id,) = deployment.put_run()
        worker = workers.new()
        worker.drain.start()
        assert worker.handle(run_id, step_id) == Nack(reason="shutdown")
        assert _statuses(deployment, run_id, [step_id]) == ["READY"]
