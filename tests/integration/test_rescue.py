"""The rescue on real leases: which steps it takes over, leaves, or clears."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from google.cloud import firestore

from localcloud import Fault
from tests.support.process.in_process_worker import Workers
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.ledger.expired_leases import PAGE_SIZE

CHART = "advanced-chart"
embedded = pytest.mark.parametrize("deployment", ["embedded"], indirect=True)


@pytest.fixture
def workers(deployment):
    """Create workers."""
    with Workers(deployment) as made:
        yield made


def _abandoned(deployment, workers, *, steps=1, **lease):
    """Store a run whose steps' workers have ended."""
    run_id, step_ids = deployment.put_run(steps=steps, charts=1, status="RUNNING")
    for step_id in step_ids:
        workers.put_lease(run_id, step_id, **lease)
    return run_id, step_ids


def _statuses(deployment, run_id):
    steps = deployment.run(run_id)["steps"]
    return [steps[name]["status"] for name in sorted(steps) if steps[name]["stepType"] == "CHART_EXPORT"]


class TestTakeOver:
    """Steps whose lease has expired."""

    def test_abandoned_steps_are_worked_one_at_a_time(self, deployment, workers, log_lines):
        """Abandoned steps are worked one at a time, each as its next attempt, without a message."""
        run_id, step_ids = _abandoned(deployment, workers, steps=3)
        other_id, (other,) = _abandoned(deployment, workers)
        worker, running = workers.new(), []
        deployment.cloud.chart_img.faults.add(
            Fault(method=CHART, before=lambda _request: running.append(worker.drain.steps_running))
        )
        worker.rescue.search()
        assert (_statuses(deployment, run_id), _statuses(deployment, other_id)) == (
            ["SUCCEEDED"] * 3,
            ["SUCCEEDED"],
        )
        assert running == [1] * 4
        done = [line for line in log_lines() if line["event"] == "step_completed"]
        assert sorted(line["stepId"] for line in done) == sorted([*step_ids, other])
        assert {line["attempt"] for line in done} == {2}
        assert not any("messageId" in line for line in done)
        assert not any(workers.lease(run_id, step_id) for step_id in step_ids)

    def test_a_released_one_is_worked_at_once(self, deployment, workers):
        """A released step is worked at once, without waiting for the clock skew, because it has no holder."""
        run_id, _ = _abandoned(deployment, workers, left_seconds=-1, token="", released=1)
        workers.new(CLOCK_SKEW_SECONDS="300").rescue.search()
        assert _statuses(deployment, run_id) == ["SUCCEEDED"]

    def test_the_lines_of_a_released_and_of_a_retried_step_name_the_operator(
        self, deployment, workers, log_lines
    ):
        """From the claim to the end each line says who led to it, and of which flow it is."""
        run_id, (step_id,) = _abandoned(
            deployment, workers, token="", released=1, released_by="ann@desk", retried_by="bob@desk"
        )
        workers.new().rescue.search()
        lines = [line for line in log_lines() if line["event"] != "lease_deleted"]
        assert {line["event"] for line in lines} >= {"claim_attempt", "lease_taken_over", "step_completed"}
        names = {(line["releasedBy"], line["retriedBy"], line["flowKey"], line["stepId"]) for line in lines}
        assert names == {("ann@desk", "bob@desk", "demo_report_v1", step_id)}
        assert _statuses(deployment, run_id) == ["SUCCEEDED"]

    def test_one_that_may_still_be_held_by_a_slow_clock_is_left(self, deployment, workers, log_lines):
        """An expired lease is left until the clock skew has passed: a slow clock may still hold it."""
        run_id, (step_id,) = _abandoned(deployment, workers, left_seconds=-10)
        lease = workers.lease(run_id, step_id)
        workers.new(CLOCK_SKEW_SECONDS="300").rescue.search()
        assert (_statuses(deployment, run_id), workers.lease(run_id, step_id)) == (["RUNNING"], lease)
        assert log_lines() == []

    def test_one_whose_lease_lasts_is_left(self, deployment, workers):
        """A step with a valid lease is left to its worker."""
        run_id, (step_id,) = _abandoned(deployment, workers, left_seconds=60)
        lease = workers.lease(run_id, step_id)
        workers.new().rescue.search()
        assert (_statuses(deployment, run_id), workers.lease(run_id, step_id)) == (["RUNNING"], lease)

    def test_pages_of_leases_that_can_t_be_settled_are_passed(self, deployment, workers):
        """Pages of older leases that can't be resolved do not hide one that can."""
        live_id, _ = deployment.put_run(status="RUNNING")
        batch = deployment.documents.batch()
        for number in range(PAGE_SIZE + 5):
            name = f"live{number:03d}"
            lease = workers.put_lease(live_id, "charts:1d:step000", left_seconds=-100)
            batch.set(workers.lease_reference(live_id, name), lease.to_document())
            step = {"stepType": "CHART_EXPORT", "status": "RUNNING"}
            path = deployment.documents.field_path("steps", name)
            batch.update(deployment.documents.document(f"flow_runs/{live_id}"), {path: step})
        batch.commit()
        run_id, _ = _abandoned(deployment, workers, left_seconds=-1, token="", released=1)
        workers.new(CLOCK_SKEW_SECONDS="300").rescue.search()
        assert _statuses(deployment, run_id) == ["SUCCEEDED"]
        assert set(_statuses(deployment, live_id)) == {"RUNNING"}

    @embedded
    def test_a_result_that_may_not_be_written_uses_up_an_attempt(self, deployment, workers):
        """A refused permission releases the step after a backoff, as an attempt; nothing is paid again."""
        deployment.cloud.chart_img.faults.add(Fault(answer="invalid_symbol"))
        run_id, (step_id,) = deployment.put_run(charts=1)
        worker = workers.new()
        deployment.cloud.firestore.faults.add(
            Fault(method="Commit", match=f"flow_runs/{run_id}\n", error="PERMISSION_DENIED", skip=1)
        )
        assert worker.handle(run_id, step_id).reason == "firestore_refused"
        lease = workers.lease(run_id, step_id)
        assert lease is not None
        assert (lease.attempt, lease.released, lease.token) == (1, 0, "")
        assert lease.expires_at > datetime.now(UTC)
        workers.put_lease(run_id, step_id, token="", started_at=lease.started_at)
        assert worker.handle(run_id, step_id).reason == "firestore_refused"  # the claim is refused too
        assert len(deployment.cloud.chart_img.requests) == 1

    @embedded
    def test_a_result_that_firestore_never_stores_uses_up_the_attempts(self, deployment, workers):
        """Each attempt of such a step waits for a backoff and counts; then its message is rejected."""
        run_id, (step_id,) = deployment.put_run(charts=1)
        worker = workers.new(MAX_ATTEMPTS="2")
        of_run = f"flow_runs/{run_id}\n"
        for attempt in (1, 2):
            deployment.cloud.firestore.faults.add(  # the claim passes
                Fault(method="Commit", match=of_run, error="INVALID_ARGUMENT", skip=1, times=3)
            )
            assert worker.handle(run_id, step_id).reason == "firestore_refused"
            lease = workers.lease(run_id, step_id)
            assert lease is not None
            assert (lease.attempt, lease.released, lease.token) == (attempt, 0, "")
            assert lease.expires_at > datetime.now(UTC)
            workers.put_lease(run_id, step_id, attempt=attempt, token="", started_at=lease.started_at)
        deployment.cloud.firestore.faults.add(Fault(method="Commit", match=of_run, error="INVALID_ARGUMENT"))
        assert worker.handle(run_id, step_id).reason == "run_invalid"
        worker.rescue.search()
        assert len(deployment.cloud.chart_img.requests) == 1
        assert _statuses(deployment, run_id) == ["RUNNING"]

    def test_it_has_room_beside_the_handlers(self, deployment, workers):
        """The rescue has its own connections besides those of all handlers."""
        run_id, _ = _abandoned(deployment, workers)
        ready_id, (ready,) = deployment.put_run(charts=1)
        worker = workers.new(WORKER_CONCURRENCY="1", REQUEST_CONCURRENCY="1", STEP_TIMEOUT_SECONDS="5")
        first_id, (first,) = deployment.put_run(charts=1)
        worker.handle(first_id, first)  # until the account's first response only one call runs at a time
        deployment.cloud.chart_img.faults.add(
            Fault(method=CHART, times=1, before=lambda _request: worker.rescue.search())
        )
        assert worker.handle(ready_id, ready).reason == "succeeded"
        assert _statuses(deployment, run_id) == ["SUCCEEDED"]

    def test_a_run_that_can_t_be_read_does_not_hold_the_others(self, deployment, workers, log_lines):
        """A run that can't be read is logged and keeps its lease; the others are rescued."""
        bad_id, (bad,) = _abandoned(deployment, workers)
        workers.set_step(bad_id, bad, status="??")
        run_id, _ = _abandoned(deployment, workers)
        workers.new().rescue.search()
        assert _statuses(deployment, run_id) == ["SUCCEEDED"]
        assert workers.lease(bad_id, bad) is not None
        (line,) = [line for line in log_lines() if line["event"] == "lease_stranded"]
        assert (line["runId"], line["stepId"]) == (bad_id, bad)

    def test_a_crash_loop_is_ended(self, deployment, workers):
        """A crash loop is ended without a message."""
        run_id, (step_id,) = _abandoned(deployment, workers, attempt=5)
        workers.new().rescue.search()
        assert deployment.step(run_id, step_id)["error"]["code"] == "CRASH_LOOP"
        assert (workers.lease(run_id, step_id), deployment.cloud.chart_img.requests) == (None, [])

    def test_two_daemons_rescues_have_one_winner(self, deployment, workers):
        """Two rescues find all steps, and each step is worked once."""
        run_id, step_ids = _abandoned(deployment, workers, steps=6)
        both, start = [workers.new(), workers.new()], threading.Barrier(2)

        def scan(worker):
            start.wait(10)
            worker.rescue.search()

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(scan, both))
        assert _statuses(deployment, run_id) == ["SUCCEEDED"] * 6
        assert len(deployment.cloud.chart_img.requests) == 6
        blobs = deployment.objects.list_blobs(deployment.bucket, prefix=f"charts/{run_id}/")
        assert len([blob for blob in blobs if blob.metageneration == 1]) == 2 * 6
        assert not any(workers.lease(run_id, step_id) for step_id in step_ids)


