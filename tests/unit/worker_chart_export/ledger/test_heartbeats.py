"""Heartbeats: what one reads and renews, and how long it waits for Firestore."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from localcloud import Fault
from tests.support.fakes import HandClock
from tests.support.ledger.ledger_process import STEPS, TERMS, LedgerProcess
from worker_chart_export.errors import BackendUnavailable, LeaseLost
from worker_chart_export.ledger import heartbeats
from worker_chart_export.ledger.lease import Lease


def test_a_heartbeat_says_whether_there_was_a_lease(run, worker):
    """Only a heartbeat with a lease asks Firestore, and so shows that it answers."""
    assert not worker.heartbeats.beat()
    worker.claim(run.run_id, "s0")
    assert worker.heartbeats.beat()


def test_each_lease_that_is_not_lost_is_renewed(run, worker):
    """The lost leases of a heartbeat do not cost the others their renewal."""
    claims = [worker.claim(run.run_id, name) for name in STEPS]
    before = [claim.held.lease for claim in claims]
    for name in STEPS[::2]:
        run.set_status(name, "CANCELLED")
    worker.heartbeats.beat()
    assert [claim.held.is_lost for claim in claims] == [True, False] * 4
    for name, claim, old in list(zip(STEPS, claims, before, strict=True))[1::2]:
        assert claim.held.lease == Lease.parse(run.lease(name))
        assert claim.held.lease == replace(old, expires_at=claim.held.lease.expires_at)
        assert claim.held.lease.expires_at > old.expires_at


def test_the_work_of_a_run_that_is_final_ends(run, worker):
    """Whatever the orchestrator left of its steps."""
    claim = worker.claim(run.run_id, "s0")
    run.reference.update({"status": "CANCELLED"})
    worker.heartbeats.beat()
    with pytest.raises(LeaseLost, match="the run is CANCELLED"):
        claim.held.check()


def test_a_heartbeat_reads_only_what_it_decides_by(run, worker, cloud):
    """Run documents are large: a heartbeat reads the statuses of the run and of the steps that are held."""
    for name in STEPS[:2]:
        worker.claim(run.run_id, name)
    read = []
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", before=read.append, times=1))
    worker.heartbeats.beat()
    fields = {"status", "token", "releasedBy", "steps.s0.status", "steps.s1.status"}
    assert set(read[0].mask.field_paths) == fields


@pytest.mark.parametrize("method", ["BatchGetDocuments", "BatchWrite"])
def test_a_heartbeat_waits_for_firestore_for_a_third_of_a_lease(run, documents, cloud, method):
    """While it waits it renews no lease, so a call that hangs must end in time for the next heartbeat."""
    terms = replace(TERMS, lease_seconds=0.3, clock_skew_seconds=0.0)
    worker = LedgerProcess(documents, terms=terms)
    worker.claim(run.run_id, "s0")
    cloud.firestore.faults.add(Fault(method=method, delay_seconds=0.4, times=1))
    with pytest.raises(BackendUnavailable, match="DeadlineExceeded"):
        worker.heartbeats.beat()


def test_a_lease_whose_renewal_failed_keeps_its_guard(run, worker, cloud):
    """The client does not repeat a renewal. The next write still proves that the lease is this one."""
    claim = worker.claim(run.run_id, "s0")
    run.lease_reference("s0").update({"messageId": "changed"})  # so that only the heartbeat knows the version
    cloud.firestore.calls.reset()
    cloud.firestore.faults.add(Fault(method="BatchWrite", error="UNAVAILABLE", times=1))
    with pytest.raises(BackendUnavailable):
        worker.heartbeats.beat()
    assert cloud.firestore.calls["BatchWrite"] == 1
    assert claim.held.stored.update_time == run.lease_reference("s0").get().update_time


class Waits:
    """An event whose waits are noted, and that is set after the fourth."""

    def __init__(self) -> None:
        self.seconds = []

    def wait(self, seconds):
        """Note the wait."""
        self.seconds.append(seconds)
        return len(self.seconds) > 4


def test_after_a_heartbeat_that_failed_the_next_one_comes_sooner(run, documents, monkeypatch):
    """A lease that is overdue is lost also while no heartbeat succeeds."""
    clock = HandClock()
    worker = LedgerProcess(documents, clock=clock)
    held = worker.claim(run.run_id, "s0").held
    outage, answers, heard, is_lost = BackendUnavailable("firestore", "503"), [], [], []

    def beat():
        is_lost.append(held.is_lost)
        clock.advance(40)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    answers += [False, ValueError("a mistake"), outage, True]
    monkeypatch.setattr(worker.heartbeats, "beat", beat)
    monkeypatch.setattr(worker.heartbeats, "_ended", Waits())
    worker.heartbeats._run(lambda: heard.append("tick"), heard.append, lambda: heard.append("success"))
    assert worker.heartbeats._ended.seconds == [20, 20, 5, 5, 20]
    assert heard == ["tick", "tick", "tick", outage, "tick", "success"]
    assert is_lost == [False, False, True, True]


def test_a_stop_does_not_wait_for_a_heartbeat_that_hangs(run, documents, cloud, monkeypatch):
    """The process ends; its leases are released by other calls."""
    monkeypatch.setattr(heartbeats, "MAX_STOP_SECONDS", 0.01)
    worker = LedgerProcess(documents, terms=replace(TERMS, heartbeat_seconds=0.01))
    worker.claim(run.run_id, "s0")
    reached, ended = threading.Event(), threading.Event()

    def hang(_request):
        reached.set()
        ended.wait(5)

    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", before=hang, times=1))
    worker.heartbeats.start()
    assert reached.wait(10)
    worker.heartbeats.stop()
    thread = worker.heartbeats._thread
    assert (thread.is_alive(), thread.daemon) == (True, True)
    ended.set()


def test_the_age_of_the_oldest_renewal(run, documents):
    """The age counts from the claim or the last renewal. Without leases nothing is old."""
    clock = HandClock()
    worker = LedgerProcess(documents, clock=clock)
    assert worker.heartbeats.renewal_age_seconds() == 0.0
    worker.claim(run.run_id, "s0")
    clock.advance(7)
    worker.claim(run.run_id, "s1")
    assert worker.heartbeats.renewal_age_seconds() == pytest.approx(7)
    worker.heartbeats.beat()
    assert worker.heartbeats.renewal_age_seconds() == 0.0
