"""Leases on real Firestore servers: one winner, fencing, heartbeats, rescue and release."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest

from tests.support.ledger.ledger_process import LedgerProcess, StoredRun
from tests.support.ledger.samples import ERROR
from worker_chart_export.errors import LeaseLost, StepError
from worker_chart_export.ledger.expired_leases import expired_leases
from worker_chart_export.ledger.lease import LeaseTerms
from worker_chart_export.ledger.step_ledger import Claim


@pytest.fixture
def deployed_step(deployment):
    """Return a run with one READY step: the run, the step's id, and two workers."""
    run_id, (step_id,) = deployment.put_run()
    run = StoredRun(deployment.documents, run_id)
    return run, step_id, LedgerProcess(deployment.documents), LedgerProcess(deployment.documents)


def test_of_two_hundred_claims_by_two_workers_each_step_is_won_once_and_ended_once(deployment):
    """With 32 threads every step is won and finalized once, and one commit serves many of them."""
    run_id, step_ids = deployment.put_run(steps=100)
    workers = [LedgerProcess(deployment.documents), LedgerProcess(deployment.documents)]
    deployment.cloud.firestore.calls.reset()

    def work(job):
        worker, step_id = job
        claim = worker.try_claim(run_id, step_id)
        return [worker.succeed(claim).updated] if isinstance(claim, Claim) else []

    jobs = [(worker, step_id) for step_id in step_ids for worker in workers]
    with ThreadPoolExecutor(32) as threads:
        ended = [updated for updates in threads.map(work, jobs) for updated in updates]
    assert ended == [True] * 100
    document = deployment.run(run_id)
    assert {document["steps"][step_id]["status"] for step_id in step_ids} == {"SUCCEEDED"}
    assert list(deployment.documents.collection(f"flow_runs/{run_id}/chart_export_leases").stream()) == []
    assert deployment.cloud.firestore.calls["Commit"] < 200  # 200 when claimed one by one without a lost race


def test_a_claim_writes_the_lease_with_the_step(deployed_step):
    """A claim writes the lease with the step, with the server's times."""
    run, step_id, worker, _ = deployed_step
    claim = worker.claim(run.run_id, step_id)
    lease = run.lease(step_id)
    assert (lease["owner"], lease["attempt"], lease["released"]) == (worker.ledger.owner, 1, 0)
    assert (lease["messageId"], lease["startedAt"]) == ("m", claim.started_at)
    assert lease["expiresAt"] - lease["acquiredAt"] == timedelta(seconds=60)
    assert run.step(step_id)["status"] == "RUNNING"


def test_of_two_rescuers_at_once_one_wins(deployed_step):
    """Of two simultaneous rescuers one wins: the lease is the fence, because the run does not change."""
    run, step_id, first, second = deployed_step
    first.claim(run.run_id, step_id)
    for attempt in range(2, 8):
        run.lease_reference(step_id).update({"released": attempt - 1})
        run.let_lease_end(step_id)
        start = threading.Barrier(2)

        def rescue(worker, start=start):
            snapshot = worker.ledger.read(run.run_id, leases_of=[step_id])
            start.wait(10)
            return worker.ledger.claim(run.run_id, step_id, snapshot=snapshot)

        with ThreadPoolExecutor(2) as threads:
            claims = [claim for claim in threads.map(rescue, (first, second)) if isinstance(claim, Claim)]
        assert [claim.attempt for claim in claims] == [attempt]
        assert run.lease(step_id)["token"] == claims[0].held.lease.token


def test_a_released_step_is_taken_over_at_once(deployed_step):
    """A released step is taken over at once by the next attempt, with the same start time."""
    run, step_id, first, second = deployed_step
    claim = first.claim(run.run_id, step_id)
    assert first.ledger.release(claim).released
    assert (run.step(step_id)["status"], run.lease(step_id)["token"]) == ("RUNNING", "")
    again = second.claim(run.run_id, step_id)
    assert (again.attempt, again.held.lease.released, again.started_at) == (2, 1, claim.started_at)


