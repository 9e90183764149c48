"""Steps that are RUNNING without a lease although their result is in the bucket: nothing is paid again.

An orchestrator causes this when it writes a whole run that it read before a step ended.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.handling.disposition import Ack
from localcloud import Fault
from tests.support.process.in_process_worker import Workers

embedded = pytest.mark.parametrize("deployment", ["embedded"], indirect=True)


@pytest.fixture
def workers(deployment):
    """Create workers."""
    with Workers(deployment) as made:
        yield made


class Overwritten:
    """A run of one step with two charts that ended, and that the orchestrator then wrote over.

    Attributes:
        result: The step as the worker finalized it.
    """

    def __init__(self, deployment, worker, **step: Any) -> None:
        self.deployment = deployment
        self.run_id, (self.step_id,) = deployment.put_run(charts=2, **step)
        self.reference = deployment.documents.document(f"flow_runs/{self.run_id}")
        stale = deployment.run(self.run_id)
        stale["steps"][self.step_id]["status"] = "RUNNING"
        worker.handle(self.run_id, self.step_id)
        self.result = deployment.step(self.run_id, self.step_id)
        self.calls = len(deployment.cloud.chart_img.requests)
        self.reference.set(stale)

    def step(self) -> dict[str, Any]:
        """Return the step as it is now."""
        return self.deployment.step(self.run_id, self.step_id)

    def change(self, **fields: Any) -> None:
        """Change fields of the step."""
        paths = {
            self.deployment.documents.field_path("steps", self.step_id, name): value
            for name, value in fields.items()
        }
        self.reference.update(paths)

    def manifest(self) -> Any:
        """Return the object of the manifest."""
        bucket = self.deployment.objects.bucket(self.deployment.bucket)
        return bucket.blob(f"charts/{self.run_id}/{self.step_id}/manifest.json")

    def nothing_was_paid(self) -> bool:
        """Whether no chart was asked for since the step was overwritten."""
        return len(self.deployment.cloud.chart_img.requests) == self.calls

    def is_restored(self) -> bool:
        """Whether the step has its result again; only the finishing time is new."""
        return {**self.step(), "finishedAt": ""} == {**self.result, "finishedAt": ""}


@pytest.mark.parametrize("names_the_step", [True, False])
def test_a_step_is_finalized_from_its_manifest(deployment, workers, log_lines, names_the_step):
    """The step gets its result again, from a message with or without its id, and no lease is left."""
    worker = workers.new()
    run = Overwritten(deployment, worker)
    log_lines().clear()
    reason = worker.handle(run.run_id, run.step_id if names_the_step else None).reason
    assert reason == ("succeeded" if names_the_step else "final")
    assert run.is_restored()
    assert run.nothing_was_paid()
    assert workers.lease(run.run_id, run.step_id) is None
    events = [line["event"] for line in log_lines()]
    assert (events.count("step_unleased"), events.count("step_completed")) == (1, 2)


def test_a_failed_step_gets_its_error_again(deployment, workers):
    """A step whose charts failed becomes FAILED with the same error; no chart is asked for again."""
    deployment.cloud.chart_img.faults.add(Fault(answer="invalid_symbol"))
    worker = workers.new()
    run = Overwritten(deployment, worker)
    assert run.result["status"] == "FAILED"
    assert worker.handle(run.run_id, run.step_id) == Ack(reason="failed")
    assert run.is_restored()
    assert run.nothing_was_paid()


@pytest.mark.parametrize("is_rescued", [True, False])
def test_a_step_that_waits_for_its_unknown_worker_is_finalized_too(deployment, workers, is_rescued):
    """When the grace of a step without a lease is over, its manifest counts before any chart is made."""
    worker = workers.new()
    run = Overwritten(deployment, worker)
    workers.put_lease(run.run_id, run.step_id, owner="unknown", message_id="")
    if is_rescued:
        worker.rescue.search()
    else:
        assert worker.handle(run.run_id, run.step_id) == Ack(reason="succeeded")
    assert run.is_restored()
    assert run.nothing_was_paid()
    assert workers.lease(run.run_id, run.step_id) is None


def test_all_steps_of_an_overwritten_run_get_their_results(deployment, workers):
    """After a write of a whole run one message for the run restores all its steps; nothing is paid again."""
    run_id, step_ids = deployment.put_run(steps=10, charts=1)
    reference, worker = deployment.documents.document(f"flow_runs/{run_id}"), workers.new()
    stale = deployment.run(run_id)
    for step_id in step_ids:
        stale["steps"][step_id]["status"] = "RUNNING"
    worker.handle(run_id)
    calls = len(deployment.cloud.chart_img.requests)
    reference.set(stale)
    assert worker.handle(run_id) == Ack(reason="final")
    assert {deployment.step(run_id, step_id)["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert len(deployment.cloud.chart_img.requests) == calls == 10


def test_a_step_that_was_overwritten_after_its_end_is_found_without_a_message(deployment, workers):
    """The process that finished a step looks at it once more, and restores its result."""
    worker = workers.new()
    worker.rescue._interval_seconds = 0.0
    run = Overwritten(deployment, worker)
    worker.rescue.search()
    assert run.is_restored()
    assert run.nothing_was_paid()
    assert workers.lease(run.run_id, run.step_id) is None


@embedded
def test_a_step_is_looked_at_once_more_and_not_before_its_time(deployment, workers):
    """A step is read again once, an interval after its end, and nothing is written when it has its result."""
    worker = workers.new()
    run_id, (step_id,) = deployment.put_run(charts=1)
    worker.handle(run_id, step_id)
    calls, reads = deployment.cloud.firestore.calls, []
    for interval_seconds in (60.0, 0.0, 0.0):
        calls.reset()
        worker.rescue._interval_seconds = interval_seconds
        worker.rescue.search()
        assert calls["Commit"] == 0
        reads.append(calls["BatchGetDocuments"])
    assert reads == [reads[0], reads[0] + 1, reads[0]]


@embedded
@pytest.mark.parametrize("is_held", [True, False])
def test_an_overwritten_step_without_a_manifest_is_given_a_lease_unless_it_has_one(
    deployment, workers, is_held
):
    """A step without a manifest gets the lease of an unknown owner; the lease of a worker is left alone."""
    worker = workers.new()
    worker.rescue._interval_seconds = 0.0
    run = Overwritten(deployment, worker)
    run.manifest().delete()
    if is_held:
        workers.put_lease(run.run_id, run.step_id, left_seconds=60)
    worker.rescue.search()
    lease = workers.lease(run.run_id, run.step_id)
    assert lease is not None
    assert (run.step()["status"], lease.owner) == ("RUNNING", "elsewhere:1:boot" if is_held else "unknown")
    assert run.nothing_was_paid()


def _other_requests(run: Overwritten) -> None:
    inputs = run.step()["inputs"]
    run.change(inputs={**inputs, "requests": inputs["requests"][::-1]})


def _fewer_requests(run: Overwritten) -> None:
    run.change(inputs={"requests": run.step()["inputs"]["requests"][:1]})


def _fewer_charts_needed(run: Overwritten) -> None:
    run.change(inputs={**run.step()["inputs"], "minImages": 1})


def _another_symbol(run: Overwritten) -> None:
    run.reference.update({"scope.symbol": "MSFT"})


def _another_timeframe(run: Overwritten) -> None:
    run.change(timeframe="1w")


def _invalid_request(run: Overwritten) -> None:
    run.change(inputs={"requests": []})


def _no_manifest(run: Overwritten) -> None:
    run.manifest().delete()


def _cut_off_manifest(run: Overwritten) -> None:
    run.manifest().upload_from_string(run.manifest().download_as_bytes()[:-1])


def _manifest_of_another_step(run: Overwritten) -> None:
    manifest = json.loads(run.manifest().download_as_bytes())
    run.manifest().upload_from_string(json.dumps({**manifest, "stepId": "another"}))


def _a_result_is_missing(run: Overwritten) -> None:
    manifest = json.loads(run.manifest().download_as_bytes())
    run.manifest().upload_from_string(json.dumps({**manifest, "items": manifest["items"][:1]}))


def _too_large_manifest(run: Overwritten) -> None:
    run.manifest().upload_from_string(run.manifest().download_as_bytes() + b" " * 65536)


def _forbidden_manifest(run: Overwritten) -> None:
    run.deployment.cloud.storage.faults.add(Fault(match="manifest.json", error=403))


@embedded
@pytest.mark.parametrize(
    "change",
    [
        _other_requests,
        _fewer_requests,
        _fewer_charts_needed,
        _another_symbol,
        _another_timeframe,
        _invalid_request,
        _no_manifest,
        _cut_off_manifest,
        _manifest_of_another_step,
        _a_result_is_missing,
        _too_large_manifest,
        _forbidden_manifest,
    ],
)
def test_without_a_manifest_of_exactly_these_requests_the_step_gets_a_lease(deployment, workers, change):
    """Any other manifest shows no result of the step as it is now: its unknown worker keeps its time."""
    worker = workers.new()
    run = Overwritten(deployment, worker)
    change(run)
    assert worker.handle(run.run_id, run.step_id) == Ack(reason="unleased")
    assert run.step()["status"] == "RUNNING"
    lease = workers.lease(run.run_id, run.step_id)
    assert lease is not None
    assert lease.owner == "unknown"
    assert run.nothing_was_paid()


@embedded
def test_a_bucket_that_is_unavailable_defers_the_message(deployment, workers):
    """While the manifest can't be read because of an outage, the step stays as it is."""
    worker = workers.new(STEP_TIMEOUT_SECONDS="1")
    run = Overwritten(deployment, worker)
    deployment.cloud.storage.faults.add(Fault(match="manifest.json", error=503))
    assert worker.handle(run.run_id, run.step_id).reason == "storage_unavailable"
    assert (run.step()["status"], workers.lease(run.run_id, run.step_id)) == ("RUNNING", None)