class TestClearing:
    """Leases without a running step."""

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED", "READY", "PENDING"])
    def test_the_lease_of_a_step_that_does_not_run_is_deleted(self, deployment, workers, status, log_lines):
        """The lease of a step that is not RUNNING is deleted, and the step stays unchanged."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        workers.set_step(run_id, step_id, status=status)
        before = deployment.run(run_id)
        workers.new().rescue.search()
        assert (workers.lease(run_id, step_id), deployment.run(run_id)) == (None, before)
        assert [line["event"] for line in log_lines()] == ["lease_deleted"]

    def test_the_lease_of_a_finished_run_is_deleted(self, deployment, workers):
        """The lease of a finished run is deleted, whatever its step's status."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        deployment.documents.document(f"flow_runs/{run_id}").update({"status": "CANCELLED"})
        workers.new().rescue.search()
        assert (workers.lease(run_id, step_id), _statuses(deployment, run_id)) == (None, ["RUNNING"])

    @pytest.mark.parametrize("what", ["run", "step"])
    def test_the_lease_of_a_deleted_run_or_step_is_deleted(self, deployment, workers, what):
        """The lease of a deleted run or step is deleted: Firestore keeps documents below a deleted one."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        reference = deployment.documents.document(f"flow_runs/{run_id}")
        if what == "run":
            reference.delete()
        else:
            reference.update({deployment.documents.field_path("steps", step_id): firestore.DELETE_FIELD})
        workers.new().rescue.search()
        assert workers.lease(run_id, step_id) is None

    @pytest.mark.parametrize(("status", "is_kept"), [("RUNNING", True), ("SUCCEEDED", False)])
    def test_the_expired_lease_of_another_type_of_step_is_left_to_its_workers(
        self, deployment, workers, status, is_kept, log_lines
    ):
        """A RUNNING step of another type keeps its lease, or nobody could take it over in time."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        workers.set_step(run_id, step_id, stepType="LLM_REPORT", status=status)
        before = deployment.run(run_id)
        workers.new().rescue.search()
        assert deployment.run(run_id) == before
        assert (workers.lease(run_id, step_id) is not None) is is_kept
        assert [line["event"] for line in log_lines()] == ([] if is_kept else ["lease_deleted"])

    @embedded
    def test_a_lease_that_is_acquired_in_between_is_not_deleted(self, deployment, workers):
        """A lease that is acquired again after the read is not deleted."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        workers.set_step(run_id, step_id, status="READY")
        anew = []

        def claim(_request):
            anew.append(workers.put_lease(run_id, step_id, left_seconds=60))

        deployment.cloud.firestore.faults.add(Fault(method="Commit", match=step_id, times=1, before=claim))
        workers.new().rescue.search()
        assert [workers.lease(run_id, step_id)] == anew

    def test_documents_of_that_collection_elsewhere_are_passed_by(self, deployment, workers):
        """Documents of a `leases` collection elsewhere are ignored."""
        lease = workers.put_lease("nobody", "step")
        workers.lease_reference("nobody", "step").delete()
        elsewhere = deployment.documents.document("others/x/chart_export_leases/step")
        elsewhere.set(lease.to_document())
        workers.new().rescue.search()
        assert elsewhere.get().exists


class TestWhenNot:
    """When a worker must not rescue."""

    def test_a_draining_worker_starts_no_rescue(self, deployment, workers):
        """When the worker drains, the current step is the last."""
        run_id, _ = _abandoned(deployment, workers, steps=3)
        worker = workers.new()
        worker.rescue.start()  # its own thread starts the next scan in about a minute
        deployment.cloud.chart_img.faults.add(
            Fault(method=CHART, times=1, before=lambda _request: worker.drain.start())
        )
        worker.rescue.search()
        assert sorted(_statuses(deployment, run_id)) == ["RUNNING", "RUNNING", "SUCCEEDED"]
        worker.rescue.search()
        assert sorted(_statuses(deployment, run_id)) == ["RUNNING", "RUNNING", "SUCCEEDED"]

    @embedded
    def test_a_worker_that_drains_reads_and_deletes_nothing_more(self, deployment, workers):
        """A draining worker reads and deletes nothing more."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        workers.set_step(run_id, step_id, status="SUCCEEDED")
        worker = workers.new()
        worker.rescue.start()
        worker.drain.start()
        reads = deployment.cloud.firestore.calls["BatchGetDocuments"]
        worker.rescue.search()
        assert deployment.cloud.firestore.calls["BatchGetDocuments"] == reads
        assert workers.lease(run_id, step_id) is not None

    def test_no_rescue_while_intake_is_paused(self, deployment, workers):
        """No rescue runs while intake is paused because a backend is unavailable."""
        run_id, _ = _abandoned(deployment, workers)
        worker = workers.new()
        for _ in range(5):
            worker.breaker.record_failure(BackendUnavailable("storage", "x"))
        worker.rescue.search()
        assert _statuses(deployment, run_id) == ["RUNNING"]

    def test_an_unavailable_backend_costs_each_step_one_try(self, deployment, workers):
        """When a backend fails, each step is tried once and released, and the next one is tried too."""
        run_id, step_ids = _abandoned(deployment, workers, steps=2)
        deployment.cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        workers.new(STEP_TIMEOUT_SECONDS="1").rescue.search()
        assert [workers.lease(run_id, step_id).released for step_id in step_ids] == [1, 1]
        assert _statuses(deployment, run_id) == ["RUNNING", "RUNNING"]

    def test_a_stop_in_the_middle_gives_the_step_back(self, deployment, workers):
        """A stop during the work releases the step for the next rescue."""
        run_id, (step_id,) = _abandoned(deployment, workers)
        worker = workers.new()
        deployment.cloud.chart_img.faults.add(
            Fault(method=CHART, times=1, before=lambda _request: worker.drain.stop_steps())
        )
        worker.rescue._search_safely()
        assert workers.lease(run_id, step_id).is_released
        assert _statuses(deployment, run_id) == ["RUNNING"]