def test_a_worker_that_was_frozen_too_long_is_fenced(deployed_step):
    """A worker frozen past its lease can't write its result; the new owner finalizes."""
    run, step_id, frozen, rescuer = deployed_step
    late = frozen.claim(run.run_id, step_id)
    run.let_lease_end(step_id)
    claim = rescuer.claim(run.run_id, step_id)
    assert (frozen.fail(late).updated, frozen.fail(late).reason) == (False, "fenced")
    assert not frozen.ledger.release(late).released
    assert rescuer.succeed(claim).updated
    assert run.lease(step_id) is None


def test_a_worker_that_was_frozen_too_long_loses_its_lease_at_the_next_heart_beat(deployed_step):
    """The next heartbeat of a worker frozen past its lease fails, and its local work stops."""
    run, step_id, frozen, rescuer = deployed_step
    late = frozen.claim(run.run_id, step_id)
    lost: list[LeaseLost] = []
    late.held.on_lost(lost.append)
    run.let_lease_end(step_id)
    taken = rescuer.claim(run.run_id, step_id)
    frozen.heartbeats.beat()
    assert "another worker has taken it" in str(lost[0])
    with pytest.raises(LeaseLost):
        frozen.ledger.confirm(late)
    assert run.lease(step_id)["token"] == taken.held.lease.token


def test_heartbeats_renew_all_leases_and_never_write_the_run(deployment):
    """Heartbeats renew all leases without writing the run, which allows about one write a second."""
    run_id, step_ids = deployment.put_run(steps=3)
    run, worker = StoredRun(deployment.documents, run_id), LedgerProcess(deployment.documents)
    claims = [worker.claim(run_id, step_id) for step_id in step_ids]
    for step_id in step_ids:
        run.let_lease_end(step_id)
    before = run.update_time()
    worker.heartbeats.beat()
    assert run.update_time() == before
    assert all(run.lease(step_id)["expiresAt"] > datetime.now(UTC) for step_id in step_ids)
    assert all(worker.succeed(claim).updated for claim in claims)


@pytest.mark.parametrize("change", ["cancelled", "step_gone", "run_gone", "run_cancelled"])
def test_work_that_the_orchestrator_ended_is_lost_with_the_next_heart_beat(deployed_step, change):
    """Work that the orchestrator ended is lost at the next heartbeat; other leases are renewed."""
    run, step_id, worker, _ = deployed_step
    claim = worker.claim(run.run_id, step_id)
    match change:
        case "cancelled":
            run.set_status(step_id, "CANCELLED")
        case "step_gone":
            run.reference.update({"steps": {}})
        case "run_gone":
            run.reference.delete()
        case "run_cancelled":
            run.reference.update({"status": "CANCELLED"})
    worker.heartbeats.beat()
    with pytest.raises(LeaseLost):
        claim.held.check()


def test_a_lease_that_is_still_held_is_confirmed(deployed_step):
    """A held lease is confirmed by its current state in Firestore."""
    run, step_id, worker, _ = deployed_step
    worker.ledger.confirm(worker.claim(run.run_id, step_id))


def test_a_step_running_without_a_lease_gets_one_that_ends(deployed_step):
    """A RUNNING step without a lease gets one that expires, and is then rescued."""
    run, step_id, worker, rescuer = deployed_step
    run.set_status(step_id, "RUNNING")
    result = worker.try_claim(run.run_id, step_id)
    assert not isinstance(result, Claim)
    assert result.reason == "unleased"
    now = datetime.now(UTC)
    worker.ledger.adopt(run.run_id, step_id, now=now)
    lease = run.lease(step_id)
    assert (lease["owner"], lease["expiresAt"]) == ("unknown", now + timedelta(seconds=3600))
    run.let_lease_end(step_id)
    assert rescuer.claim(run.run_id, step_id).attempt == 2


def test_a_lease_that_is_there_is_never_replaced_by_an_unknown_one(deployed_step):
    """An existing lease is not replaced by one of an unknown owner."""
    run, step_id, worker, other = deployed_step
    worker.claim(run.run_id, step_id)
    before = run.lease(step_id)
    other.ledger.adopt(run.run_id, step_id, now=None)
    assert run.lease(step_id) == before