@embedded
def test_the_real_worker_of_the_step_wins_when_it_is_first(deployment, workers):
    """A worker without a lease that finalizes just before the commit wins: the commit names what was read."""
    worker = workers.new()
    run = Overwritten(deployment, worker)
    theirs = {
        "status": "FAILED",
        "finishedAt": "2025-12-15T10:26:15Z",
        "error": {"code": "X", "message": "x"},
    }
    deployment.cloud.firestore.faults.add(
        Fault(method="Commit", match=run.run_id, times=1, before=lambda _request: run.change(**theirs))
    )
    assert worker.handle(run.run_id, run.step_id) == Ack(reason="final")
    assert {name: run.step()[name] for name in theirs} == theirs
    assert "gcs_uri" not in run.step()["outputs"]


@embedded
def test_a_worker_that_has_the_step_by_now_is_not_disturbed(deployment, workers):
    """A step that was made READY and claimed since the read belongs to its new worker."""
    first, second = workers.new(), workers.new()
    run = Overwritten(deployment, first)
    claimed = []

    def take(_request: object) -> None:
        run.change(status="READY")
        claimed.append(second.worker.ledger.claim(run.run_id, run.step_id))

    deployment.cloud.firestore.faults.add(Fault(method="Commit", match=run.run_id, times=1, before=take))
    assert first.handle(run.run_id, run.step_id) == Ack(reason="duplicate")
    assert run.step()["status"] == "RUNNING"
    lease = workers.lease(run.run_id, run.step_id)
    assert lease is not None
    assert lease.token == claimed[0].held.lease.token


@embedded
def test_a_step_that_is_ready_again_is_run_again(deployment, workers):
    """READY means that the orchestrator wants the step to run again, whatever is in the bucket."""
    worker = workers.new()
    run = Overwritten(deployment, worker)
    run.change(status="READY")
    assert worker.handle(run.run_id, run.step_id) == Ack(reason="succeeded")
    assert not run.nothing_was_paid()
