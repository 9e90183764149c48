"""The number of calls per step: work is counted here, time is measured in the benchmarks."""

from __future__ import annotations

from collections import Counter

import pytest

from localcloud.faults import Fault
from localcloud.firestore.writes import target

STEPS, CHARTS = 5, 3
RUNS, TEMPLATES, USAGE = "flow_runs", "chart_templates", "chart_img_accounts_usage"
#: Timed events: a heartbeat every 1,200 s, and at random times up to a day and 540 s after the start the
#: first scan of the rescue and the client's first extension of its Pub/Sub messages.
SELDOM = {"LEASE_SECONDS": "3600", "RESCUE_INTERVAL_SECONDS": "86400", "ACK_EXTENSION_SECONDS": "600"}


class Counted:
    """The calls of the embedded cloud from `begin` on."""

    def __init__(self, deployment):
        self._cloud = deployment.cloud
        self._read: list[str] = []
        self._sent: list[str] = []
        self._commits_before = 0

    def begin(self):
        """Start counting."""
        firestore = self._cloud.firestore
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
        return Counter(self._read)

    @property
    def sent(self):
        """Return the commits sent per collection, with lost races."""
        return Counter(self._sent)

    @property
    def commits(self):
        """Return the successful commits per collection."""
        made = list(self._cloud.firestore.commits)[self._commits_before :]
        return Counter(_collection(committed.changed[0]) for committed in made)

    def calls(self, *services):
        """Return the calls of these services by method, without zeros."""
        counts = (self._cloud.services[name].calls.as_dict() for name in services)
        return sum(map(Counter, counts), Counter())


def _collection(name):
    return name.partition("/documents/")[2].partition("/")[0]


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
    """Work the steps one by one, each of its own run; count from the second on."""
    first, *others = [(run_id, step_ids[0]) for run_id, step_ids in _runs(deployment, STEPS + 1)]
    with deployment.daemon(WORKER_CONCURRENCY="1", **SELDOM).started() as daemon:
        _work(deployment, daemon, [first])
        counted.begin()
        _work(deployment, daemon, others, before=1)


def test_an_uncontended_step_costs_no_more_than_it_must(deployment, counted):
    """A step needs a read, two commits, the manifest, and per chart a call, an upload and a count."""
    _work_uncontended(deployment, counted)
    assert counted.read[RUNS] == STEPS
    assert counted.commits[RUNS] == 2 * STEPS
    assert 1 <= counted.read[USAGE] <= CHARTS * STEPS
    assert 1 <= counted.commits[USAGE] <= CHARTS * STEPS
    assert set(counted.read) | set(counted.commits) == {RUNS, USAGE}
    expected = {"objects.insert": (CHARTS + 1) * STEPS, "advanced-chart": CHARTS * STEPS}
    assert counted.calls("storage", "chart_img") == expected


def test_an_uncontended_step_makes_no_other_calls_of_firestore_and_pubsub(deployment, counted):
    """A step needs no query, list or lost race, and of Pub/Sub only its receipt and ack."""
    _work_uncontended(deployment, counted)
    firestore, pubsub = counted.calls("firestore"), counted.calls("pubsub")
    assert firestore.pop("RunQuery", 0) <= 1  # a scan of the rescue, if it happened just now
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
