"""Releases: how long a step waits for its next claim, how they are counted, and how long they may take."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from localcloud import Fault
from tests.support.fakes import HandClock
from tests.support.ledger.ledger_process import STEPS, Gate, LedgerProcess, in_thread
from tests.support.metric_counts import value
from worker_chart_export.errors import AccountsExhausted, BackendUnavailable, Interrupted, RunInvalid
from worker_chart_export.ledger.decisions import Reason, ReleaseResult
from worker_chart_export.ledger.releases import outage_error

OUTAGE = BackendUnavailable("storage", "503")


def test_the_error_of_an_outage_names_its_backend():
    """The backend without a code of its own leaves the step without time."""
    assert (outage_error(OUTAGE).code, outage_error(OUTAGE).details) == (
        "GCS_WRITE_FAILED",
        {"backend": "storage"},
    )
    assert outage_error(BackendUnavailable("firestore", "503")).code == "STEP_TIMEOUT"


@pytest.mark.parametrize(
    ("cause", "label", "claims", "released", "least", "most"),
    [
        (None, "shutdown", 7, 3, 0, 0),
        (Interrupted("stop"), "shutdown", 7, 3, 0, 0),
        (OUTAGE, "backend", 7, 3, 1, 10),
        (AccountsExhausted("none"), "accounts", 7, 3, 30, 60),
        (RunInvalid("no"), "refusal", 7, 0, 1, 120),
        (RunInvalid("no"), "refusal", 7, 6, 1, 10),
    ],
)
def test_a_released_step_waits_as_its_cause_needs(run, worker, cause, label, claims, released, least, most):
    """Only the delay after a refusal grows, with the attempts: claims that did not end in a release."""
    before = value("leases_released_total", cause=label) or 0
    now, delays = datetime.now(UTC), []
    for name in STEPS:
        claim = worker.claim(run.run_id, name)
        run.lease_reference(name).update({"attempt": claims, "released": released})
        lease = replace(claim.held.lease, attempt=claims, released=released)
        claim.held.stored = replace(claim.held.stored, lease=lease)
        assert worker.ledger.release(claim, cause=cause).released
        lease = run.lease(name)
        delays.append((lease["expiresAt"] - now).total_seconds())
        assert (lease["attempt"], lease["released"]) == (claims, released + (label != "refusal"))
    assert all(least <= delay <= most + 5 for delay in delays), delays
    assert (max(delays) > 15) is (most > 15), delays
    assert value("leases_released_total", cause=label) == before + len(STEPS)


@pytest.mark.parametrize(("cause", "tries"), [(None, 2), (OUTAGE, 5)])
def test_a_release_is_tried_for_a_while(run, documents, cloud, cause, tries):
    """A worker that stops has less time for it: two seconds in place of five."""
    clock = HandClock()
    worker = LedgerProcess(documents, clock=clock)
    claim = worker.claim(run.run_id, "s0")
    cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE"))
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", before=lambda _request: clock.advance(1.1)))
    cloud.firestore.calls.reset()
    assert worker.ledger.release(claim, cause=cause) == ReleaseResult(released=False, reason=Reason.UNKNOWN)
    assert cloud.firestore.calls["BatchGetDocuments"] == tries


def test_a_release_waits_for_a_heartbeat_that_renews_the_lease(run, worker, cloud):
    """Each would find that the lease has changed, and the heartbeat would take it for lost."""
    claim = worker.claim(run.run_id, "s0")
    gate = Gate(cloud, method="BatchWrite")
    beat = in_thread(worker.heartbeats.beat)
    assert gate.reached.wait(10)
    release = in_thread(lambda: worker.ledger.release(claim))
    with pytest.raises(TimeoutError):
        release.result(0.1)
    gate.open.set()
    assert beat.result(10)
    assert release.result(10).released
    assert not claim.held.is_lost


def test_the_lines_of_a_claim_and_its_release_say_whose_they_are(run, worker, log_lines):
    """Without a read before, that would name the flow."""
    worker.ledger.release(worker.ledger.claim(run.run_id, "s0"))
    lines = {line["event"]: line for line in log_lines()}
    flow_key = run.reference.get().get("flowKey")
    assert {line["flowKey"] for line in lines.values()} == {flow_key}
    assert {line["attempt"] for line in lines.values()} == {1}
    assert set(lines) == {"claim_attempt", "lease_released"}


class TestAll:
    """The releases of a process that ends."""

    def test_every_lease_is_released_before_it_returns(self, run, worker, cloud):
        """They share their commits."""
        for name in STEPS:
            worker.claim(run.run_id, name)
        cloud.firestore.faults.add(Fault(method="Commit", delay_seconds=0.05))
        worker.ledger.release_all(within_seconds=10)
        assert [run.lease(name)["token"] for name in STEPS] == [""] * len(STEPS)
        assert worker.heartbeats.held() == []

    def test_it_waits_at_most_so_long(self, run, worker, cloud):
        """A release that hangs ends with the process."""
        worker.claim(run.run_id, "s0")
        gate = Gate(cloud)
        started = time.monotonic()
        worker.ledger.release_all(within_seconds=0.01)
        seconds = time.monotonic() - started
        threads = [thread for thread in threading.enumerate() if thread.name == "release"]
        gate.open.set()
        assert seconds < 1
        assert [thread.daemon for thread in threads] == [True]

    def test_without_threads_the_leases_are_released_one_by_one(self, run, worker, monkeypatch):
        """The system refuses all but one thread; this can't be had from a fault."""
        for name in STEPS:
            worker.claim(run.run_id, name)
        start = threading.Thread.start

        def refuse(thread):
            if thread.name == "release" and any(other.name == "release" for other in started):
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)

        started = []
        monkeypatch.setattr(threading.Thread, "start", refuse)
        worker.ledger.release_all(within_seconds=10)
        assert [run.lease(name)["token"] for name in STEPS] == [""] * len(STEPS)