def test_without_grace_an_unleased_step_is_left_alone(deployment, deployed_step):
    """With a grace of 0 a RUNNING step gets no lease."""
    run, step_id, _, _ = deployed_step
    worker = LedgerProcess(deployment.documents, terms=LeaseTerms(unleased_grace_seconds=0))
    worker.ledger.adopt(run.run_id, step_id, now=None)
    assert run.lease(step_id) is None


def test_a_process_that_ends_releases_all_it_holds(deployment):
    """A process that ends releases all leases that it holds, of several runs at once."""
    runs = [(run_id, step_ids) for run_id, step_ids in (deployment.put_run(steps=3) for _ in range(2))]
    worker = LedgerProcess(deployment.documents)
    claims = [worker.claim(run_id, step_id) for run_id, step_ids in runs for step_id in step_ids]
    worker.succeed(claims[0])
    worker.ledger.forget(claims[0])
    worker.ledger.release_all(within_seconds=10)
    left = [StoredRun(deployment.documents, run_id).lease(name) for run_id, names in runs for name in names]
    assert left[0] is None
    assert [(lease["token"], lease["released"]) for lease in left[1:]] == [("", 1)] * 5
    assert worker.heartbeats.held() == []


def test_expired_leases_are_found_page_by_page_also_those_of_one_instant(deployment):
    """Expired leases are found page by page, also those of one instant, and no valid one."""
    run_id, step_ids = deployment.put_run(steps=7)
    run, worker = StoredRun(deployment.documents, run_id), LedgerProcess(deployment.documents)
    for step_id in step_ids:
        worker.claim(run_id, step_id)
    for step_id in step_ids[:5]:
        run.let_lease_end(step_id)
    pages = list(expired_leases(deployment.documents, before=datetime(2020, 1, 2, tzinfo=UTC), page_size=2))
    found = [expired.step_id for page in pages for expired in page if expired.run_id == run_id]
    assert sorted(found) == step_ids[:5]
    assert max(len(page) for page in pages) == 2


def test_a_lease_without_a_step_is_deleted_only_unchanged(deployed_step):
    """A lease without a step is deleted only if it is unchanged since it was read."""
    run, step_id, worker, _ = deployed_step
    worker.claim(run.run_id, step_id)
    stale = worker.ledger.read(run.run_id, leases_of=[step_id]).leases[step_id]
    run.let_lease_end(step_id)
    assert not worker.ledger.delete_lease(run.run_id, step_id, stale)
    newest = worker.ledger.read(run.run_id, leases_of=[step_id]).leases[step_id]
    assert worker.ledger.delete_lease(run.run_id, step_id, newest)
    assert run.lease(step_id) is None
    assert not worker.ledger.delete_lease(run.run_id, step_id, newest)


@pytest.mark.parametrize("unstorable", [2**70, reduce(lambda inner, _: {"in": inner}, range(25), 1)])
def test_an_error_that_firestore_can_t_store_is_replaced_and_harms_no_other(deployment, unstorable):
    """An error that Firestore refuses is replaced by a minimal one, and the step is FAILED."""
    run_id, step_ids = deployment.put_run(steps=4)
    run, worker = StoredRun(deployment.documents, run_id), LedgerProcess(deployment.documents)
    claims = [worker.claim(run_id, step_id) for step_id in step_ids]
    errors = [StepError("CHART_API_FAILED", "no", {"value": unstorable}), ERROR, ERROR, ERROR]
    with ThreadPoolExecutor(4) as threads:
        assert all(result.updated for result in threads.map(worker.fail, claims, errors))
    assert run.step(step_ids[0])["error"]["code"] == "CHART_API_FAILED"
    assert "refused to store" in run.step(step_ids[0])["error"]["message"]
    assert {run.step(step_id)["error"]["message"] for step_id in step_ids[1:]} == {"no"}
