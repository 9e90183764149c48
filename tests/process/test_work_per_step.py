"""The number of calls per step: work is counted here, time is measured in the benchmarks."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from daemon.handling.fleet_member import LOOK_SECONDS, LOOKS_PER_HEARTBEAT
from localcloud.faults import Fault
from localcloud.firestore.writes import target

STEPS, CHARTS = 5, 3
RUNS, TEMPLATES, USAGE = "flow_runs", "chart_templates", "chart_img_accounts_usage"
#: What a daemon reads and writes by the clock, whatever the steps are: every 15 and every 30 s.
FLEET = {"chart_export_control", "chart_export_workers"}
#: Timed events: a heartbeat of leases every 1,200 s, and at random times up to a day and 540 s after the
#: start the first scan of the rescue and the client's first extension of its Pub/Sub messages.
SELDOM = {"LEASE_SECONDS": "3600", "RESCUE_INTERVAL_SECONDS": "86400", "ACK_EXTENSION_SECONDS": "600"}


class Counted:
    """The calls of the embedded cloud from `begin` on."""

    def __init__(self, deployment):
        self._cloud = deployment.cloud
        self._read: list[str] = []
        self._sent: list[str] = []
        self._commits_before = 0
        self._began = 0.0

    def begin(self):
        """Start counting."""
        firestore = self._cloud.firestore
        self._began = time.monotonic()
        self._commits_before = len(firestore.commits)
        firestore.faults.add(Fault(method="BatchGetDocuments", before=self._note_read))
        firestore.faults.add(Fault(method="Commit", before=self._note_commit))
        for service in self._cloud.services.values():
            service.calls.reset()

    def _note_read(self, request):
        self._read.extend(_collection(name) for name in request.documents)

    def _note_commit(self, request):
        self._sent.append(_collection(target(request.writes[0])))

    @property
    def read(self):
        """Return the documents read per collection; a run's leases count as its collection."""
        return _without_fleet(self._read)

    @property
    def sent(self):
        """Return the commits sent per collection, with lost races."""
        return _without_fleet(self._sent)

    @property
    def of_fleet(self):
        """Return the calls for the fleet by method, and assert that they are no more than the time allows."""
        counts = Counter(BatchGetDocuments=0, Commit=0)
        counts["BatchGetDocuments"] = sum(name in FLEET for name in self._read)
        counts["Commit"] = sum(name in FLEET for name in self._sent)
        seconds = time.monotonic() - self._began
        assert counts["BatchGetDocuments"] <= 1 + seconds / LOOK_SECONDS
        assert counts["Commit"] <= 1 + seconds / (LOOK_SECONDS * LOOKS_PER_HEARTBEAT)
        return counts

    @property
    def commits(self):
        """Return the successful commits per collection."""
        made = list(self._cloud.firestore.commits)[self._commits_before :]
        return _without_fleet(_collection(committed.changed[0]) for committed in made)

    def calls(self, *services):
        """Return the calls of these services by method, without zeros."""
        counts = (self._cloud.services[name].calls.as_dict() for name in services)
        return sum(map(Counter, counts), Counter())


def _collection(name):
    return name.partition("/documents/")[2].partition("/")[0]


def _without_fleet(collections):
    return Counter(name for name in collections if name not in FLEET)


@pytest.fixture
def counted(deployment):
    """Return a counter of calls on the deployment's cloud."""
    return Counted(deployment)


def _runs(deployment, count):
    return [deployment.put_run(charts=CHARTS) for _ in range(count)]


def _publish(deployment, named):
    for run_id, step_id in named:
        deployment.publish_step(run_id, step_id)


def _work(deployment, daemon, named, *, before=0):
    _publish(deployment, named)
    _wait_for_work(deployment, daemon, named, before=before)


def _wait_for_work(deployment, daemon, named, *, before=0):
    daemon.wait_for_event("message_settled", count=before + len(named))
    statuses = Counter(line["status"] for line in daemon.named("step_completed"))
    assert statuses == {"SUCCEEDED": before + len(named)}
    assert deployment.cloud.pubsub.calls.wait_for("Acked", len(named), timeout_seconds=30)  # sent by a thread


def _work_uncontended(deployment, counted):
    """Work the steps one by one, each of its own run; count from the third on."""
    named = [(run_id, step_ids[0]) for run_id, step_ids in _runs(deployment, STEPS + 2)]
    with deployment.daemon(WORKER_CONCURRENCY="1", **SELDOM).started() as daemon:
        _work(deployment, daemon, named[:2])
        counted.begin()
        _work(deployment, daemon, named[2:], before=2)


def test_an_uncontended_step_costs_no_more_than_it_must(deployment, counted):
    """A step needs a read, two commits, the manifest, and per chart a call, an upload and a count.

    The counts need no read: nobody else writes the account's document.
    """
    _work_uncontended(deployment, counted)
    assert counted.read[RUNS] == STEPS
    assert counted.commits[RUNS] == 2 * STEPS
    assert 1 <= counted.commits[USAGE] <= CHARTS * STEPS
    assert (set(counted.read), set(counted.commits)) == ({RUNS}, {RUNS, USAGE})
    expected = {"objects.insert": (CHARTS + 1) * STEPS, "advanced-chart": CHARTS * STEPS}
    assert counted.calls("storage", "chart_img") == expected


def test_an_uncontended_step_makes_no_other_calls_of_firestore_and_pubsub(deployment, counted):
    """A step needs no query, list or lost race, and of Pub/Sub only its receipt and ack."""
    _work_uncontended(deployment, counted)
    firestore, pubsub = counted.calls("firestore"), counted.calls("pubsub")
    assert firestore.pop("RunQuery", 0) <= 2  # of the rescue and the fleet
    firestore.subtract(counted.of_fleet)
    assert firestore == {"BatchGetDocuments": counted.read.total(), "Commit": counted.commits.total()}
    assert 1 <= pubsub.pop("Acknowledge") <= STEPS
    # The client extends each received message before the callback, and once more at most.
    assert 1 <= pubsub.pop("ModifyAckDeadline") <= STEPS + 1
    # The test's own publishes and the embedded cloud's other counters. The stream was open before.
    assert pubsub == {"Publish": STEPS, "Deliver": STEPS, "Acked": STEPS}


def test_templates_are_read_once_in_their_cache_s_time(deployment, counted):
    """Many threads that need a template share one read in its cache's time."""
    named = [(run_id, step_ids[0]) for run_id, step_ids in _runs(deployment, 16)]
    counted.begin()
    _publish(deployment, named)
    with deployment.daemon(WORKER_CONCURRENCY="16").started() as daemon:
        _wait_for_work(deployment, daemon, named)
    assert counted.read[TEMPLATES] == CHARTS


def test_a_large_run_is_committed_in_groups(deployment, counted):
    """Of 2 x 200 single commits at most 15 % are sent, and a read serves several steps."""
    run_id, step_ids = deployment.put_run(steps=200, charts=1)
    named = [(run_id, step_id) for step_id in step_ids]
    counted.begin()
    _publish(
        deployment, named
    )  # before the start, so that groups do not depend on the speed of the test's publishes
    with deployment.daemon(WORKER_CONCURRENCY="32").started() as daemon:
        _wait_for_work(deployment, daemon, named)
    assert counted.sent[RUNS] <= 0.15 * 2 * 200
    assert counted.read[RUNS] <= 0.6 * 200
